"""Bootstrap intervals of every metric, from resampled images."""
import warnings
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..tasks.cache import CachedResult
from .detection import detect, reference_of

__all__ = ['RESAMPLES', 'Resampled', 'flatten', 'intervals']

RESAMPLES = 1000
BATCH = 100
LEVEL = 0.95
SKIPPED = ('images', 'sequences', 'flips', 'pairs', 'pixels', 'reference')  # what flatten leaves out

Interval = Optional[Tuple[float, float]]


def flatten(report: Mapping[str, Any], prefix: str = '') -> Iterator[Tuple[str, Optional[float]]]:
    """Yield the path and value of each metric of a report, such as ``corruptions.fog.ce``."""
    for key, value in report.items():
        path = f'{prefix}{key}'
        if isinstance(value, Mapping):
            yield from flatten(value, f'{path}.')
        elif key not in SKIPPED and (value is None or isinstance(value, (int, float))):
            yield path, value


class Resampled:
    """Results of all models on resampled images.

    Tasks whose files have the same names are resampled together, as are all models: what differs between them is not
    the images. Every other list of files is resampled on its own.

    Args:
        measured: Each model's results; all of them have the same images.
    """

    def __init__(self, measured: Sequence[Sequence[CachedResult]]):
        self.measured = measured
        counts: Dict[str, int] = {}
        for result in measured[0]:
            counts[result.task.names] = len(result.records['item'])
        self.names = [*counts]
        self.samples = tuple(np.arange(count) for count in counts.values())

    def results(self, weights: Mapping[str, np.ndarray]) -> Iterator[List[List[CachedResult]]]:
        """Yield, for each of B resamples, each model's results.

        ``weights`` has (B, files) numbers of times that each file of a list is drawn.
        """
        # the values of all tasks at once would fill the memory
        summed = [[None if result.task.group == 'ood' else
                   weights[result.task.names] @ result.task.sums(result.records) for result in results]
                  for results in self.measured]
        for i in range(len(next(iter(weights.values())))):
            yield [[self._one(result, sums, i, results, weights) for result, sums in zip(results, model_sums)]
                   for results, model_sums in zip(self.measured, summed)]

    @staticmethod
    def _one(
            result: CachedResult, sums: Optional[np.ndarray], i: int, results: Sequence[CachedResult],
            weights: Mapping[str, np.ndarray],
    ) -> CachedResult:
        if sums is not None:
            return result._replace(metrics=result.task.metrics_of_sums(sums[i]))
        reference = reference_of(result.task.name, results)
        return result._replace(metrics=dict(images=result.metrics['images'], **detect(
            reference.records, result.records, weights[reference.task.names][i], weights[result.task.names][i])))


def intervals(
        resampled: Resampled, metrics: Callable[[Sequence[Sequence[CachedResult]]], Dict[str, Optional[float]]],
        seed: int,
) -> Dict[str, Interval]:
    """Return the percentile bootstrap's 95 % interval of each metric; None where some resample lacks the metric.

    Args:
        resampled: Results of all models.
        metrics: From each model's results to the metrics; None for a missing one.
        seed: Of the resampling.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    names = [*metrics(resampled.measured)]
    if any(len(sample) < 2 for sample in resampled.samples):  # one image has no spread
        return dict.fromkeys(names)

    def statistic(*drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        weights = {
            name: np.stack([np.bincount(rows, minlength=len(sample)) for rows in np.atleast_2d(indices)]).astype(float)
            for name, sample, indices in zip(resampled.names, resampled.samples, drawn)}
        values = [metrics(results) for results in resampled.results(weights)]
        return np.array([[np.nan if row.get(name) is None else row[name] for row in values] for name in names],
                        dtype=float)

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DegenerateDataWarning)  # of metrics that some resamples do not have
        result = bootstrap(
            resampled.samples, statistic, n_resamples=RESAMPLES, batch=BATCH, vectorized=True, method='percentile',
            confidence_level=LEVEL, rng=np.random.default_rng(seed))
    low, high = result.confidence_interval
    return {name: None if np.isnan(a + b) else (float(a), float(b)) for name, a, b in zip(names, low, high)}
