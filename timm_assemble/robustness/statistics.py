"""Statistics of per-image records: metrics, detection of foreign images, intervals, comparisons of models.

A metric is a field of :class:`ImageMetrics`: results, tables, intervals and comparisons are made of these.
"""
import functools
from dataclasses import dataclass
from functools import cached_property
from typing import (
    Annotated, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, get_args, get_type_hints,
)

import numpy as np
import torch
from msgspec import Struct

from ..evaluation.engine import CachedResult, Records
from ..evaluation.intervals import LEVEL, wilson
from ..evaluation.results import Count, Percent, Ratio

__all__ = [
    'LEAST_IMAGES', 'METRICS', 'RESAMPLES', 'SCORES', 'Drawn', 'Errors', 'ImageMetrics', 'Metric', 'calibrate',
    'calibration_bins', 'detect', 'detection_metrics', 'fit_temperature', 'halves', 'image_scores', 'mcnemar',
    'per_class', 'percentiles', 'reliability', 'resamples', 'temperature_scaling', 'wilson']

CALIBRATION_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017
BELOW_1 = 1 - 2 ** -24  # the next float32
LOG_RANGE = (-4.0, 4.0)  # temperatures from 0.018 to 55
RESAMPLES = 1000
BATCH = 100
LEAST_IMAGES = 200  # of a bootstrap whose intervals cover what they say, about: docs/robustness.md
COVERAGES = np.array([0.8, 0.9])  # of the images, the most confident ones
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


def image_scores(logits: torch.Tensor, columns: torch.Tensor) -> Dict[str, torch.Tensor]:
    """Return confidence, negative log-likelihood and Brier score of each image.

    Args:
        logits: (N, C).
        columns: (N, M) right columns of the logits, filled up with -1. Several right classes count as one, whose
            probability is their sum.
    """
    log_probs = logits.log_softmax(1)
    probs, columns = logits.softmax(1), columns.to(logits.device)
    right = log_probs.gather(1, columns.clamp(min=0)).masked_fill(columns < 0, -torch.inf)
    nll = -right.logsumexp(1)
    others = probs.square().sum(1) - right.exp().square().sum(1)
    return dict(confidence=probs.amax(1), nll=nll, brier=others + (1 - (-nll).exp()).square())


@functools.lru_cache(8)
def _harmonic(count: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the harmonic numbers H(0) to H(count), and by r from 0 to count the sum of the first r of them."""
    harmonic = np.append(0.0, np.cumsum(1 / np.arange(1, count + 1)))
    return harmonic, np.append(0.0, np.cumsum(harmonic))[:-1]


def _of_first(values: np.ndarray, count: np.ndarray, ends: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the sums of values over the first so many images, of which groups have ``count`` and end at ``ends``."""
    at = np.searchsorted(ends, parts)
    whole = np.cumsum([count[a:b] @ values[a:b] for a, b in zip([0, *at], at)])
    return whole + (parts - (ends[at] - count[at])) * values[at]


@dataclass(frozen=True)
class Drawn:
    """Records of files, and (B, files) numbers of times that each is drawn: once each for the files themselves."""

    records: Records
    weights: np.ndarray

    @cached_property
    def images(self) -> np.ndarray:
        return self.weights.sum(1)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over images of (files, ...) values."""
        total = self.weights @ values.astype(float)
        with np.errstate(invalid='ignore'):  # of no image: NaN
            return (total.T / self.images).T

    def calibration_error(self) -> np.ndarray:
        """Return ECE: the sum over 15 bins of equal width of ``|accuracy - confidence|``, by their part of images."""
        gaps = np.zeros((len(self.records['hit1']), CALIBRATION_BINS))
        gaps[np.arange(len(gaps)), calibration_bins(self.records['confidence'])] = self._gap
        return 100 * np.abs(self.mean(gaps)).sum(1)

    @property
    def _gap(self) -> np.ndarray:
        return self.records['hit1'] - self.records['confidence'].astype(float)

    @cached_property
    def by_confidence(self) -> Dict[str, np.ndarray]:
        """Metrics of the images in the order of their confidence, the most confident first.

        AURC is the mean over k of the error of the k most confident images: an error of rank r counts
        ``H(n) - H(r - 1)``.

        Equally confident images count with their mean, so that no metric depends on the order of files. An image on
        the edge of a part of the images counts in part.
        """
        confidence = self.records['confidence']
        order = np.argsort(-confidence, kind='stable')
        starts = np.flatnonzero(np.append(True, np.diff(confidence[order]) < 0))  # of equally confident images
        sizes = np.diff(starts, append=len(order))
        tied, inside = np.flatnonzero(sizes > 1), np.repeat(sizes > 1, sizes)
        first = np.append(0, sizes[tied].cumsum())[:-1]
        wrong, gap = (~self.records['hit1'][order]).astype(float), self._gap[order]
        errors, gaps = wrong[starts], gap[starts]
        harmonic, sums = _harmonic(int(self.images.max()))
        edges = np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS
        found = np.empty((2 + len(COVERAGES), len(self.weights)))
        for i, weights in enumerate(self.weights):  # row by row: large matrices do not fit into the processor's cache
            count = weights[order]
            if len(tied):
                times, count = count[inside], np.add.reduceat(count, starts)
                for means, values in ((errors, wrong), (gaps, gap)):
                    means[tied] = np.add.reduceat(times * values[inside], first) / np.maximum(count[tied], 1)
            ends = count.cumsum()
            total, all_errors, all_gaps = ends[-1], count @ errors, count @ gaps
            ranks = np.diff(sums[ends.astype(np.intp)], prepend=0.0)
            with np.errstate(invalid='ignore'):
                most = _of_first(errors, count, ends, COVERAGES * total) / (COVERAGES * total)
                aurc = (harmonic[int(total)] * all_errors - ranks @ errors) / total
                bins = np.diff(_of_first(gaps, count, ends, edges * total), prepend=0.0, append=all_gaps)
                found[:, i] = [100 * aurc, 100 * np.abs(bins).sum() / total, *100 - 100 * most]
        return dict(zip(('aurc', 'adaptive_ece', *(f'accuracy_at_{100 * c:.0f}' for c in COVERAGES)), found))

    def metrics(self) -> Dict[str, Any]:
        """Return all of :class:`Errors`, arrays with one value for each resample."""
        return dict(images=self.images, **{name: metric.of(self) for name, metric in METRICS.items()})


class Metric(NamedTuple):
    """About a field of :class:`ImageMetrics`, in its annotation.

    Attributes:
        title: In tables.
        of: From drawn images to the (B,) metric.
        rate: Whether it is a rate of independent images, with Wilson's interval.
    """

    title: str
    of: Callable[[Drawn], np.ndarray]
    rate: bool = False


class ImageMetrics(Struct, forbid_unknown_fields=True):
    """The metrics of images; all but ``nll``, in nats, are in percent."""

    top1_error: Annotated[Percent, Metric('top-1 error', lambda d: 100 * d.mean(~d.records['hit1']), rate=True)]
    top5_error: Annotated[Percent, Metric('top-5 error', lambda d: 100 * d.mean(~d.records['hit5']), rate=True)]
    ece: Annotated[Percent, Metric('ECE', Drawn.calibration_error)]
    adaptive_ece: Annotated[Percent, Metric('adaptive ECE', lambda d: d.by_confidence['adaptive_ece'])]
    nll: Annotated[Ratio, Metric('NLL', lambda d: d.mean(d.records['nll']))]
    brier: Annotated[Ratio, Metric('Brier', lambda d: 100 * d.mean(d.records['brier']))]
    aurc: Annotated[Percent, Metric('AURC', lambda d: d.by_confidence['aurc'])]
    accuracy_at_80: Annotated[Percent, Metric('top-1 at 80 %', lambda d: d.by_confidence['accuracy_at_80'])]
    accuracy_at_90: Annotated[Percent, Metric('top-1 at 90 %', lambda d: d.by_confidence['accuracy_at_90'])]


class Errors(ImageMetrics):
    """The metrics of so many images."""

    images: Count


METRICS: Dict[str, Metric] = {name: next(about for about in get_args(hint) if isinstance(about, Metric))
                              for name, hint in get_type_hints(ImageMetrics, include_extras=True).items()}


def halves(items: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
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
    """Replace the logits of all files by the scores at a temperature that is fitted on every second file.

    Returns:
        The records with ``calibrated_confidence``, ``calibrated_nll`` and ``calibrated_brier`` of each file at the
        temperature, and ``temperature``, the same value for all files, NaN if it was not fitted.
    """
    records = dict(records)
    logits, columns = records.pop('logits'), records.pop('column')
    fitted, _ = halves(records['item'])
    if not fitted.any():  # the first file alone cannot be read
        fitted = ~fitted
    temperature = fit_temperature(logits[fitted], columns[fitted])
    parts = [image_scores(torch.from_numpy(logits[i:i + 1024]).double() / temperature,
                          torch.from_numpy(columns[i:i + 1024, None]))
             for i in range(0, len(logits), 1024)]  # in parts: the probabilities in float64 are twice the logits
    scores = {f'calibrated_{name}': torch.cat([part[name] for part in parts]).float().numpy() for name in parts[0]}
    return dict(records, **scores, temperature=np.full(len(logits), temperature))


def temperature_scaling(records: Records, weights: np.ndarray) -> Optional[Dict[str, Any]]:
    """Return the temperature, fitted on every second file, and the metrics of the others before and after.

    ``after`` is None, and the temperature NaN, if it was not fitted; all is None for too few files.
    """
    fitted, held_out = halves(records['item'])
    if not (fitted.any() and held_out.any()):
        return None
    before = {name: values[held_out] for name, values in records.items()}
    after = {**before, **{name: before[f'calibrated_{name}'] for name in ('confidence', 'nll', 'brier')}}
    temperature = float(records['temperature'][0])
    return dict(temperature=temperature, fitted_images=int(fitted.sum()),
                before=Drawn(before, weights[:, held_out]).metrics(),
                after=None if np.isnan(temperature) else Drawn(after, weights[:, held_out]).metrics())


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
