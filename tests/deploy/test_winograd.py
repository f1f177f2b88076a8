"""Winograd's convolution against the plain one, which layers it replaces, and that it is compiled."""
import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from torch._dynamo.testing import EagerAndRecordGraphs

from timm_assemble import optimize_for_inference
from timm_assemble.deploy import optimize
from timm_assemble.deploy.fold import fold_for_inference
from timm_assemble.deploy.winograd import (
    WinogradConv2d, remove_winograd, use_winograd, winograd_conv3x3, winograd_filters,
)

from .test_optimize import VARIATIONS, error, make, tiny

sides = st.integers(1, 19)


@given(batch=st.integers(1, 3), height=sides, width=sides, chs=st.integers(1, 5), out_chs=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_filtering_equals_the_convolution(batch, height, width, chs, out_chs):
    """In float64, where only a wrong formula differs."""
    x = torch.randn(batch, chs, height, width, dtype=torch.float64)
    weight = torch.randn(out_chs, chs, 3, 3, dtype=torch.float64)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = winograd_conv3x3(x.to(memory_format=layout), winograd_filters(weight))
        torch.testing.assert_close(got, F.conv2d(x, weight, padding=1), rtol=0, atol=1e-11)
        assert got.stride(1) == 1


def test_float32_error_is_at_most_1e_4_of_the_standard_deviation():
    x, weight = torch.randn(2, 512, 16, 16).relu(), torch.randn(64, 512, 3, 3)
    got = winograd_conv3x3(x, winograd_filters(weight)).double()
    assert 1e-6 < error(got, F.conv2d(x.double(), weight.double(), padding=1)) < 1e-4


conv3x3 = dict(in_channels=64, out_channels=64, kernel_size=3, padding=1)


@pytest.mark.parametrize('change', [
    {}, dict(bias=False), dict(in_channels=63), dict(out_channels=63), dict(kernel_size=(3, 1)), dict(stride=2),
    dict(padding=0), dict(dilation=2), dict(groups=2), dict(padding_mode='circular'), dict(dtype=torch.bfloat16),
    dict(device='meta')], ids=str)
def test_only_wide_plain_3x3_convolutions_suit(change):
    conv = nn.Conv2d(**{**conv3x3, **change})
    assert WinogradConv2d.suits(conv) == ('bias' in change or not change)
    assert not WinogradConv2d.suits(nn.Linear(64, 64))


@pytest.mark.parametrize('bias', [True, False])
def test_eager_and_half_precision_run_the_plain_convolution(bias):
    conv = nn.Conv2d(**conv3x3, bias=bias).eval()
    layer, x = WinogradConv2d(conv), torch.randn(2, 64, 9, 9)
    assert torch.equal(layer(x), conv(x)) and not layer.training
    assert layer.state_dict().keys() == conv.state_dict().keys()
    half = torch.compile(copy.deepcopy(layer).bfloat16(), backend='eager')
    assert torch.equal(half(x.bfloat16()), copy.deepcopy(conv).bfloat16()(x.bfloat16()))


@pytest.mark.parametrize('bias', [True, False])
def test_compiled_float32_runs_winograd(bias):
    torch._dynamo.reset()
    conv = nn.Conv2d(**conv3x3, bias=bias).eval()
    backend, x = EagerAndRecordGraphs(), torch.randn(2, 64, 9, 9)
    with torch.no_grad():
        assert error(torch.compile(WinogradConv2d(conv), backend=backend)(x), conv(x)) < 1e-4
    assert 'bmm' in backend.graphs[0].code and 'conv2d' not in backend.graphs[0].code


def test_generated_code_takes_any_batch_size():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(**conv3x3), nn.ReLU()).eval()
    optimized = optimize_for_inference(model, (4, 3, 9, 10))
    assert isinstance(optimized.model[1], WinogradConv2d)
    for batch in (4, 5, 1, 7):
        x = torch.randn(batch, 3, 9, 10)
        with torch.no_grad():
            assert 1e-7 < error(optimized(x), model(x)) < 1e-4


def convolutions(model):
    return {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def test_large_feature_maps_use_winograd_until_it_is_removed():
    """4 x 8 x 8 spatial positions are enough, 3 x 8 x 8 are not."""
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(**conv3x3)).eval()
    plain = copy.deepcopy(model)
    assert use_winograd(copy.deepcopy(model), torch.zeros(3, 3, 8, 8))[1].__class__ is nn.Conv2d
    use_winograd(model, torch.zeros(4, 3, 8, 8))
    assert [type(module) for module in model] == [nn.Conv2d, WinogradConv2d]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.state_dict().keys() == plain.state_dict().keys()
    remove_winograd(model)
    assert convolutions(model) == convolutions(plain) and not any(module.training for module in model.modules())
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize('kwargs', [dict(big_little=(), attn=''), *VARIATIONS.values()], ids=['plain', *VARIATIONS])
def test_models_with_winograd_equal_the_original(kwargs, monkeypatch):
    """At full width and other sizes than Winograd was chosen for; run eager as if compiled."""
    model = make(**{**tiny, 'width': 64, **kwargs})
    folded = fold_for_inference(model, (4, model.in_chans, 256, 256))
    use_winograd(folded, torch.zeros(4, model.in_chans, 256, 256))
    assert WinogradConv2d in convolutions(folded).values()
    for batch, *size in ((1, 64, 64), (5, 64, 96), (1, 75, 101)):
        x = torch.randn(batch, model.in_chans, *size)
        with torch.no_grad():
            expected = model(x)
            with monkeypatch.context() as patch:
                patch.setattr(torch.compiler, 'is_compiling', lambda: True)
                got = folded.forward(x)
            assert 1e-8 < error(got, expected) < 1e-4


def test_optimized_model_uses_winograd_and_optimized_again_in_bfloat16_does_not(monkeypatch):
    monkeypatch.setattr(optimize, 'COMPILE', dict(backend='eager'))
    torch._dynamo.reset()
    model, x = make(width=64, **tiny), torch.randn(4, 3, 128, 128)
    optimized = optimize_for_inference(model, x.shape)
    found = [name for name, kind in convolutions(optimized.model).items() if kind is WinogradConv2d]
    assert len(found) > 3
    with torch.no_grad():
        assert 1e-8 < error(optimized(x), model(x)) < 1e-4
    half = optimize_for_inference(optimized, x.shape, torch.bfloat16)
    assert WinogradConv2d not in convolutions(half.model).values()
    uncompiled = optimize_for_inference(optimized, x.shape, compile=False)
    assert WinogradConv2d not in convolutions(uncompiled.model).values()
