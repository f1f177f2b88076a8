"""Corruption error, flip rate and their means, from tables of errors and predictions. Knows numpy alone.

Sources: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations"
(ICLR 2019), section 4; Zhang, "Making Convolutional Networks Shift-Invariant Again" (ICML 2019), section 4.
"""
from typing import Any, Dict, Mapping, Sequence, Tuple

import numpy as np

__all__ = [
    'ALEXNET_CLEAN_ERROR', 'ALEXNET_ERROR', 'ALEXNET_FLIP_RATE', 'COMMON', 'EXTRA', 'SEVERITIES', 'agreement',
    'compares_with_first', 'corruption_error', 'count_flips', 'flip_rate', 'mean_corruption_error', 'mean_flip_rate',
    'relative_corruption_error', 'relative_mean_corruption_error',
]

SEVERITIES = (1, 2, 3, 4, 5)

# AlexNet's top-1 error in percent, mean over the five severities: the 15 common corruptions, then the 4 extra ones
ALEXNET_ERROR: Dict[str, float] = dict(
    gaussian_noise=88.6428, shot_noise=89.4468, impulse_noise=92.2640, defocus_blur=81.9880, glass_blur=82.6268,
    motion_blur=78.5948, zoom_blur=79.8360, snow=86.6816, frost=82.6572, fog=81.9324, brightness=56.4592,
    contrast=85.3204, elastic_transform=64.6056, pixelate=71.7840, jpeg_compression=60.6500,
    speckle_noise=84.54, gaussian_blur=78.71, spatter=71.75, saturate=65.83)
COMMON: Tuple[str, ...] = tuple(ALEXNET_ERROR)[:15]
EXTRA: Tuple[str, ...] = tuple(ALEXNET_ERROR)[15:]
ALEXNET_CLEAN_ERROR = 43.5  # as the paper prints it

# AlexNet's flip probability in percent
ALEXNET_FLIP_RATE: Dict[str, float] = dict(
    gaussian_noise=23.653, shot_noise=30.062, motion_blur=9.297, zoom_blur=5.942, snow=11.928, brightness=4.889,
    translate=11.007, rotate=13.104, tilt=7.050, scale=23.531)


def _ratio(top: float, bottom: float, what: str) -> float:
    if not bottom > 0:
        raise ValueError(f'{what} must be above 0 to be divided by, got {bottom:g}')
    return 100 * top / bottom


def _percents(name: str, values: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if array.ndim != 1 or not array.size or not ((array >= 0) & (array <= 100)).all():
        raise ValueError(f'{name} must be percents from 0 to 100, one a severity, got {values!r}')
    return array


def _same_names(values: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    missing = [name for name in values if name not in reference]
    if not values or missing:
        raise ValueError(f'names must be at least one and all in the reference, which has {[*reference]}; '
                         f'not there: {missing}')


def corruption_error(errors: Sequence[float], reference: Any) -> float:
    """CE of one corruption: ``100 * mean_s(E_s) / mean_s(R_s)``, the sums' ratio where both have all severities.

    Args:
        errors: Top-1 errors in percent, one a severity.
        reference: The normaliser's: one a severity, or their mean alone.

    Returns:
        In percent of the normaliser's error: 100 is as good as it, 0 is no error.

    Raises:
        ValueError: What are no percents; an error of 0 to divide by.
    """
    values, divisor = _percents('errors', errors), _percents('reference', reference)
    if divisor.size not in (1, values.size):
        raise ValueError(f'reference must have 1 value or as many as errors, {values.size}, got {divisor.size}')
    return _ratio(values.mean(), divisor.mean(), "the reference's error")


def relative_corruption_error(errors: Sequence[float], clean: float, reference: Any, reference_clean: float) -> float:
    """Relative CE: ``100 * mean_s(E_s - E_clean) / mean_s(R_s - R_clean)``, what the corruption adds to the error.

    Args:
        errors: Top-1 errors in percent, one a severity.
        clean: Top-1 error in percent on the pictures as they were.
        reference: The normaliser's errors: one a severity, or their mean alone.
        reference_clean: The normaliser's error on the pictures as they were.

    Returns:
        In percent of what the corruption adds to the normaliser's error; negative where it helps the model.

    Raises:
        ValueError: What are no percents; a corruption that does not raise the normaliser's error.
    """
    values, divisor = _percents('errors', errors), _percents('reference', reference)
    own, other = (_percents(name, value)[0] for name, value in (('clean', clean), ('reference_clean', reference_clean)))
    return _ratio(values.mean() - own, divisor.mean() - other, "what the corruption adds to the reference's error")


def mean_corruption_error(errors: Mapping[str, Sequence[float]], reference: Mapping[str, Any] = ALEXNET_ERROR) -> float:
    """MCE: the mean of :func:`corruption_error` over the corruptions in ``errors``.

    Args:
        errors: Corruption to top-1 errors in percent, one a severity. Which corruptions these are is the protocol:
            :data:`COMMON` for ImageNet-C's own.
        reference: Corruption to the normaliser's errors.

    Raises:
        ValueError: No corruption, or one that the normaliser lacks.
    """
    _same_names(errors, reference)
    return float(np.mean([corruption_error(values, reference[name]) for name, values in errors.items()]))


def relative_mean_corruption_error(
        errors: Mapping[str, Sequence[float]],
        clean: float,
        reference: Mapping[str, Any] = ALEXNET_ERROR,
        reference_clean: float = ALEXNET_CLEAN_ERROR,
) -> float:
    """Relative mCE: the mean over the corruptions of :func:`relative_corruption_error`, which has the arguments."""
    _same_names(errors, reference)
    return float(np.mean([
        relative_corruption_error(values, clean, reference[name], reference_clean) for name, values in errors.items()]))


def compares_with_first(perturbation: str) -> bool:
    """Whether a perturbation's frames are compared with the first one: noise, whose frames have no order."""
    return perturbation.endswith('_noise')


def count_flips(predictions: Sequence[int], with_first: bool) -> Tuple[int, int]:
    """Flips of the predicted class along one sequence of frames, and how many pairs of frames there are.

    Args:
        predictions: Predicted class of each frame, in order, at least 2.
        with_first: Compare each frame with the first one, else with the one before it.
    """
    classes = np.asarray(predictions)
    if classes.ndim != 1 or classes.size < 2:
        raise ValueError(f'predictions must be classes of 2 frames or more, got shape {classes.shape}')
    others = classes[0] if with_first else classes[:-1]
    return int((classes[1:] != others).sum()), classes.size - 1


def flip_rate(sequences: Sequence[Sequence[int]], with_first: bool) -> float:
    """FP in percent: flips over pairs of frames, of all sequences together; see :func:`count_flips`.

    Departures: the paper has the mean of the sequences' rates, which is the same where they are of one length, as all
    of a published perturbation are.
    """
    if not len(sequences):
        raise ValueError('sequences must be at least one, got none')
    flips, pairs = zip(*(count_flips(sequence, with_first) for sequence in sequences))
    return 100 * sum(flips) / sum(pairs)


def mean_flip_rate(rates: Mapping[str, float], reference: Mapping[str, float] = ALEXNET_FLIP_RATE) -> float:
    """MFR: mean over perturbations of ``100 * FP / FP of the reference``, both in percent.

    Raises:
        ValueError: No perturbation, one that the reference lacks, or where the reference never flips.
    """
    _same_names(rates, reference)
    return float(np.mean([_ratio(rate, reference[name], "the reference's flip rate") for name, rate in rates.items()]))


def agreement(first: Sequence[int], second: Sequence[int]) -> float:
    """Percent of pictures with the same prediction in both lists: shift consistency, of two crops of each picture."""
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f'predictions must be two lists of one length of 1 or more, got {a.shape} and {b.shape}')
    return 100 * float((a == b).mean())
