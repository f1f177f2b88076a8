"""Corruption error, flip rate and their means, from errors and predictions.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), section 4; Zhang, "Making Convolutional Networks Shift-Invariant Again" (ICML 2019), section 4.
"""
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from ..errors import UserError

__all__ = [
    'ALEXNET_CLEAN_ERROR', 'ALEXNET_ERROR', 'ALEXNET_FLIP_RATE', 'COMMON', 'EXTRA', 'SEVERITIES', 'agreement',
    'compares_with_first', 'corruption_error', 'count_flips', 'flip_rate', 'mean_corruption_error', 'mean_flip_rate',
    'relative_corruption_error', 'relative_mean_corruption_error', 'top5_distances',
]

SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's top-1 error in percent, mean over the five severities: the 15 common corruptions, then the 4 extra ones
ALEXNET_ERROR: Dict[str, float] = dict(
    gaussian_noise=88.6428, shot_noise=89.4468, impulse_noise=92.2640, defocus_blur=81.9880, glass_blur=82.6268,
    motion_blur=78.5948, zoom_blur=79.8360, snow=86.6816, frost=82.6572, fog=81.9324, brightness=56.4592,
    contrast=85.3204, elastic_transform=64.6056, pixelate=71.7840, jpeg_compression=60.6500,
    speckle_noise=84.5388, gaussian_blur=78.7108, spatter=71.7512, saturate=65.8248)
COMMON: Tuple[str, ...] = tuple(ALEXNET_ERROR)[:15]
EXTRA: Tuple[str, ...] = tuple(ALEXNET_ERROR)[15:]
ALEXNET_CLEAN_ERROR = 43.5  # as the paper prints it

# AlexNet's flip probability in percent
ALEXNET_FLIP_RATE: Dict[str, float] = dict(
    gaussian_noise=23.653, shot_noise=30.062, motion_blur=9.297, zoom_blur=5.942, snow=11.928, brightness=4.889,
    translate=11.007, rotate=13.104, tilt=7.050, scale=23.531)


def _ratio(value: float, baseline: float, what: str) -> float:
    if not baseline > 0:
        raise UserError(f'baseline must have {what} above 0, got {baseline:g}')
    return 100 * value / baseline


def _percents(name: str, values: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if array.ndim != 1 or not array.size or not ((array >= 0) & (array <= 100)).all():
        raise UserError(f'{name} must be percents from 0 to 100, one per severity, got {values!r}')
    return array


def _check_names(parameter: str, values: Mapping[str, Any], baseline: Mapping[str, Any]) -> None:
    missing = [name for name in values if name not in baseline]
    if not values or missing:
        raise UserError(f'{parameter} must be at least one of {[*baseline]}, as in `baseline`, got {[*values]}')


def corruption_error(errors: Sequence[float], baseline: Any) -> float:
    """Return CE of one corruption: ``100 * mean_s(E_s) / mean_s(B_s)``.

    Args:
        errors: Top-1 errors in percent, one per severity.
        baseline: The baseline's errors: one per severity, or their mean.

    Returns:
        Percent of the baseline's error: 100 is as good as the baseline, 0 is no error.

    Raises:
        UserError: A value is not a percent, or the baseline's error is 0.
    """
    values, divisor = _percents('errors', errors), _percents('baseline', baseline)
    if divisor.size not in (1, values.size):
        raise UserError(f'baseline must have 1 value or {values.size}, as many as `errors`, got {divisor.size}')
    return _ratio(values.mean(), divisor.mean(), 'an error')


def relative_corruption_error(errors: Sequence[float], clean: float, baseline: Any, baseline_clean: float) -> float:
    """Return relative CE: ``100 * mean_s(E_s - E_clean) / mean_s(B_s - B_clean)``.

    Args:
        errors, baseline: As for :func:`corruption_error`.
        clean: Top-1 error in percent on the clean images.
        baseline_clean: The baseline's error on the clean images.

    Returns:
        Percent of the error that the corruption adds to the baseline's; negative where it helps the model.

    Raises:
        UserError: A value is not a percent, or the corruption adds no error to the baseline's.
    """
    values, divisor = _percents('errors', errors), _percents('baseline', baseline)
    own, other = (_percents(name, value)[0] for name, value in (('clean', clean), ('baseline_clean', baseline_clean)))
    return _ratio(values.mean() - own, divisor.mean() - other, 'an added error')


def mean_corruption_error(errors: Mapping[str, Sequence[float]], baseline: Mapping[str, Any] = ALEXNET_ERROR) -> float:
    """Return mCE: the mean of :func:`corruption_error` over corruptions.

    Args:
        errors: Corruption to top-1 errors in percent, one per severity. The protocol says which corruptions:
            ``COMMON`` for ImageNet-C.
        baseline: Corruption to the baseline's errors.

    Raises:
        UserError: ``errors`` is empty, or has a corruption that the baseline lacks.
    """
    _check_names('errors', errors, baseline)
    return float(np.mean([corruption_error(values, baseline[name]) for name, values in errors.items()]))


def relative_mean_corruption_error(
        errors: Mapping[str, Sequence[float]],
        clean: float,
        baseline: Mapping[str, Any] = ALEXNET_ERROR,
        baseline_clean: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Return relative mCE: the mean of :func:`relative_corruption_error`."""
    _check_names('errors', errors, baseline)
    return float(np.mean([
        relative_corruption_error(values, clean, baseline[name], baseline_clean) for name, values in errors.items()]))


def compares_with_first(perturbation: str) -> bool:
    """Return whether frames are compared with the first one, as noise's are."""
    return perturbation.endswith('_noise')


def count_flips(predictions: Sequence[int], with_first: bool) -> Tuple[int, int]:
    """Count flips of the prediction along a sequence, and its pairs of frames.

    Args:
        predictions: Predicted class of each frame, in order, at least 2.
        with_first: Compare each frame with the first one, else with the one before it.
    """
    classes = np.asarray(predictions)
    if classes.ndim != 1 or classes.size < 2:
        raise UserError(f'predictions must be classes of 2 frames or more, got shape {classes.shape}')
    others = classes[0] if with_first else classes[:-1]
    return int((classes[1:] != others).sum()), classes.size - 1


def top5_distances(ranked: Any, with_first: bool) -> List[int]:
    """Return the top-5 distance of each pair of frames of a sequence.

    The distance of two frames is ``sum_i |min(i, 6) - min(r(i), 6)|`` over the ranks i from 1 to 5 of the earlier
    frame, where r(i) is the rank in the later frame of the class that has rank i in the earlier one: 0 for equal five
    in equal order, at most 15.

    Args:
        ranked: (frames, 5) classes, the most probable first; fewer columns for fewer classes.
        with_first: Compare each frame with the first one, else with the one before it.
    """
    classes = np.asarray(ranked)
    if classes.ndim != 2 or len(classes) < 2:
        raise UserError(f'ranked must be (frames, 5) with 2 frames or more, got shape {classes.shape}')
    others = np.broadcast_to(classes[:1], classes[1:].shape) if with_first else classes[:-1]
    same = others[:, :, None] == classes[1:, None, :]  # rank in the earlier frame, rank in the later one
    ranks = np.where(same.any(2), same.argmax(2), 5)
    return np.abs(ranks - np.arange(classes.shape[1])).sum(1).tolist()


def flip_rate(sequences: Sequence[Sequence[int]], with_first: bool) -> float:
    """Return FP in percent: flips over pairs of frames of all sequences.

    Departures: the paper has the mean of the sequences' rates. Both agree where all sequences have one length, as those
    of a published perturbation have.
    """
    if not len(sequences):
        raise UserError('sequences must be at least one, got none')
    flips, pairs = zip(*(count_flips(sequence, with_first) for sequence in sequences))
    return 100 * sum(flips) / sum(pairs)


def mean_flip_rate(rates: Mapping[str, float], baseline: Mapping[str, float] = ALEXNET_FLIP_RATE) -> float:
    """Return mFR: the mean over perturbations of ``100 * FP / FP of the baseline``.

    Raises:
        UserError: ``rates`` is empty, has a perturbation that the baseline lacks, or the baseline never flips.
    """
    _check_names('rates', rates, baseline)
    return float(np.mean([_ratio(rate, baseline[name], 'a flip rate') for name, rate in rates.items()]))


def agreement(first: Sequence[int], second: Sequence[int]) -> float:
    """Return the percent of equal predictions: shift consistency, for two crops."""
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise UserError(f'first must be as long as `second` and not empty, got shapes {a.shape} and {b.shape}')
    return 100 * float((a == b).mean())
