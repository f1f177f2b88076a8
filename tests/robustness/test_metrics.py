"""Corruption errors and flip rates against loops and published tables."""
import numpy as np
import pytest
from hypothesis import given, strategies as st

from timm_assemble.robustness import metrics

from .. import _oracles as oracles

PERCENT = st.floats(0, 100)
# Hendrycks and Dietterich, tables 1, 2 and 4: ResNet-50, whole percents of AlexNet's, and their means, which are in the
# README of the authors' repository too (mCE 76.7, mFR 58.0, clean 23.85)
CE = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)
RELATIVE_CE = (104, 107, 107, 97, 126, 107, 110, 101, 97, 79, 62, 89, 146, 111, 132)
FLIP_RATES = (59, 58, 64, 72, 63, 62, 44, 52, 57, 48)
MCE, RELATIVE_MCE, MFR, CLEAN_ERROR = 76.7, 105.0, 58.0, 23.9


def resnet50_errors():
    return {name: [ce * metrics.ALEXNET_ERROR[name] / 100] * 5 for name, ce in zip(metrics.COMMON, CE)}


def test_resnet50_has_the_published_means():
    """Errors from the printed CE give the printed means and the relative table."""
    errors = resnet50_errors()
    assert metrics.mean_corruption_error(errors) == pytest.approx(MCE, abs=0.5)  # each term is rounded
    for name, published in zip(metrics.COMMON, RELATIVE_CE):
        baseline = metrics.ALEXNET_ERROR[name]
        added = baseline - metrics.ALEXNET_CLEAN_ERROR
        rounding = 0.5 + 0.5 * baseline / added + 0.1 * published / added
        got = metrics.relative_corruption_error(errors[name], CLEAN_ERROR, baseline, metrics.ALEXNET_CLEAN_ERROR)
        assert got == pytest.approx(published, abs=rounding), name
    assert metrics.relative_mean_corruption_error(errors, CLEAN_ERROR) == pytest.approx(RELATIVE_MCE, abs=0.5)
    rates = {name: r * f / 100 for r, (name, f) in zip(FLIP_RATES, metrics.ALEXNET_FLIP_RATE.items())}
    assert metrics.mean_ratio(rates) == pytest.approx(MFR, abs=0.5)


@given(st.dictionaries(st.sampled_from('abcdef'), st.tuples(
    st.lists(PERCENT, min_size=5, max_size=5), st.lists(st.floats(50, 100), min_size=5, max_size=5)), min_size=1),
    PERCENT, st.floats(0, 40))
def test_means_are_over_the_corruptions_and_not_over_the_errors(tables, clean, baseline_clean):
    errors, baseline = ({name: table[i] for name, table in tables.items()} for i in (0, 1))
    each = [oracles.corruption_error(errors[name], baseline[name]) for name in tables]
    relative = [oracles.relative_corruption_error(errors[name], clean, baseline[name], baseline_clean)
                for name in tables]
    assert metrics.mean_corruption_error(errors, baseline) == pytest.approx(sum(each) / len(each))
    assert metrics.relative_mean_corruption_error(errors, clean, baseline, baseline_clean) == pytest.approx(
        sum(relative) / len(relative), abs=1e-9)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=9), st.booleans())
def test_flips_are_counted_as_in_the_loop(frames, with_first):
    rate = 100 * metrics.count_flips(frames, with_first) / (len(frames) - 1)
    assert rate == pytest.approx(oracles.flip_rate([frames], with_first))


def test_resnet50_has_robustbenchs_mce_on_3dcc():
    """Its errors are from the same table as AlexNet's."""
    errors = dict(
        near_focus=40.64, far_focus=45.024, fog_3d=57.224, flash=62.12, color_quant=43.64, low_light=55.596,
        xy_motion_blur=67.8, z_motion_blur=65.46, iso_noise=73.28, bit_error=53.156, h265_abr=38.304, h265_crf=32.344)
    assert metrics.mean_corruption_error(errors, metrics.ALEXNET_3DCC_ERROR) == pytest.approx(73.16, abs=0.005)


def test_without_a_baseline_there_is_no_ratio():
    assert np.isnan(metrics.corruption_error([1], 0)) and np.isnan(metrics.relative_corruption_error([9], 1, [20], 20))
    assert np.isnan(metrics.mean_ratio({'snow': 1}, {'snow': 0}))
    for call in (lambda: metrics.mean_corruption_error({'rain': [1]}), lambda: metrics.mean_corruption_error({}),
                 lambda: metrics.mean_ratio({'rain': 1})):
        with pytest.raises(ValueError, match=r'errors must be of at least one of \['):
            call()
