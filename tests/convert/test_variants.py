"""The inferred variant of every official network, and of networks of drawn arguments."""
import pytest
import timm
from hypothesis import given, settings, strategies as st

from timm_assemble.convert import infer_variant
from timm_assemble.convert.tf_names import tf_shapes
from timm_assemble.errors import UserError
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


@settings(max_examples=10, deadline=None, derandomize=True)
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
    assert [type(m).__name__ for m in again.stages[3][0].shortcut.pool] == [
        type(m).__name__ for m in model.stages[3][0].shortcut.pool]
    named = infer_variant(shapes, 'assemble_resnet50_base', args, keep_classes=True)
    assert named.name == 'assemble_resnet50_base' and tf_shapes(rebuilt(named)) == shapes


def test_a_named_model_decides_and_the_arguments_are_the_given_ones():
    shapes = shapes_of('r50_bl_sk')
    args = dict(global_pool='gem', last_stride=1, aa_size=5)
    assert infer_variant(shapes, model_args=args).model_args == args
    assert infer_variant(shapes, 'assemble_resnet50_bl_sk')[:2] == ('assemble_resnet50_bl_sk', {})
    tiny = shapes_of('tiny_assemble50')
    assert infer_variant(tiny, 'assemble_resnet152')[:2] == ('assemble_resnet152', dict(width=8, num_classes=11))
    assert infer_variant(tiny, model_args=dict(num_classes=10)).model_args['num_classes'] == 10


@pytest.mark.parametrize('name, args, message', [
    ('resnet50', {}, r"name must be one of .*'assemble_resnet101'.*got 'resnet50'"),
    (None, dict(global_pool=''), "model_args must be arguments of .*'global_pool': ''.*: num_classes must be 0 where"),
    (None, dict(layers=5), 'model_args must be arguments of assemble_resnet50, .*int'),
    (None, dict(colour='red'), "model_args must be arguments of assemble_resnet50, .*argument 'colour'"),
    (None, dict(bn_eps='x'), "model_args must be arguments of .* bn_eps must be of type float, got 'x'"),
    (None, dict(bn_eps=-1.0), 'model_args must be arguments of .* bn_eps must be positive, got -1.0'),
    (None, dict(aa_size=9), 'model_args must be arguments of .* aa_size must be 0 or from 2 to 7, got 9'),
    (None, dict(norm_layer='groupnorm1'), 'model_args must be arguments of .*: norm_layer must be batchnorm2d'),
])
def test_a_model_or_argument_that_does_not_exist_is_rejected(name, args, message):
    with pytest.raises(UserError, match=f'^{message}'):
        infer_variant(shapes_of('tiny_assemble50'), name, args)


def of_stem(shape):
    return lambda s: {**s, 'resnet_model/stage0/conv2d/kernel': shape}


@pytest.mark.parametrize('change, message', [
    (lambda s: {'layer1.0.conv1.weight': (64, 3, 7, 7)}, r"stem's .*resnet_model/conv2d/kernel, got \['layer1"),
    (of_stem((5, 5, 3, 8)), r"stem's 7x7 or 3x3 resnet_model/stage0/conv2d/kernel, got \(5, 5, 3, 8\)"),
    (of_stem((7, 7, 0, 8)), 'in_chans must be positive, got 0'),
    (of_stem((7, 7, 3, 0)), 'width must be a positive multiple of 8, got 0'),
    (of_stem((7, 7, 3, 2 ** 20)), 'width must be at most 512'),
    (lambda s: {n: v for n, v in s.items() if 'dense' not in n}, "a classifier, resnet_model/dense/kernel, got 'none'"),
    (lambda s: {n: v for n, v in s.items() if 'stage4' not in n}, r'inferred: .* \(3, 4, 6, 0\) .*: layers must be'),
    (lambda s: {n: v for n, v in s.items() if 'little2' not in n}, r'big_little must be .*, got \(2, 0\)'),
])
def test_variables_of_no_network_are_rejected(change, message):
    with pytest.raises(UserError, match=f'^shapes must be those of an official network, .*{message}'):
        infer_variant(change(shapes_of('tiny_assemble50')))
