"""Corruption error, flip rate and their means, from errors and predictions.

All functions take numbers, or arrays with one value for each resample. Errors and rates are in percent.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), section 4; Kar et al., "3D Common Corruptions and Data Augmentation" (CVPR 2022).
"""
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np

from ..errors import UserError

__all__ = [
    'ALEXNET_3DCC_ERROR', 'ALEXNET_CLEAN_ERROR', 'ALEXNET_ERROR', 'ALEXNET_FLIP_RATE', 'COMMON', 'EXTRA', 'SEVERITIES',
    'compares_with_first', 'corruption_error', 'count_flips', 'mean_corruption_error', 'mean_ratio', 'ratio',
    'relative_corruption_error', 'relative_mean_corruption_error']

SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's top-1 error, mean over the five severities: the 15 common corruptions, then the 4 extra ones
ALEXNET_ERROR: Dict[str, float] = dict(
    gaussian_noise=88.6428, shot_noise=89.4468, impulse_noise=92.2640, defocus_blur=81.9880, glass_blur=82.6268,
    motion_blur=78.5948, zoom_blur=79.8360, snow=86.6816, frost=82.6572, fog=81.9324, brightness=56.4592,
    contrast=85.3204, elastic_transform=64.6056, pixelate=71.7840, jpeg_compression=60.6500,
    speckle_noise=84.5388, gaussian_blur=78.7108, spatter=71.7512, saturate=65.8248)
COMMON: Tuple[str, ...] = tuple(ALEXNET_ERROR)[:15]
EXTRA: Tuple[str, ...] = tuple(ALEXNET_ERROR)[15:]
ALEXNET_CLEAN_ERROR = 43.5  # as the paper prints it

# AlexNet's top-1 error by severity on ImageNet-3DCC, from 5,000 images of each: RobustBench (commit 78fcc9e),
# model_info/imagenet/corruptions/unaggregated_results_3d.csv
ALEXNET_3DCC_ERROR: Dict[str, Tuple[float, ...]] = dict(
    near_focus=(53.84, 58.08, 61.78, 64.46, 67.18),
    far_focus=(52.78, 60.98, 66.86, 71.0, 74.14),
    fog_3d=(56.26, 71.92, 81.48, 86.72, 90.4),
    flash=(71.42, 75.2, 79.18, 84.4, 90.42),
    color_quant=(44.9, 46.12, 49.82, 66.94, 90.32),
    low_light=(71.68, 76.36, 81.26, 87.54, 94.4),
    xy_motion_blur=(69.72, 79.1, 84.7, 88.44, 90.46),
    z_motion_blur=(72.08, 76.92, 80.7, 83.4, 84.84),
    iso_noise=(86.92, 89.48, 93.42, 97.14, 98.8),
    bit_error=(55.68, 60.0, 67.28, 73.7, 85.02),
    h265_abr=(50.2, 51.64, 55.06, 63.74, 63.06),
    h265_crf=(49.72, 49.88, 51.14, 55.04, 56.82))

# AlexNet's flip probability
ALEXNET_FLIP_RATE: Dict[str, float] = dict(
    gaussian_noise=23.653, shot_noise=30.062, motion_blur=9.297, zoom_blur=5.942, snow=11.928, brightness=4.889,
    translate=11.007, rotate=13.104, tilt=7.050, scale=23.531)


def ratio(value: Any, baseline: Any) -> Any:
    """Return a value in percent of the baseline's; NaN where that is not above 0."""
    value, baseline = np.asarray(value, dtype=float), np.asarray(baseline, dtype=float)
    return 100 * value / np.where(baseline > 0, baseline, np.nan)


def _over_severities(errors: Any) -> Any:
    return np.mean(np.atleast_1d(np.asarray(errors, dtype=float)), axis=0)


def relative_corruption_error(
        errors: Sequence[Any], clean: Any, baseline: Any, baseline_clean: Any = 0.0,
) -> Any:
    """Return relative CE: ``100 * mean_s(E_s - E_clean) / mean_s(B_s - B_clean)``.

    Args:
        errors: Top-1 errors, one per severity.
        clean: Top-1 error on the clean images.
        baseline: The baseline's errors: one per severity, or their mean.
        baseline_clean: The baseline's error on the clean images.

    Returns:
        Percent of the error that the corruption adds to the baseline's: negative where it helps the model, NaN where it
        adds nothing to the baseline's.
    """
    return ratio(_over_severities(errors) - clean, _over_severities(baseline) - baseline_clean)


def corruption_error(errors: Sequence[Any], baseline: Any) -> Any:
    """Return CE of one corruption, ``100 * mean_s(E_s) / mean_s(B_s)``: 100 is as good as the baseline."""
    return relative_corruption_error(errors, 0.0, baseline)


def _mean(values: Sequence[Any], names: Mapping[str, Any], baseline: Mapping[str, Any]) -> Any:
    missing = [name for name in names if name not in baseline]
    if missing or not names:
        raise UserError(f'errors must be of at least one of {[*baseline]}, as in `baseline`, got {[*names]}')
    return np.mean(values, axis=0)


def relative_mean_corruption_error(
        errors: Mapping[str, Sequence[Any]], clean: Any, baseline: Mapping[str, Any] = ALEXNET_ERROR,
        baseline_clean: Any = ALEXNET_CLEAN_ERROR,
) -> Any:
    """Return relative mCE: the mean of :func:`relative_corruption_error` over corruptions.

    Args:
        errors: Corruption to top-1 errors, one per severity. The protocol says which corruptions: ``COMMON`` for
            ImageNet-C.
        clean, baseline_clean: As for one corruption.
        baseline: Corruption to the baseline's errors.

    Raises:
        UserError: ``errors`` is empty, or has a corruption that the baseline lacks.
    """
    return _mean([relative_corruption_error(values, clean, baseline[name], baseline_clean)
                  for name, values in errors.items() if name in baseline], errors, baseline)


def mean_corruption_error(errors: Mapping[str, Sequence[Any]], baseline: Mapping[str, Any] = ALEXNET_ERROR) -> Any:
    """Return mCE: the mean of :func:`corruption_error` over corruptions."""
    return relative_mean_corruption_error(errors, 0.0, baseline, 0.0)


def mean_ratio(rates: Mapping[str, Any], baseline: Mapping[str, Any] = ALEXNET_FLIP_RATE) -> Any:
    """Return mFR: the mean over perturbations of the flip rates in percent of the baseline's."""
    return _mean([ratio(rate, baseline[name]) for name, rate in rates.items() if name in baseline], rates, baseline)


def compares_with_first(perturbation: str) -> bool:
    """Return whether frames are compared with the first one, as noise's are."""
    return perturbation.endswith('_noise')


def count_flips(predictions: Sequence[int], with_first: bool) -> int:
    """Count flips of the prediction along a sequence of frames.

    Args:
        predictions: Predicted class of each frame, in order.
        with_first: Compare each frame with the first one, else with the one before it.
    """
    classes = np.asarray(predictions)
    return int((classes[1:] != (classes[:1] if with_first else classes[:-1])).sum())
