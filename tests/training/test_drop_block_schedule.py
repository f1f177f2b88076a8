"""The DropBlock schedule: the official rates, and a line from start to end for every argument."""
import math

import pytest
from hypothesis import given, strategies as st

from timm_assemble.training import drop_block_schedule

from .._official import TRAINING

RATES = st.floats(0, 1)


@pytest.mark.parametrize('keep_probs', TRAINING['keep_prob_decay'])
def test_rate_equals_the_official_one(keep_probs):
    first, last = map(float, keep_probs.split('->'))
    for step, keep_prob in TRAINING['keep_prob_decay'][keep_probs].items():
        assert drop_block_schedule(int(step), 100, 1 - first, 1 - last) == pytest.approx(1 - keep_prob, abs=1e-6)


@given(step=st.integers(0, 10 ** 7), total=st.integers(1, 10 ** 7), start=RATES, end=RATES)
def test_rate_is_linear_from_start_to_end(step, total, start, end):
    rate = drop_block_schedule(step, total, start, end)
    assert min(start, end) - 1e-15 <= rate <= max(start, end) + 1e-15
    assert rate == pytest.approx(start + (end - start) * min(step, total) / total, abs=1e-12)
    assert drop_block_schedule(0, total, start, end) == start
    assert drop_block_schedule(total, total, start, end) == drop_block_schedule(total + 9, total, start, end) == end


@pytest.mark.parametrize('arguments, named', [
    ((-1, 10, 0.0, 0.1), '^step .* -1'), ((0, 0, 0.0, 0.1), '^total .* 0'),
    ((0, math.inf, 0.0, 0.1), '^total must be 1 or more and finite, got inf'), ((0, 10, -0.1, 0.1), '^start .* -0.1'),
    ((0, 10, 0.0, 1.5), '^end .* 1.5'), ((0, 10, 0.0, float('nan')), '^end .* nan')])
def test_bad_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        drop_block_schedule(*arguments)
