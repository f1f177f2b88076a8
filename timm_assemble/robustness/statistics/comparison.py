"""Comparisons of two models on the same images, and accuracy and calibration within parts of them."""
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ...errors import UserError
from ..tasks.cache import CachedResult
from ..tasks.task import Records
from ..tasks.classify import CALIBRATION_BINS, calibration_bins, calibration_error, split_halves

__all__ = ['mcnemar', 'per_class', 'pooled_reliability', 'reliability', 'temperature_scaling']


def mcnemar(first: np.ndarray, second: np.ndarray) -> Dict[str, Any]:
    """Return McNemar's exact test of two models' hits on the same images.

    Returns:
        ``images``, the images that ``only_first_right`` and ``only_second_right`` count, and the two-sided ``p_value``
        of the binomial test that either model is as often the only one.
    """
    from scipy.stats import binomtest

    if first.shape != second.shape:
        raise UserError(f'first must have as many images as `second`, got {len(first)} and {len(second)}')
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return dict(images=len(first), only_first_right=only_first, only_second_right=only_second, p_value=p_value)


def per_class(result: CachedResult) -> Dict[str, Dict[str, Any]]:
    """Return the images and the top-1 accuracy in percent of each class folder that has images."""
    files = result.task.list_files().files
    folders = np.array([number for _, number in files])[result.records['item']]
    counts = np.bincount(folders, minlength=len(result.task.classes))
    hits = np.bincount(folders, weights=result.records['hit1'], minlength=len(result.task.classes))
    return {name: dict(images=int(count), top1=100 * float(hit) / int(count))
            for name, count, hit in zip(result.task.classes, counts, hits) if count}


def reliability(confidence: np.ndarray, hits: np.ndarray) -> List[Dict[str, Any]]:
    """Return images, accuracy and mean confidence in percent of each of the 15 bins; None for empty ones."""
    bins = calibration_bins(confidence)
    result: List[Dict[str, Any]] = []
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        count = int(inside.sum())
        result.append(dict(
            images=count, accuracy=100 * float(hits[inside].mean()) if count else None,
            confidence=100 * float(confidence[inside].astype(float).mean()) if count else None))
    return result


def temperature_scaling(records: Records) -> Optional[Dict[str, Any]]:
    """Return the temperature, fitted on every second file, and ECE of the others before and after; None for too few."""
    fitted, held_out = split_halves(records['item'])
    if not (fitted.any() and held_out.any()):
        return None
    hits = records['hit1'][held_out]
    return dict(
        temperature=float(records['temperature'][0]), fitted_images=int(fitted.sum()), images=int(held_out.sum()),
        ece_before=calibration_error(records['confidence'][held_out], hits),
        ece_after=calibration_error(records['calibrated'][held_out], hits))


def pooled_reliability(results: Sequence[CachedResult]) -> List[Dict[str, Any]]:
    """Return the reliability of several results together."""
    return reliability(np.concatenate([r.records['confidence'] for r in results]),
                       np.concatenate([r.records['hit1'] for r in results]))
