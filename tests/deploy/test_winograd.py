"""Winograd's convolution against the plain one, which layers it replaces, and that it is compiled."""
import copy
import gc
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn
from torch._dynamo.testing import EagerAndRecordGraphs

from timm_assemble import optimize_for_inference
from timm_assemble.deploy import optimize, winograd
from timm_assemble.deploy.fold import fold_for_inference
from timm_assemble.deploy.winograd import (
    WinogradConv2d, use_winograd, winograd_conv3x3, winograd_filters,
)

from .test_optimize import VARIATIONS, error, make, tiny

sides, chs = st.integers(1, 19), st.sampled_from([16, 32, 80])


@given(batch=st.integers(1, 3), height=sides, width=sides, chs=chs, out_chs=chs, bias=st.booleans(),
       block=st.sampled_from([1, 7, 256]))
@settings(max_examples=60, deadline=None)
def test_filtering_equals_the_convolution(batch, height, width, chs, out_chs, bias, block):
    torch.manual_seed(0)  # Hypothesis repeats what fails
    x, weight = torch.randn(batch, chs, height, width), torch.randn(out_chs, chs, 3, 3)
    b = torch.randn(out_chs) if bias else None
    for layout in (torch.contiguous_format, torch.channels_last):
        with mock.patch.object(winograd, 'BLOCK', block):
            got = winograd_conv3x3(x.to(memory_format=layout), winograd_filters(weight), b)
        expected = F.conv2d(x.double(), weight.double(), None if b is None else b.double(), padding=1)
        deviation = (9 * chs) ** 0.5  # of the outputs; the docstring's bound is twice this one
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-5 * deviation)
        assert got.stride(1) == 1


def test_threads_change_nothing():
    x, filters = torch.randn(2, 64, 33, 30), winograd_filters(torch.randn(64, 64, 3, 3))
    expected = winograd_conv3x3(x, filters, None)
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(winograd_conv3x3(x, filters, None), expected, rtol=0, atol=1e-4)
    finally:
        torch.set_num_threads(1)


def test_operator_is_declared_as_it_behaves():
    """What compilers assume: strides and dtype of the output, no mutated arguments, any sizes."""
    for bias in (torch.randn(32), None):
        torch.library.opcheck(winograd_conv3x3, (torch.randn(2, 64, 9, 10), torch.randn(36, 64, 32), bias))


conv3x3 = dict(in_channels=64, out_channels=64, kernel_size=3, padding=1)


@pytest.mark.parametrize('change', [
    {}, dict(bias=False), dict(in_channels=48), dict(out_channels=72), dict(kernel_size=(3, 1)), dict(stride=2),
    dict(padding=0), dict(dilation=2), dict(groups=2), dict(padding_mode='circular'), dict(dtype=torch.bfloat16),
    dict(device='meta')], ids=str)
def test_only_wide_plain_3x3_convolutions_suit(change):
    conv = nn.Conv2d(**{**conv3x3, **change})
    assert WinogradConv2d.suits(conv) == ('bias' in change or not change)
    assert not WinogradConv2d.suits(nn.Linear(64, 64))


@pytest.mark.parametrize('bias', [True, False])
def test_float32_runs_winograd(bias):
    torch._dynamo.reset()
    conv = nn.Conv2d(**conv3x3, bias=bias).eval()
    backend, x = EagerAndRecordGraphs(), torch.randn(2, 64, 9, 9)
    with torch.no_grad():
        layer = WinogradConv2d(conv)
        assert 1e-8 < error(layer(x), conv(x)) < 1e-4
        assert torch.equal(torch.compile(layer, backend=backend)(x), layer(x))
    assert 'winograd_conv3x3' in backend.graphs[0].code and 'conv2d' not in backend.graphs[0].code


def test_generated_code_takes_any_batch_size_and_shares_the_filters():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 80, 1), nn.Conv2d(80, 80, 3, padding=1), nn.ReLU()).eval()
    optimized = optimize_for_inference(model, (4, 3, 9, 10))
    assert isinstance(optimized.model[1], WinogradConv2d)
    for batch in (4, 5, 1, 7):
        x = torch.randn(batch, 3, 9, 10)
        with torch.no_grad():
            assert 1e-7 < error(optimized(x), model(x)) < 1e-4
    filters = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == (36, 80, 80)]
    assert {t.data_ptr() for t in filters} == {optimized.model[1].filters.data_ptr()}


def convolutions(model):
    return {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def test_large_feature_maps_use_winograd():
    """4 x 8 x 8 spatial positions are enough, 3 x 8 x 8 are not."""
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(**conv3x3)).eval()
    plain = copy.deepcopy(model)
    assert use_winograd(copy.deepcopy(model), torch.zeros(3, 3, 8, 8))[1].__class__ is nn.Conv2d
    use_winograd(model, torch.zeros(4, 3, 8, 8))
    assert [type(module) for module in model] == [nn.Conv2d, WinogradConv2d]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize('kwargs', [dict(big_little=(), attn=''), *VARIATIONS.values()], ids=['plain', *VARIATIONS])
def test_models_with_winograd_equal_the_original(kwargs):
    """At full width and other sizes than Winograd was chosen for."""
    model = make(**{**tiny, 'width': 64, **kwargs})
    folded = fold_for_inference(model, (4, model.in_chans, 256, 256))
    use_winograd(folded, torch.zeros(4, model.in_chans, 256, 256))
    assert WinogradConv2d in convolutions(folded).values()
    for batch, *size in ((1, 64, 64), (5, 64, 96), (1, 75, 101)):
        x = torch.randn(batch, model.in_chans, *size)
        with torch.no_grad():
            expected = model(x)
            assert 1e-8 < error(folded(x), expected) < 1e-4


def test_optimized_model_uses_winograd(monkeypatch):
    monkeypatch.setattr(optimize, 'COMPILE', dict(backend='eager'))
    torch._dynamo.reset()
    model = make(width=64, **{**tiny, 'layers': (1, 1, 1, 1)}, big_little=(), shortcut='d')
    x = torch.randn(4, 3, 128, 128)
    optimized = optimize_for_inference(model, x.shape)
    found = [name for name, kind in convolutions(optimized.model).items() if kind is WinogradConv2d]
    assert found == [f'stages.{i}.0.conv2.conv.conv' for i in range(4)]
    with torch.no_grad():
        assert 1e-8 < error(optimized(x), model(x)) < 1e-4


def test_a_compiler_without_vector_extensions_keeps_the_convolutions(monkeypatch):
    def fail():
        raise RuntimeError('error: unknown attribute')
    monkeypatch.setattr(winograd, '_transforms', fail)
    winograd.is_available.cache_clear()
    try:
        model = use_winograd(nn.Sequential(nn.Conv2d(**conv3x3)), torch.zeros(4, 64, 8, 8))
    finally:
        winograd.is_available.cache_clear()
    assert type(model[0]) is nn.Conv2d
