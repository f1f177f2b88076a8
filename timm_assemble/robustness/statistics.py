"""Statistics of per-image records: calibration, detection of foreign images, intervals, comparisons of models."""
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch

from ..evaluation.engine import CachedResult, Records
from ..evaluation.intervals import LEVEL, wilson

__all__ = [
    'CALIBRATION_BINS', 'LEAST_IMAGES', 'RESAMPLES', 'SCORES', 'calibrate', 'calibration_bins', 'calibration_error',
    'detect', 'detection_metrics', 'fit_temperature', 'mcnemar', 'per_class', 'percentiles', 'reliability', 'resamples',
    'temperature_scaling', 'wilson']

CALIBRATION_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017
BELOW_1 = 1 - 2 ** -24  # the next float32
LOG_RANGE = (-4.0, 4.0)  # temperatures from 0.018 to 55
RESAMPLES = 1000
BATCH = 100
LEAST_IMAGES = 200  # of a bootstrap whose intervals cover what they say, about: docs/robustness.md
# Hendrycks and Gimpel, ICLR 2017: maximum softmax probability; Liu et al., NeurIPS 2020: energy. Larger is inside.
SCORES = dict(msp='confidence', energy='energy')

Interval = Optional[Tuple[float, float]]


def calibration_bins(confidence: np.ndarray) -> np.ndarray:
    """Return which of the 15 equal bins each confidence is in, compared in float32."""
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1)
    inside = torch.from_numpy(np.minimum(confidence, np.float32(BELOW_1)))
    return (torch.bucketize(inside, edges, right=True) - 1).numpy()


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


def calibration_error(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Return ECE in percent: the mean over images of ``|accuracy - confidence|`` of their bin."""
    return sum(entry['images'] * abs(entry['accuracy'] - entry['confidence'])
               for entry in reliability(confidence, hits) if entry['images']) / len(hits)


def _halves(items: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return which rows have even and which odd numbers in the file list: two halves of each class.

    The halves stay the same where files are left out later.
    """
    return items % 2 == 0, items % 2 == 1


def fit_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """Return the temperature of the least negative log-likelihood: logits are divided by it.

    Source: Guo et al., ICML 2017, section 4.2.

    Args:
        logits: (N, C).
        classes: (N,) right columns of the logits.

    Returns:
        The temperature; NaN if it lies on a bound of the search, from 0.018 to 55: where all predictions are right, the
        likelihood grows as the temperature falls.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    values = logits.astype(np.float64)
    rows = np.arange(len(values))

    def loss(log_temperature: float) -> float:
        return -float(np.mean(log_softmax(values * np.exp(-log_temperature), axis=1)[rows, classes]))
    found = minimize_scalar(loss, bounds=LOG_RANGE, method='bounded', options=dict(xatol=1e-6)).x
    on_bound = min(abs(found - bound) for bound in LOG_RANGE) < 1e-3 or min(map(loss, LOG_RANGE)) <= loss(found)
    return float('nan') if on_bound else float(np.exp(found))


def calibrate(records: Records) -> Records:
    """Replace the logits of all files by the confidence at a temperature that is fitted on every second file.

    Returns:
        The records with ``calibrated``, each file's confidence at the temperature, and ``temperature``, the same value
        for all files, NaN if it was not fitted.
    """
    from scipy.special import softmax

    records = dict(records)
    logits, columns = records.pop('logits'), records.pop('column')
    fitted, _ = _halves(records['item'])
    if not fitted.any():  # the first file alone cannot be read
        fitted = ~fitted
    temperature = fit_temperature(logits[fitted], columns[fitted])
    calibrated = np.concatenate([  # in parts: the probabilities in float64 are twice the logits
        softmax(logits[i:i + 1024].astype(np.float64) / temperature, axis=1).max(1).astype(np.float32)
        for i in range(0, len(logits), 1024)])
    return dict(records, calibrated=calibrated, temperature=np.full(len(logits), temperature))


def temperature_scaling(records: Records) -> Tuple[Optional[Dict[str, Any]], Optional[List[Dict[str, Any]]]]:
    """Return the temperature, fitted on every second file, and ECE of the others before and after.

    The temperature is None if it was not fitted; all is None for too few files.

    Returns:
        The values, and the reliability of the others at the temperature.
    """
    fitted, held_out = _halves(records['item'])
    if not (fitted.any() and held_out.any()):
        return None, None
    hits, temperature = records['hit1'][held_out], float(records['temperature'][0])
    result = dict(temperature=None, fitted_images=int(fitted.sum()), images=int(held_out.sum()), ece_after=None,
                  ece_before=calibration_error(records['confidence'][held_out], hits))
    if np.isnan(temperature):
        return result, None
    calibrated = records['calibrated'][held_out]
    return (dict(result, temperature=temperature, ece_after=calibration_error(calibrated, hits)),
            reliability(calibrated, hits))


def detection_metrics(
        inside: np.ndarray, outside: np.ndarray, inside_weights: Any = None, outside_weights: Any = None,
) -> Dict[str, Any]:
    """Return how well a score tells foreign images from those of the classes, in percent.

    As in Hendrycks' code for ImageNet-O, the foreign images are the positives, and are found by low scores.

    Args:
        inside: (N,) scores of images of the classes.
        outside: (M,) scores of the foreign ones.
        inside_weights: (B, N) or (N,) numbers of times that each image counts; once if None.
        outside_weights: The same of the foreign ones.

    Returns:
        ``auroc``; ``aupr``; ``fpr95``, the percent of images of the classes that are taken for foreign at the threshold
        that finds nearest to 95 % of the foreign ones.
    """
    weights = [np.atleast_2d(np.ones(len(part)) if given is None else given).astype(float)
               for part, given in ((inside, inside_weights), (outside, outside_weights))]
    scores = np.concatenate([inside, outside]).astype(np.float64)
    order = np.argsort(scores, kind='stable')
    ends = np.append(np.diff(scores[order]) > 0, True)  # equal scores are found together
    zeros = [np.zeros_like(part) for part in weights]
    false = np.concatenate([weights[0], zeros[1]], 1)[:, order].cumsum(1)[:, ends]
    true = np.concatenate([zeros[0], weights[1]], 1)[:, order].cumsum(1)[:, ends]
    fpr, recall = (np.insert(found / found[:, -1:], 0, 0.0, axis=1) for found in (false, true))
    with np.errstate(invalid='ignore'):
        precision = np.nan_to_num(true / (true + false))
    # the last of the thresholds that are equally near, but none beyond the first that finds all
    distance = np.abs(recall[:, 1:] - 0.95)
    distance[np.cumsum(recall[:, 1:] >= 1, axis=1) > 1] = np.inf
    nearest = distance.shape[1] - np.argmin(distance[:, ::-1], axis=1)
    return dict(
        auroc=100 * (np.diff(fpr) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(1),
        aupr=100 * (np.diff(recall) * precision).sum(1), fpr95=100 * fpr[np.arange(len(fpr)), nearest])


def detect(inside: Records, outside: Records, *weights: Any) -> Dict[str, Any]:
    """Return :func:`detection_metrics` of each score."""
    return {name: detection_metrics(inside[key], outside[key], *weights) for name, key in SCORES.items()}


def resamples(measured: Sequence[CachedResult], seed: int) -> Iterator[Dict[str, np.ndarray]]:
    """Yield parts of the 1000 resamples: (B, files) numbers of times that each file of a list is drawn, by list.

    Tasks whose files have the same names are resampled together, as are all models: what differs between them is not
    the images. Every other list of files is resampled on its own.
    """
    rng = np.random.default_rng(seed)
    counts = {result.task.names: len(result.records['item']) for result in measured}
    for start in range(0, RESAMPLES, BATCH):
        draws = min(BATCH, RESAMPLES - start)
        yield {names: rng.multinomial(count, np.full(count, 1 / count), draws).astype(float)
               for names, count in counts.items()}


def percentiles(values: np.ndarray) -> Interval:
    """Return the percentile bootstrap's 95 % interval; None where some resample lacks the metric."""
    if np.isnan(values).any():
        return None
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def mcnemar(first: np.ndarray, second: np.ndarray) -> Dict[str, Any]:
    """Return McNemar's exact test of two models' hits on the same images.

    Returns:
        ``images``, the images that ``only_first_right`` and ``only_second_right`` count, and the two-sided ``p_value``
        of the binomial test that either model is as often the only one.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return dict(images=len(first), only_first_right=only_first, only_second_right=only_second, p_value=p_value)


def per_class(result: CachedResult) -> Dict[str, Dict[str, Any]]:
    """Return the images and the top-1 accuracy in percent of each class folder that has images."""
    task = result.task
    folders = np.array([number for _, number in task.list_files().files])[result.records['item']]
    counts = np.bincount(folders, minlength=len(task.classes))
    hits = np.bincount(folders, weights=result.records['hit1'], minlength=len(task.classes))
    return {name: dict(images=int(count), top1=100 * float(hit) / int(count))
            for name, count, hit in zip(task.classes, counts, hits) if count}
