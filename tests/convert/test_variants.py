"""The inferred variant of every official network, and of networks of drawn arguments."""
import pytest
import timm
from hypothesis import given, settings, strategies as st

from timm_assemble.convert import infer_variant
from timm_assemble.convert.tf_names import tf_shapes
from timm_assemble.convert.variants import read_architecture
from timm_assemble.recipes.paper import TECHNIQUES

from .._official import MODELS, variable_specs

NOT_IN_THE_CHECKPOINT = ('global_pool', 'aa_size', 'aa_shortcut', 'last_stride')
INFERRED = {'r50_bl_sk': 'assemble_resnet50'}  # they differ only in anti-aliasing, which has no variables


def shapes_of(network):
    return {name: tuple(shape) for name, shape, *_ in variable_specs(network)}


def rebuilt(variant):
    return timm.create_model(variant.name, device='meta', **variant.model_args)


@pytest.mark.parametrize('network', MODELS)
def test_name_and_arguments_of_official_networks_are_inferred(network):
    shapes = shapes_of(network)
    variant = infer_variant(shapes, keep_classes=True)
    name, args = MODELS[network]
    classes = 11 if network.startswith('tiny') else 1001
    assert variant.name == INFERRED.get(network, name)
    assert variant.model_args == dict(
        {k: v for k, v in args.items() if k not in NOT_IN_THE_CHECKPOINT}, num_classes=classes)
    assert tf_shapes(rebuilt(variant)) == shapes
    if classes == 1001:
        assert 'num_classes' not in infer_variant(shapes).model_args  # 1000
    else:
        assert infer_variant(shapes) == variant


@pytest.mark.parametrize('name', TECHNIQUES)
def test_registered_models_are_inferred_without_arguments(name):
    inferred = 'assemble_resnet50' if name == 'assemble_resnet50_bl_sk' else name
    assert infer_variant(tf_shapes(timm.create_model(name, device='meta')))[:2] == (inferred, {})


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_drawn_arguments_are_inferred(data):
    draw = data.draw
    big_little = draw(st.sampled_from([None, (1, 1), (1, 2), (2, 3), (2, 4), (4, 5), (8, 2)]))
    lowest = 2 if big_little else 1
    deep_stem = draw(st.booleans())
    args = dict(
        layers=(*(draw(st.integers(lowest, 7)) for _ in range(3)), draw(st.integers(1, 4))),
        width=draw(st.sampled_from([8, 16, 24])), deep_stem=deep_stem, in_chans=draw(st.sampled_from([1, 3])),
        attn=draw(st.sampled_from(['', 'sk', 'se'])), big_little=big_little or (),
        shortcut='d' if deep_stem else 'big_little' if big_little else 'plain',
        embedding_size=draw(st.sampled_from([0, 16, 512])), num_classes=draw(st.sampled_from([2, 11, 1000, 1001])))
    model = timm.create_model('assemble_resnet50_base', device='meta', **args)
    shapes = tf_shapes(model)
    variant = infer_variant(shapes, keep_classes=True)
    again = rebuilt(variant)
    assert tf_shapes(again) == shapes
    assert variant.inferred.layers == args['layers'] and variant.inferred.width == args['width']
    assert [type(m).__name__ for m in again.stage4[0].shortcut] == [
        type(m).__name__ for m in model.stage4[0].shortcut]
    named = infer_variant(shapes, 'assemble_resnet50_base', args, keep_classes=True)
    assert named.name == 'assemble_resnet50_base' and tf_shapes(rebuilt(named)) == shapes


@pytest.mark.parametrize('network', ['tiny_assemble50', 'tiny_r50d_sk'])
def test_a_single_wrong_variable_does_not_change_the_variant(network):
    """So the strict conversion can name it. Only the stem's kernel is needed."""
    shapes = shapes_of(network)
    right = infer_variant(shapes)
    for name in [*shapes][::7]:
        without = {n: s for n, s in shapes.items() if n != name}
        if name.endswith(('stage0/conv2d/kernel', 'resnet_model/conv2d/kernel')):
            with pytest.raises(ValueError, match=f'{name}, got no such variable'):
                infer_variant(without)
            continue
        for changed in (without, {**without, name + '_x': shapes[name]}, {**shapes, name + '_x': shapes[name]}):
            assert infer_variant(changed)[:2] == right[:2]


def test_classes_must_be_the_checkpoints_or_one_fewer():
    shapes = shapes_of('tiny_assemble50')
    assert infer_variant(shapes, model_args=dict(num_classes=10)).model_args['num_classes'] == 10
    with pytest.raises(ValueError, match=r"model_args must fit the checkpoint, got .*'num_classes': 9\}, .*11 classes"):
        infer_variant(shapes, model_args=dict(num_classes=9))


def test_what_is_not_in_the_checkpoint_can_be_given():
    shapes = shapes_of('r50_bl_sk')
    args = dict(global_pool='gem', last_stride=1, aa_size=5)
    assert infer_variant(shapes, model_args=args).model_args == args
    assert infer_variant(shapes, 'assemble_resnet50_bl_sk')[:2] == ('assemble_resnet50_bl_sk', {})


@pytest.mark.parametrize('name, args, message', [
    ('assemble_resnet152', {}, r"name must fit .* and other \['layers', 'big_little'\], inferred: 7x7"),
    ('assemble_resnet50_d', {}, r"name must fit .* and other \['deep_stem', 'attn', 'big_little'\]"),
    ('resnet50', {}, r"name must be one of .*'assemble_resnet101'.*got 'resnet50'"),
    (None, dict(width=16), r"model_args must fit the checkpoint, got \{'width': 16, .*, inferred: .* width 8"),
    (None, dict(attn='se'), "model_args must fit the checkpoint, got .*'attn': 'se'"),
    (None, dict(attn=''), "model_args must fit the checkpoint, got .*'attn': ''"),
    (None, dict(global_pool=''), "model_args must fit the checkpoint, got .*'global_pool': ''"),
    (None, dict(layers=5), 'model_args must be arguments of assemble_resnet50: .*int'),
    (None, dict(big_little=(1, 2)), r"model_args must fit the checkpoint, got .*'big_little': \(1, 2\)"),
    (None, dict(colour='red'), "model_args must be arguments of assemble_resnet50: .* no 'colour'"),
    (None, dict(bn_eps='x'), "model_args must be arguments of .* bn_eps must be of type float, got 'x'"),
    (None, dict(aa_size=9), 'model_args must be arguments of .* aa_size must be 0 or from 2 to 7, got 9'),
])
def test_a_model_or_argument_that_contradicts_the_checkpoint_is_rejected(name, args, message):
    with pytest.raises(ValueError, match=f'^{message}'):
        infer_variant(shapes_of('tiny_assemble50'), name, args)


@pytest.mark.parametrize('change, message', [
    (lambda s: {'layer1.0.conv1.weight': (64, 3, 7, 7)}, r"names that start with 'resnet_model/', got .*layer1"),
    (lambda s: {**s, 'resnet_model/stage0/conv2d/kernel': (5, 5, 3, 8)}, r'3x3 convolution .*, got shape \(5, 5'),
    (lambda s: {n: v for n, v in s.items() if 'dense' not in n}, 'a classifier, dense/kernel, inferred: 7x7'),
    (lambda s: {n: v for n, v in s.items() if 'stage4' not in n}, r'stages of 1 block or more .* \(3, 4, 6, 0\)'),
    (lambda s: {n: tuple(12 if d == 4 else d for d in v) for n, v in s.items()}, 'alpha 1, 2, 4 or 8, inferred'),
    (lambda s: {n: v for n, v in s.items() if 'little2' not in n}, 'one beta for all little branches'),
])
def test_what_fits_no_variant_is_rejected(change, message):
    with pytest.raises(ValueError, match=f'^shapes must have .*{message}'):
        read_architecture(change(shapes_of('tiny_assemble50')))
