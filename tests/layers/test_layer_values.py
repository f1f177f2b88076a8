"""Layers against the definitions of the papers, written as loops in tests/_oracles.py."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from timm.layers import BlurPool2d
from torch.utils._python_dispatch import TorchDispatchMode

from timm_assemble.layers import (
    AntiAlias2d, GeMPool2d, MaxPool2dSame, SelectiveKernelC3, big_little_sum, gem_pool_2d, init_weights_official,
    selective_kernel_merge, shortcut_pool,
)

from .. import _oracles as oracle
from .._official import TRAINING

side = st.integers(1, 12)
seed = st.integers(0, 2 ** 16)


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


@given(seed=seed, batch=st.integers(1, 3), chs=st.integers(1, 5), height=side, width=side,
       scale=st.sampled_from([1, 30]))
@settings(max_examples=30, deadline=None)
def test_selective_kernel_merge_equals_a_softmax(seed, batch, chs, height, width, scale):
    branches, logits = random(seed, 2, batch, chs, height, width), scale * random(seed + 1, 2, batch, chs)
    y = selective_kernel_merge(
        torch.from_numpy(np.concatenate(branches, 1)), torch.from_numpy(np.concatenate(logits, 1))[..., None, None])
    np.testing.assert_allclose(y, oracle.selective_kernel(branches, logits), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('chs, hidden', [(8, 32), (64, 32), (66, 33), (256, 128)])
def test_selective_kernel_gates_by_the_mean_of_the_branches_sum(chs, hidden):
    layer = SelectiveKernelC3(chs).double().eval()
    assert layer.fc1.conv.weight.shape == (hidden, chs, 1, 1)
    x = torch.rand(2, chs, 5, 6, dtype=torch.float64)
    a, b = layer.conv(x).chunk(2, 1)
    z = layer.fc2(layer.fc1((a + b).mean((2, 3), keepdim=True))).squeeze().detach().numpy()
    branches = np.stack([a.detach().numpy(), b.detach().numpy()])
    expected = oracle.selective_kernel(branches, np.stack(np.split(z, 2, axis=1)))
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-9)


def test_selective_kernel_in_float16_where_sums_overflow():
    torch.manual_seed(0)
    layer, x = SelectiveKernelC3(8).eval(), torch.full((1, 8, 64, 64), 200.0)
    expected = layer(x)
    assert expected.sum((2, 3)).max() > torch.finfo(torch.float16).max
    y = layer.half()(x.half())
    torch.testing.assert_close(y.float(), expected, rtol=1e-2, atol=1)


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_selective_kernel_keeps_the_memory_format_of_gradients(memory_format):
    """`torch.mean` would write one gradient in the other format."""
    converted = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.shape == x.shape and 0 not in out.stride():
                if not out.is_contiguous(memory_format=memory_format):
                    converted.append(func)
            return out

    layer = SelectiveKernelC3(8).to(memory_format=memory_format).train()
    x = torch.rand(2, 16, 6, 5).contiguous(memory_format=memory_format).requires_grad_()
    layer.conv = torch.nn.Identity()
    with Watch():
        layer(x).backward(torch.rand(2, 8, 6, 5).contiguous(memory_format=memory_format))
    assert not converted


@given(seed=seed, size=st.integers(2, 7), height=st.integers(4, 13), width=st.integers(4, 13))
@settings(max_examples=40, deadline=None)
def test_anti_alias_equals_blur_and_subsampling(seed, size, height, width):
    x = random(seed, height, width)
    y = AntiAlias2d(1, filt_size=size).double()(torch.from_numpy(x)[None, None])
    np.testing.assert_allclose(y[0, 0], oracle.blur_down(x, size), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('size', [3, 5, 7])
def test_anti_alias_of_odd_filters_equals_timms(size):
    x = torch.rand(2, 6, 9, 14)
    torch.testing.assert_close(AntiAlias2d(6, filt_size=size)(x), BlurPool2d(6, filt_size=size)(x), rtol=0, atol=0)


@given(size=st.integers(2, 7), height=side, width=side)
@settings(max_examples=40, deadline=None)
def test_anti_alias_keeps_constants_at_every_size(size, height, width):
    y = AntiAlias2d(2, filt_size=size)(torch.full((1, 2, height, width), 3.0))
    assert y.shape == (1, 2, -(-height // 2), -(-width // 2))
    torch.testing.assert_close(y, torch.full_like(y, 3.0))


@pytest.mark.parametrize('size', [0, 1, 8, 2.5])
def test_anti_alias_rejects_other_sizes(size):
    with pytest.raises(ValueError, match='filt_size must be an integer from 2 to 7'):
        AntiAlias2d(4, filt_size=size)


@given(x=arrays(np.float64, st.tuples(side, side), elements=st.sampled_from([-1.0, 0.0, 1e-4, 0.5, 3.0, 1e4, 1e13])))
@settings(max_examples=40, deadline=None)
def test_gem_pool_equals_the_bounded_mean(x):
    y = gem_pool_2d(torch.from_numpy(x)[None, None]).item()
    assert y == pytest.approx(oracle.gem(x), rel=1e-9)


def test_gem_pool_in_float16_where_cubes_overflow():
    assert GeMPool2d()(torch.full((1, 1, 2, 2), 300.0, dtype=torch.float16)).item() == pytest.approx(300, rel=1e-3)


@given(seed=seed, height=side, width=side)
@settings(max_examples=40, deadline=None)
def test_stem_pool_pads_as_tensorflow(seed, height, width):
    x = random(seed, height, width)
    y = MaxPool2dSame()(torch.from_numpy(x)[None, None])
    np.testing.assert_array_equal(y[0, 0], oracle.max_pool_same(x))


@given(seed=seed, height=side, width=side, kind=st.sampled_from(['d', 'big_little']), stride=st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_shortcut_pool_equals_the_average_of_its_kind(seed, height, width, kind, stride):
    x = random(seed, height, width)
    y = torch.nn.Sequential(*shortcut_pool(kind, stride))(torch.from_numpy(x)[None, None])
    expected = x if (kind, stride) == ('big_little', 1) else oracle.shortcut_pool(x, kind, stride)
    np.testing.assert_allclose(y[0, 0], expected, rtol=1e-12, atol=1e-12)


def test_shortcut_pool_rejects_other_kinds():
    with pytest.raises(ValueError, match=r"shortcut must be one of .*'plain'.*, got 'e'"):
        shortcut_pool('e', 2)


@given(seed=seed, height=side, width=side)
@settings(max_examples=40, deadline=None)
def test_big_little_sum_equals_nearest_resize_and_sum(seed, height, width):
    big, little = random(seed, -(-height // 2), -(-width // 2)), random(seed + 1, height, width)
    y = big_little_sum(torch.from_numpy(big)[None, None], torch.from_numpy(little)[None, None])
    np.testing.assert_allclose(y[0, 0], oracle.nearest(big, height, width) + little, rtol=1e-12)


def test_initial_weights_have_the_official_spread_and_truncation():
    torch.manual_seed(0)
    golden = TRAINING['init']['assemble50']
    conv, fc = torch.nn.Conv2d(64, 512, 3, bias=False), torch.nn.Linear(2048, 1001)
    init_weights_official(conv)
    init_weights_official(fc)
    low, high = golden['conv2d']['std_x_sqrt_fanin']
    assert low - 2e-3 < conv.weight.std().item() * (64 * 9) ** 0.5 < high + 2e-3
    largest = conv.weight.abs().max().item() * (64 * 9) ** 0.5
    assert largest == pytest.approx(golden['conv2d']['absmax_x_sqrt_fanin'], rel=1e-3)
    assert fc.weight.std().item() * 2048 ** 0.5 == pytest.approx(golden['dense']['std_x_sqrt_fanin'][0], rel=1e-3)
    assert fc.weight.abs().max().item() <= (6 / (2048 + 1001)) ** 0.5 and not fc.bias.any()
