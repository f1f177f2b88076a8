"""Optimized models against the original: outputs, copies, errors, and what compiles again."""
import copy
import functools
import io
import os

import pytest
import timm
import torch
from timm.layers import convert_sync_batchnorm
from timm.models import save_for_hf
from torch import nn

import timm_assemble
from timm_assemble.deploy import optimize
from timm_assemble.deploy.fold import fold_batch_norms
from timm_assemble.layers import SelectiveKernelC3

by_inductor = functools.partial(timm_assemble.optimize_for_inference, backend='inductor')
VARIATIONS = {
    'gem, embedding': dict(global_pool='gem', embedding_size=16, aa_size=4),
    'other shortcut, SE': dict(big_little=(), shortcut='d', deep_stem=True, attn='se', last_stride=1),
    'DropBlock, grey': dict(drop_block_rate=0.1, drop_rate=0.5, in_chans=1, bn_eps=1e-3),
    'no classes': dict(num_classes=0, global_pool='', big_little=(1, 2), aa_shortcut=True, shortcut='plain'),
}
tiny = dict(layers=(2, 2, 2, 1), num_classes=10)  # the fewest blocks possible: each takes seconds to compile
# one of each family; EVERY_NETWORK=1 adds the others, of the same blocks, which take minutes
NETWORKS = timm.list_models('*assemble*') if 'EVERY_NETWORK' in os.environ else [
    'test_assemble_resnet', 'assemble_mobilenet_se2']
CASES = {
    **{name: (name, dict(width=16, num_classes=10)) for name in NETWORKS},
    **{title: ('test_assemble_resnet', {**tiny, **kwargs}) for title, kwargs in VARIATIONS.items()}}


def randomize(model):
    """Set batch norms as after training: those of a fresh model fold to almost nothing."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5), module.bias.uniform_(-0.5, 0.5)
                module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    return model.eval()


def make(name='test_assemble_resnet', **kwargs):
    torch.manual_seed(0)
    return randomize(timm.create_model(name, **kwargs))


class SpaceToDepth(nn.Sequential):
    in_chans = 3  # as TResNet

    def forward(self, x):
        return super().forward(nn.functional.pixel_unshuffle(x, 4))


def first_stage():
    model = make(width=16, **tiny)
    return nn.Sequential(model.stem, model.stages[0]).eval()


def error(got, expected):
    return ((got - expected).abs().max() / expected.std()).item()


@pytest.mark.parametrize('name, kwargs', CASES.values(), ids=CASES)
def test_folded_model_equals_the_original_which_keeps_its_weights(name, kwargs):
    model = make(name, **kwargs)
    before = copy.deepcopy(model.state_dict())
    optimized = by_inductor(model, (1, model.in_chans, 64, 64), compile=False)
    assert not [m for m in optimized.modules() if isinstance(m, nn.BatchNorm2d)]
    for batch, *size in ((1, 64, 64), (5, 64, 96), (1, 75, 101)):
        x = torch.randn(batch, model.in_chans, *size)
        with torch.no_grad():
            assert error(optimized(x), model(x)) < 1e-4
    assert not optimized(x).requires_grad
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert next(model.parameters()).requires_grad


def test_compiled_model_equals_the_original(fresh):
    """Generated code of two stages; ``python -m benchmarks.deployment`` does the same with all ten whole models."""
    model = make(big_little=(), shortcut='d', layers=(1, 1, 1, 1))
    model.prune_intermediate_layers([2])
    model.reset_classifier(10, 'gem')
    optimized = by_inductor(model.eval(), (2, 3, 64, 64))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert error(optimized(x), model(x)) < 1e-4


def test_weights_are_packed_and_activations_fused_in_compiled_code(fresh):
    """Inductor does neither where weights are inputs instead of constants."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()).eval()
    optimized, x = by_inductor(model, (2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        optimized(x)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls['mkldnn::_convolution_pointwise'] == 2
    assert not {'aten::convolution', 'aten::relu'} & calls.keys()


def test_a_size_compiles_once_more_for_other_batch_sizes_and_for_a_single_image(compiled):
    optimized = by_inductor(first_stage(), (4, 3, 64, 64))
    counts = [len(compiled)]
    for batch, *size in ((4, 64, 64), (3, 64, 64), (9, 64, 64), (3, 96, 80), (7, 96, 80), (1, 96, 80), (1, 64, 96),
                         (5, 64, 64)):
        optimized(torch.zeros(batch, 3, *size))
        counts.append(len(compiled))
    assert counts == [1, 1, 2, 2, 3, 4, 5, 6, 6]
    optimized(torch.zeros(5, 3, 64, 64).to(memory_format=torch.channels_last))
    assert len(compiled) == 6


def test_after_many_sizes_calls_run_uncompiled_and_warn_once(compiled, monkeypatch):
    monkeypatch.setattr(optimize, 'MAX_SIZES', 2)
    model = first_stage()
    optimized = by_inductor(model, (2, 3, 64, 64))
    optimized(torch.zeros(2, 3, 64, 96))
    x = torch.randn(2, 3, 75, 101)
    with pytest.warns(UserWarning, match='Calls of 2 sizes are compiled; 75x101 and other new sizes run') as caught:
        y = optimized(x)
    assert len(caught) == 1 and caught[0].filename == __file__
    optimized(x[..., :80])  # a second warning would be an error here
    optimized(torch.zeros(2, 3, 64, 96))
    assert len(compiled) == 2
    with torch.no_grad():
        assert error(y, model(x)) < 1e-4


def test_each_of_many_models_is_compiled(compiled):
    """With a shared code object the ninth would run eager, silently."""
    layer = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    for i in range(10):
        by_inductor(layer, (2, 3, 8 + i, 8))
        assert len(compiled) == i + 1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_callers_dtype(dtype):
    model, x = make(**tiny), torch.randn(2, 3, 64, 64)
    optimized = by_inductor(model, x.shape, dtype, compile=False)
    assert {p.dtype for p in optimized.parameters()} == {dtype}
    y = optimized(x)
    assert y.dtype == torch.float32 and optimized(x.to(dtype)).dtype == dtype
    with torch.no_grad():
        assert 1e-6 < error(y, model(x)) < 0.1


def test_folding_rounds_the_product_of_weight_and_scale_once():
    layer = SelectiveKernelC3(16)
    randomize(layer)
    exact = fold_batch_norms(copy.deepcopy(layer)).double().conv.conv.weight
    folded = by_inductor(layer, (1, 16, 8, 8), torch.bfloat16, compile=False)
    assert torch.equal(folded.model.conv.conv.weight, exact.to(torch.bfloat16))


def test_copies_are_equal_and_compiled(compiled):
    model, x = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1)).eval(), torch.randn(2, 3, 64, 64)
    optimized = by_inductor(model, x.shape)
    expected = optimized(x)
    file = io.BytesIO()
    torch.save(optimized, file)
    file.seek(0)
    for i, again in enumerate((copy.deepcopy(optimized), torch.load(file, weights_only=False))):
        assert torch.equal(again(x), expected)
        assert again.model is not optimized.model and len(compiled) == 2 + i
    with pytest.raises(ValueError, match='model must be the original, got one that is optimized already'):
        by_inductor(optimized, x.shape)


def test_features_only_models_keep_their_features():
    model = make(features_only=True, **{**tiny, 'num_classes': 0})
    optimized = by_inductor(model, (1, 3, 64, 64), torch.bfloat16, compile=False)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
    got = optimized(x)
    assert [y.shape for y in got] == [y.shape for y in expected]
    assert all(y.dtype == torch.float32 and error(y, z) < 0.1 for y, z in zip(got, expected))
    assert optimized.feature_info.channels() == model.feature_info.channels()


def test_pretrained_model_keeps_its_outputs_and_data_config(tmp_path):
    model, x = make(**tiny), torch.randn(2, 3, 64, 64)
    save_for_hf(model, tmp_path, safe_serialization='both')
    loaded = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    optimized = by_inductor(loaded, x.shape, compile=False)
    with torch.no_grad():
        assert error(optimized(x), model(x)) < 1e-4
    assert timm.data.resolve_model_data_config(optimized) == timm.data.resolve_model_data_config(loaded)


@pytest.mark.parametrize('model, norms', [
    (convert_sync_batchnorm(timm.create_model('test_assemble_resnet', **tiny)), 0),
    (timm.create_model('resnet18'), 20),  # has no ConvNormAct
    (timm.create_model('test_assemble_resnet', **tiny, norm_layer='evonormb0'), 0),  # a running variance and no mean
    (SpaceToDepth(nn.Conv2d(48, 8, 3)), 0),
], ids=['synchronized norms', 'other family', 'other norms', 'first convolution of other channels'])
def test_other_models_equal_the_original(model, norms):
    x = torch.randn(2, 3, 64, 64)
    optimized = by_inductor(randomize(model), x.shape, compile=False)
    with torch.no_grad():
        assert error(optimized(x), model(x)) < 1e-4
    assert len([m for m in optimized.modules() if isinstance(m, nn.BatchNorm2d)]) == norms


@pytest.mark.parametrize('arguments, message', [
    (dict(example_size=(3, 64)), r'example_size must be \(B, C, H, W\) or \(C, H, W\).*\(3, 64\)'),
    (dict(example_size=(0, 3, 64, 64)), 'positive integers'),
    (dict(example_size=(3, 64., 64)), 'positive integers'),
    (dict(example_size=(4, 64, 64)), r"the model's 3 channels, got \(4, 64, 64\)"),
    (dict(example_size=(3, 64, 64), dtype=torch.int8), r'dtype must be one of .*torch.int8'),
    (dict(example_size=(3, 64, 64), backend='openvino', compile=False), "compile must be True with backend='openvino'"),
])
def test_bad_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        timm_assemble.optimize_for_inference(make(**tiny), **{'backend': 'inductor', **arguments})


def test_training_mode_is_rejected():
    model = make(**tiny)
    model.stages[3][0].conv2.conv.norm.train()
    with pytest.raises(ValueError, match=r'model.eval\(\); in training mode: stages.3.0.conv2.conv.norm'):
        by_inductor(model, (3, 64, 64))
    with pytest.raises(ValueError, match=r'AssembleResNet, stem, .* and more'):
        by_inductor(model.train(), (3, 64, 64))
    optimized = by_inductor(model.eval(), (3, 64, 64), compile=False)
    with pytest.raises(ValueError, match='no batch norms left to train'):
        optimized.train()
    assert optimized.eval() is optimized and not any(m.training for m in optimized.modules())
