"""The networks against the official logits, and small mistakes that the comparison must detect."""
import numpy as np
import pytest
import timm
import torch
from timm.layers import BlurPool2d
from torch import nn

from timm_assemble.convert import tf_names
from timm_assemble.layers import AntiAlias2d, SelectiveKernelC3

from .._official import (
    MODELS, NETWORKS, TOLERANCE, departure, make_variable, official_input, official_model, sizes,
)


def logits_of(model, size):
    with torch.inference_mode():
        return model(official_input(*size))


def test_all_16_official_networks_are_compared():
    assert set(MODELS) == set(NETWORKS['networks']) and len(MODELS) == 16


@pytest.mark.parametrize('name', NETWORKS['spot_values'])
def test_weights_are_those_of_the_official_run(name):
    spot = NETWORKS['spot_values'][name]
    value = make_variable(name, spot['shape'], spot['last_gamma'])
    np.testing.assert_allclose(value.ravel()[:4], spot['first4'], rtol=1e-6)


@pytest.mark.parametrize('network', MODELS)
def test_logits_and_parameter_counts_equal_the_official_ones(network):
    model = official_model(network)
    golden = NETWORKS['networks'][network]
    assert sum(p.numel() for p in model.parameters()) == golden['trainable_params']
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(m.running_mean.numel() + m.running_var.numel() for m in norms) == golden['nontrainable_params']
    for size in sizes(network):
        assert departure(network, logits_of(model, size), *size) < TOLERANCE


def test_stage_outputs_equal_the_official_ones():
    model = official_model('tiny_assemble152')
    golden = NETWORKS['networks']['tiny_assemble152']['stages']['64x64']
    # an official stage ends in the block that merges its branches, which opens the next stage here, and an official
    # little branch before its last 1x1 convolution
    modules = {'initial_conv': model.stem[0].conv, 'stem': model.stem_pool, 'stage4': model.stages[3],
               'pooled': model.global_pool}
    merges = (model.stages[1].merge, model.stages[2].merge, model.stages[3][0])
    for i, (stage, merge) in enumerate(zip(model.stages[:3], merges), 1):
        modules |= {f'stage{i}_big': stage.big, f'stage{i}_little': stage.little[-2], f'stage{i}_merge': merge,
                    f'stage{i}': merge}
    outputs = {}
    for key, module in modules.items():
        module.register_forward_hook(lambda module, args, output, key=key: outputs.update({key: output.clone()}))
    with torch.inference_mode():
        model(official_input(64, 64))
    assert set(outputs) == set(golden)
    for key, x in outputs.items():
        b, c, h, w = x.shape
        assert [b, h, w, c] == golden[key]['shape']
        assert abs(x.mean().item() - golden[key]['mean']) < 1e-5 * golden[key]['std']
        first = x.permute(0, 2, 3, 1).flatten()[:8]
        np.testing.assert_allclose(first, golden[key]['sample_ch0to7'], rtol=1e-3, atol=1e-4)


def replace_modules(model, kind, make):
    """Replace every module of a kind by ``make(module)``."""
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, kind)]
    assert found
    for path, m in found:
        parent, _, name = path.rpartition('.')
        setattr(model.get_submodule(parent), name, make(m))


def symmetric_max_pool(model):
    model.stem_pool = nn.MaxPool2d(3, 2, padding=1)


def uncounted_padding(model):
    def uncounted(m):
        return nn.AvgPool2d(m.kernel_size, m.stride, m.padding, count_include_pad=False)

    replace_modules(model, nn.AvgPool2d, uncounted)


def swapped_halves(model):
    def swap(m):
        with torch.no_grad():
            m.fc2.weight.copy_(m.fc2.weight.roll(len(m.fc2.weight) // 2, 0))
        return m

    replace_modules(model, SelectiveKernelC3, swap)


def zero_padded_blur(model):
    replace_modules(model, AntiAlias2d, lambda m: BlurPool2d(m.channels, filt_size=m.filt_size, pad_mode='constant'))


def coarse_eps(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-3


@pytest.mark.parametrize('network, mistake', [
    ('tiny_r50d_sk', symmetric_max_pool),
    ('tiny_assemble50', uncounted_padding),
    ('tiny_assemble50', swapped_halves),
    ('tiny_assemble50', zero_padded_blur),
    ('tiny_assemble50', coarse_eps),
    ('tiny_r50d_sk', coarse_eps),
])
def test_small_mistakes_are_detected(network, mistake):
    model = official_model(network)
    mistake(model)
    assert departure(network, logits_of(model, (64, 64)), 64, 64) > 100 * TOLERANCE


def test_uncounted_padding_of_d_shortcut_is_detected_at_odd_sizes():
    """At even sizes no window contains the zeros."""
    model = official_model('tiny_r50d_sk')
    replace_modules(model, nn.ZeroPad2d, lambda m: nn.ReplicationPad2d(m.padding))
    assert departure('tiny_r50d_sk', logits_of(model, (64, 64)), 64, 64) < TOLERANCE
    assert departure('tiny_r50d_sk', logits_of(model, (33, 33)), 33, 33) > 100 * TOLERANCE


def test_deep_stem_with_big_little_has_the_official_names_and_parameters():
    kwargs = dict(deep_stem=True, shortcut='d', num_classes=1001)
    model = timm.create_model('assemble_resnet50', device='meta', **kwargs)
    assert sum(p.numel() for p in model.parameters()) == 41_867_721
    names = tf_names(model)
    assert names['stem.2.conv.weight'] == 'resnet_model/stage0/conv2d_2/kernel'
    assert names['stem.1.norm.weight'] == 'resnet_model/stage0/batch_normalization_1/gamma'
    assert names['stem.2.norm.weight'] == 'resnet_model/stage0_1/batch_normalization/gamma'
    assert names['stages.3.1.shortcut.conv.conv.weight'] == 'resnet_model/stage4/conv2d/kernel'


def test_se_with_big_little_has_the_official_parameters():
    model = timm.create_model('assemble_resnet50_bl', attn='se', num_classes=1001, device='meta')
    assert sum(p.numel() for p in model.parameters()) == 30_963_625


def test_background_class_is_dropped():
    full, short = official_model('tiny_assemble50'), official_model('tiny_assemble50', num_classes=10)
    x = official_input(64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(short(x), full(x)[:, 1:])


def test_little_branches_are_twice_as_large_as_big_ones_at_sizes_where_the_official_code_runs():
    """There the resize repeats pixels, as tests/layers compares it; elsewhere the official code fails."""
    model, shapes = official_model('tiny_assemble50'), []
    for stage in model.stages[:3]:
        for branch in (stage.big, stage.little):
            branch.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[2:])))
    for side in (29, 30, 31, 61, 62, 96):
        logits_of(model, (side, side + 32))
    assert len(shapes) == 36 and [(2 * h, 2 * w) for h, w in shapes[::2]] == shapes[1::2]
