"""The variant told from names and shapes: every official network, and sweeps over the constructor's arguments."""
import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings, strategies as st

from timm_assemble.convert import infer_variant, state_dict_from_tf, tf_names
from timm_assemble.convert.variants import PUBLISHED, read_architecture

from .._official import MODELS, variable_specs

UNSEEN = ('global_pool', 'aa_size', 'aa_shortcut', 'last_stride')
SEEN_ALIKE = {'r50_bl_sk': 'assemble_resnet50'}  # but for the anti-aliasing, which has no variables


def shapes_of(model):
    """What a checkpoint of the model would have: names and shapes in TensorFlow's layout."""
    state = model.state_dict()
    shapes = {}
    for entry, name in tf_names(model).items():
        shape = tuple(state[entry].shape)
        shapes[name] = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape[::-1]
    return shapes


def rebuilt(variant):
    return timm.create_model(variant.name, device='meta', **variant.model_args)


@pytest.mark.parametrize('network', MODELS)
def test_official_networks(network):
    """Name and arguments are those the network was made by, and the model takes every variable."""
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs(network)}
    variant = infer_variant(shapes, keep_classes=True)
    name, args = MODELS[network]
    classes = 11 if network.startswith('tiny') else 1001
    assert variant.name == SEEN_ALIKE.get(network, name)
    assert variant.model_args == {**{k: v for k, v in args.items() if k not in UNSEEN}, 'num_classes': classes}
    assert shapes_of(rebuilt(variant)) == shapes
    if classes == 1001:
        assert 'num_classes' not in infer_variant(shapes).model_args  # 1000
    else:
        assert infer_variant(shapes) == variant


def test_arrays_of_these_shapes_fill_the_model():
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('tiny_r50d_sk')}
    model = rebuilt(infer_variant(shapes))
    state = state_dict_from_tf({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, model)
    model.load_state_dict(state, assign=True)
    assert all(not value.is_meta for value in model.state_dict().values())


@pytest.mark.parametrize('name', PUBLISHED)
def test_registered_models_are_found_again(name):
    model = timm.create_model(name, device='meta')
    found = infer_variant(shapes_of(model))
    assert found.model_args == {} and found.name == ('assemble_resnet50' if name == 'assemble_resnet50_bl_sk' else name)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_arguments_are_found_again(data):
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
    shapes = shapes_of(model)
    variant = infer_variant(shapes, keep_classes=True)
    again = rebuilt(variant)
    assert shapes_of(again) == shapes
    assert variant.seen.layers == args['layers'] and variant.seen.width == args['width']
    assert [type(m).__name__ for m in again.stage4[0].shortcut] == [
        type(m).__name__ for m in model.stage4[0].shortcut]
    # named: the model itself, with what it lacks given
    named = infer_variant(shapes, 'assemble_resnet50_base', args, keep_classes=True)
    assert named.name == 'assemble_resnet50_base' and shapes_of(rebuilt(named)) == shapes


@pytest.mark.parametrize('network', ['tiny_assemble50', 'tiny_r50d_sk'])
def test_a_single_variable_amiss_does_not_change_the_answer(network):
    """So that the strict conversion can name it; where the stem's kernel is gone, that is said."""
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs(network)}
    right = infer_variant(shapes)
    for name in [*shapes][::7]:
        without = {n: s for n, s in shapes.items() if n != name}
        if name.endswith(('stage0/conv2d/kernel', 'resnet_model/conv2d/kernel')):
            with pytest.raises(ValueError, match=f'{name} .* no such variable'):
                infer_variant(without)
            continue
        for changed in (without, {**without, name + '_x': shapes[name]}, {**shapes, name + '_x': shapes[name]}):
            assert infer_variant(changed)[:2] == right[:2]


def test_background_is_dropped_of_1001_classes_alone():
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('tiny_assemble50')}
    assert infer_variant(shapes).model_args['num_classes'] == 11
    assert infer_variant(shapes, model_args=dict(num_classes=10)).model_args['num_classes'] == 10
    with pytest.raises(ValueError, match=r'num_classes must agree with the variables, got 9, .*11 classes'):
        infer_variant(shapes, model_args=dict(num_classes=9))


def test_what_is_not_seen_can_be_given():
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('r50_bl_sk')}
    args = dict(global_pool='gem', last_stride=1, aa_size=5)
    assert infer_variant(shapes, model_args=args).model_args == args
    assert infer_variant(shapes, 'assemble_resnet50_bl_sk')[:2] == ('assemble_resnet50_bl_sk', {})


@pytest.mark.parametrize('name, args, message', [
    ('assemble_resnet152', {}, r"model assemble_resnet152 differs .* in \['layers', 'big_little'\], seen"),
    ('assemble_resnet50_d', {}, r"differs from the variables in \['deep_stem', 'attn', 'big_little'\]"),
    ('resnet50', {}, r"model must be one of .*'assemble_resnet101'.*got 'resnet50'"),
    (None, dict(width=16), 'width must agree with the variables, got 16, seen: .* width 8'),
    (None, dict(attn='se'), "attn must agree with the variables, got 'se'"),
    (None, dict(layers=5), 'layers must agree with the variables, got 5'),
    (None, dict(big_little=(1, 2)), 'big_little must agree'),
    (None, dict(colour='red'), "model_args must have names from .*'aa_size'.*, got 'colour'"),
])
def test_a_model_or_argument_that_contradicts_the_variables(name, args, message):
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('tiny_assemble50')}
    with pytest.raises(ValueError, match=message):
        infer_variant(shapes, name, args)


@pytest.mark.parametrize('change, message', [
    (lambda s: {'layer1.0.conv1.weight': (64, 3, 7, 7)}, "names that start with 'resnet_model/', got .*layer1"),
    (lambda s: {}, 'names that start with'),
    (lambda s: {**s, 'resnet_model/stage0/conv2d/kernel': (5, 5, 3, 8)}, r'7x7 or 3x3 convolution, got shape \(5, 5'),
    (lambda s: {n: v for n, v in s.items() if 'dense' not in n}, 'no variant: a classifier, dense/kernel .* seen: 7x7'),
    (lambda s: {n: v for n, v in s.items() if 'stage4' not in n}, r'stages of 1 block or more .* \(3, 4, 6, 0\)'),
    (lambda s: {n: tuple(3 * d for d in v) for n, v in s.items()}, 'conv2d/kernel must be'),
    (lambda s: {n: tuple(12 if d == 4 else d for d in v) for n, v in s.items()}, 'alpha 1, 2, 4 or 8 must be there'),
    (lambda s: {n: v for n, v in s.items() if 'little2' not in n}, 'one beta for all little branches'),
])
def test_what_fits_no_variant_says_what_was_seen(change, message):
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('tiny_assemble50')}
    with pytest.raises(ValueError, match=message):
        read_architecture(change(shapes))


def test_kernel_and_bias_must_drop_the_same_class():
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('tiny_r50d_sk')}
    variables = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    model = timm.create_model('assemble_resnet50_d_sk', width=8, num_classes=10, device='meta')
    variables['resnet_model/dense/bias'] = np.zeros(10, np.float32)
    with pytest.raises(ValueError, match=r'1 differences.*\n.*dense/kernel has one class more'):
        state_dict_from_tf(variables, model)


def test_state_dict_is_contiguous():
    """As safetensors takes no other, and a model on the meta device takes these tensors as its own."""
    shapes = {name: tuple(shape) for name, shape, *_ in variable_specs('tiny_r50d_sk')}
    model = timm.create_model('assemble_resnet50_d_sk', width=8, num_classes=11, device='meta')
    state = state_dict_from_tf({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, model)
    assert all(value.is_contiguous() and value.dtype in (torch.float32, torch.int64) for value in state.values())
