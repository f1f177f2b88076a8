"""DropBlock: masks against loops, statistics against the official ones, and its changing rate."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from timm_assemble.layers import DropBlock2d, drop_block_2d, drop_block_mask

from .. import _oracles as oracle
from .._official import TRAINING


@given(seed=st.integers(0, 2 ** 16), chs=st.integers(1, 4), height=st.integers(1, 16), width=st.integers(1, 16),
       block=st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_mask_clears_whole_blocks_and_has_mean_1(seed, chs, height, width, block):
    kh, kw = min(block, height), min(block, width)
    rows, cols = height - kh + 1, width - kw + 1
    gamma = 0.2
    rate = gamma * kh * kw * rows * cols / (height * width)
    torch.manual_seed(seed)
    mask = drop_block_mask(chs, height, width, rate, block_size=block)
    torch.manual_seed(seed)
    starts = (torch.rand(rows, cols, chs) < gamma).numpy()
    kept = np.stack([oracle.drop_block_mask(starts[..., c], height, width, kh, kw) for c in range(chs)])
    expected = kept * (kept.size / kept.sum() if kept.any() else 0)
    np.testing.assert_allclose(mask.expand(1, chs, height, width)[0], expected, rtol=1e-6)


@pytest.mark.parametrize('golden', TRAINING['dropblock'], ids=lambda f: f"{f['shape'][1]}-{f['gamma_scale']}")
def test_dropped_fraction_has_the_official_statistics(golden):
    batch, height, width, chs = golden['shape']
    torch.manual_seed(0)
    x = torch.ones(batch, chs, height, width)
    zeroed, touched, draws = [], [], 400
    for _ in range(draws):
        y = drop_block_2d(x, 1 - golden['keep_prob'], gamma_scale=golden['gamma_scale'])
        assert torch.equal(y[0], y[1]) and torch.equal(y[0], y[-1])  # shared by the batch
        assert y.mean().item() == pytest.approx(golden['mean_output'], abs=1e-5)
        assert len(y.unique()) <= golden['distinct_values_max']
        zeroed.append((y[0] == 0).float().mean().item())
        touched.append((y[0] == 0).flatten(1).any(1).float().mean().item())
    spread = golden['std_over_seeds'] / draws ** 0.5
    assert np.mean(zeroed) == pytest.approx(golden['exact_expected_fraction'], abs=4 * spread)
    assert np.std(zeroed) == pytest.approx(golden['std_over_seeds'], rel=0.2)
    assert np.mean(touched) == pytest.approx(golden['mean_fraction_of_channels_touched'], rel=0.1)


def test_channels_have_different_masks():
    torch.manual_seed(0)
    mask = drop_block_mask(64, 14, 14, 0.5)
    assert len({tuple((m == 0).flatten().tolist()) for m in mask[0]}) > 32


@pytest.mark.parametrize('side', [1, 2, 4, 6])
def test_block_shrinks_to_a_smaller_feature_map(side):
    """The official code fails there, see `dropblock_errors`."""
    assert str(side) in TRAINING['dropblock_errors'] or side == 1
    torch.manual_seed(0)
    masks = torch.stack([drop_block_mask(8, side, side, 0.3).expand(1, 8, side, side) for _ in range(300)])
    assert (masks == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.isfinite(masks).all()


def test_everything_dropped_is_zero_not_nan():
    y = drop_block_2d(torch.ones(2, 1, 4, 4), 1.0)
    assert torch.equal(y, torch.zeros_like(y))


def test_eval_and_zero_rate_change_nothing():
    x = torch.randn(2, 8, 9, 9)
    layer = DropBlock2d(0.9)
    assert layer.eval()(x) is x
    layer.train().set_rate(0.0)
    assert torch.equal(layer(x), x)


def test_rates_as_number_and_tensor_give_equal_outputs():
    outputs = []
    for rate in (0.3, torch.tensor(0.3)):
        torch.manual_seed(1)
        outputs.append(drop_block_2d(torch.ones(1, 32, 14, 14), rate))
    assert torch.equal(*outputs) and (outputs[0] == 0).any()


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_kept(memory_format):
    x = torch.randn(2, 8, 14, 14).contiguous(memory_format=memory_format)
    assert drop_block_2d(x, 0.5).is_contiguous(memory_format=memory_format)


def test_rate_survives_to_empty():
    layer = DropBlock2d(0.25, device='meta').to_empty(device='cpu')
    layer.init_non_persistent_buffers()
    assert layer.rate.item() == 0.25 and not layer.state_dict()
    assert repr(layer) == 'DropBlock2d(rate=0.25, block_size=7, gamma_scale=1)'


@pytest.mark.parametrize('kwargs, message', [
    (dict(rate=-0.1), r'rate must be from 0 to 1, got -0.1'),
    (dict(rate=1.5), r'rate must be from 0 to 1, got 1.5'),
    (dict(block_size=0), r'block_size must be 1 or more, got 0'),
    (dict(gamma_scale=0), r'gamma_scale must be positive, got 0'),
])
def test_arguments_out_of_range_are_rejected(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DropBlock2d(**kwargs)
