"""Statistics of a run's records, added to its results."""
from itertools import combinations
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..statistics import bootstrap
from ..statistics.comparison import mcnemar, per_class, pooled_reliability, reliability, temperature_scaling
from ..tasks.cache import CachedResult
from ..tasks.classify import split_halves
from ..tasks.task import Classifier
from .summary import Baseline, summarise
from .tables import headlines

__all__ = ['add_statistics']

Measured = Sequence[Tuple[Classifier, Sequence[CachedResult]]]


def _compared(report: Dict[str, Any]) -> Dict[str, float]:
    """Return the metrics of a report in which models are compared."""
    values = dict(headlines(report), **{f'top1 of {name}': 100 - entry['top1_error']
                                        for name, entry in report['test_sets'].items()})
    return {key: value for key, value in values.items() if value is not None}


def _of_model(results: Sequence[CachedResult], model_intervals: Dict[str, Any]) -> Dict[str, Any]:
    """Return one model's statistics."""
    labelled = [result for result in results if result.task.group in ('clean', 'test_set')]
    corrupted = [result for result in results if result.task.group == 'corruption']
    diagrams = {result.task.name: reliability(result.records['confidence'], result.records['hit1'])
                for result in labelled}
    temperature = None
    for result in results:
        if result.task.group == 'clean':
            temperature = temperature_scaling(result.records)
            _, held_out = split_halves(result.records['item'])
            if temperature:
                diagrams['clean at the fitted temperature'] = reliability(
                    result.records['calibrated'][held_out], result.records['hit1'][held_out])
    for severity in sorted({result.task.severity for result in corrupted}):
        diagrams[f'corruptions at severity {severity}'] = pooled_reliability(
            [result for result in corrupted if result.task.severity == severity])
    return dict(resamples=bootstrap.RESAMPLES, intervals=model_intervals, temperature=temperature, reliability=diagrams,
                per_class={result.task.name: per_class(result) for result in labelled})


def _tests(first: Sequence[CachedResult], second: Sequence[CachedResult]) -> Dict[str, Any]:
    return {a.task.title: mcnemar(a.records['hit1'], b.records['hit1']) for a, b in zip(first, second)
            if a.task.group in ('clean', 'test_set', 'corruption')}


def add_statistics(
        values: Dict[str, Any], measured: Measured, baseline: Optional[Baseline], baseline_label: Optional[str],
        complete: bool, seed: int,
) -> None:
    """Add each model's statistics and the comparisons of all pairs of models to results.

    Every metric of a resample is computed by the same function as the metric itself, and relative to the baseline's
    errors in that resample if the baseline is a model.
    """
    labels = [model.label for model, _ in measured]

    def reports(each: Sequence[Sequence[CachedResult]]) -> List[Dict[str, Any]]:
        over = baseline
        if baseline_label is not None:
            over = Baseline.measured(baseline_label, each[labels.index(baseline_label)])
        return [summarise(results, over, complete)[0] for results in each]

    def metrics(each: Sequence[Sequence[CachedResult]]) -> Dict[str, Optional[float]]:
        by_model = reports(each)
        row = {f'{i}.{path}': value for i, report in enumerate(by_model) for path, value in bootstrap.flatten(report)}
        for (i, first), (j, second) in combinations(enumerate(map(_compared, by_model)), 2):
            row.update({f'{i}-{j}.{key}': first[key] - second[key] for key in first if key in second})
        return row

    each = [results for _, results in measured]
    observed = metrics(each)
    found = bootstrap.intervals(bootstrap.Resampled(each), metrics, seed)
    for i, (report, results) in enumerate(zip(values['models'], each)):
        own = {path.removeprefix(f'{i}.'): interval and [*interval] for path, interval in found.items()
               if path.startswith(f'{i}.') and observed[path] is not None}
        report['statistics'] = _of_model(results, own)
    for i, j in combinations(range(len(labels)), 2):
        prefix = f'{i}-{j}.'
        values['comparisons'].append(dict(
            models=[labels[i], labels[j]],
            differences={path.removeprefix(prefix): dict(difference=observed[path], interval=interval and [*interval])
                         for path, interval in found.items() if path.startswith(prefix)},
            mcnemar=_tests(each[i], each[j])))
