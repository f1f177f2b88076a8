"""From records to a model's report: metrics, relative to a baseline, their intervals, and comparisons of models.

Metrics of the images and those of resampled images come from the same functions, which take (B,) arrays with one value
for each resample; the images themselves are one in which each is drawn once.
"""
from itertools import combinations
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..evaluation.engine import CachedResult
from .metrics import (
    ALEXNET_3DCC_ERROR, ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, ALEXNET_FLIP_RATE, corruption_error, mean_corruption_error,
    mean_ratio, ratio, relative_corruption_error, relative_mean_corruption_error,
)
from .statistics import (
    LEAST_IMAGES, RESAMPLES, mcnemar, per_class, percentiles, reliability, resamples, temperature_scaling, wilson,
)
from .tasks import Classifier

__all__ = ['ALEXNET', 'HEADLINES', 'Baseline', 'Measured', 'Relative', 'add_statistics', 'headlines', 'make_reports']

Tree = Dict[str, Any]
Measured = Sequence[Tuple[Classifier, Sequence[CachedResult]]]
COUNTS = ('images', 'sequences', 'flips', 'pairs', 'pixels')
RATES = ('top1_error', 'top5_error', 'consistency')  # of independent images

# title in tables and path in a report of each headline metric; accuracies are 100 minus errors
HEADLINES = dict(
    top1=('top-1', 'clean.top1_error'), top5=('top-5', 'clean.top5_error'), ece=('ECE', 'clean.ece'),
    mean_error=('mean error', 'mean_error'), mean_ece=('mean ECE', 'mean_ece'), mce=('mCE', 'mce'),
    relative_mce=('relative mCE', 'relative_mce'), mean_flip_rate=('flip rate', 'mean_flip_rate'), mfr=('mFR', 'mfr'),
    mt5d=('mT5D', 'mt5d'), consistency=('consistency', 'shift.clean.consistency'))


def _lookup(report: Any, path: str) -> Any:
    for key in path.split('.'):
        report = None if report is None else report.get(key)
    return report


def headlines(report: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a model's headline metrics in percent; None for missing ones."""
    found = {key: _lookup(report, path) for key, (_, path) in HEADLINES.items()}
    return {key: 100 - value if key in ('top1', 'top5') and value is not None else value
            for key, value in found.items()}


class Baseline(NamedTuple):
    """The model that errors are relative to."""

    name: str
    errors: Mapping[str, Any]
    clean: Any
    flip_rates: Mapping[str, Any]
    top5_distances: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, report: Tree) -> 'Baseline':
        """Return the baseline that is a model with a report, of the same images."""
        return cls(
            name, _errors(report), _lookup(report, 'clean.top1_error'),
            {kind: entry['flip_rate'] for kind, entry in report['perturbations'].items()},
            {kind: entry['top5_distance'] for kind, entry in report['perturbations'].items()})


ALEXNET = Baseline('AlexNet', {**ALEXNET_ERROR, **ALEXNET_3DCC_ERROR}, ALEXNET_CLEAN_ERROR, ALEXNET_FLIP_RATE, {})


class Relative(NamedTuple):
    """What reports are relative to: a model under test, a constant baseline, or nothing.

    ``complete`` says whether all corruptions of the protocol are measured: only then there is an mCE.
    """

    label: Optional[str]
    constant: Optional[Baseline]
    complete: bool


def _errors(report: Tree) -> Dict[str, List[Any]]:
    return {kind: [errors['top1_error'] for errors in entry['severities'].values()]
            for kind, entry in report['corruptions'].items()}


def _mean(values: Sequence[Any]) -> Any:
    return np.mean(values, axis=0) if values else None


def _reference_of(name: str, references: Mapping[str, Any]) -> Optional[str]:
    """Return the clean images that a test set compares with: those of its own classes, or all."""
    return f'{name}-clean' if f'{name}-clean' in references else 'clean' if 'clean' in references else None


def _measured(results: Sequence[CachedResult], weights: Optional[Mapping[str, np.ndarray]] = None) -> Tree:
    """Return what was measured, and its means; on resampled files by the ``weights`` of each list."""
    def drawn(result: CachedResult) -> np.ndarray:
        return weights[result.task.names] if weights else np.ones((1, len(result.records['item'])))
    report: Tree = dict(clean=None, corruptions={}, perturbations={}, shift=None, references={}, test_sets={}, ood={})
    cleans = {result.task.name: result for result in results if result.task.place[0] in ('clean', 'references')}
    for result in results:
        task, reference = result.task, None
        if task.place[0] == 'ood':
            clean = cleans[_reference_of(task.name, cleans) or 'clean']
            reference = clean.records, drawn(clean)
        task.put(report, task.metrics(result.records, drawn(result), reference))
    for name, errors in report['test_sets'].items():
        errors['reference'] = _reference_of(name, cleans)
        own = report['references'].get(errors['reference'], report['clean'] if errors['reference'] else None)
        for top in ('top1', 'top5'):
            errors[f'{top}_diff'] = own and own[f'{top}_error'] - errors[f'{top}_error']
    corruptions, perturbations = report['corruptions'], report['perturbations']
    for entry in corruptions.values():
        entry['mean_error'] = _mean([errors['top1_error'] for errors in entry['severities'].values()])
    severities = [*next(iter(corruptions.values()))['severities']] if corruptions else []
    report['mean_error'] = _mean([entry['mean_error'] for entry in corruptions.values()])
    report['ece_by_severity'] = {severity: _mean([entry['severities'][severity]['ece']
                                                  for entry in corruptions.values()]) for severity in severities}
    report['mean_ece'] = _mean([*report['ece_by_severity'].values()])
    report['mean_flip_rate'] = _mean([entry['flip_rate'] for entry in perturbations.values()])
    report['mean_top5_distance'] = _mean([entry['top5_distance'] for entry in perturbations.values()])
    return report


def _relate(report: Tree, baseline: Optional[Baseline], complete: bool) -> None:
    """Add the metrics that are relative to a baseline; None where it or the model lacks something."""
    over = baseline or Baseline('', {}, None, {}, {})

    def known(metric: Callable[..., Any], *args: Any) -> Any:
        return None if any(a is None or (isinstance(a, Mapping) and not a) for a in args) else metric(*args)
    errors, clean = _errors(report), _lookup(report, 'clean.top1_error')
    for name, entry in report['corruptions'].items():
        base = over.errors.get(name)
        entry['ce'] = known(corruption_error, errors[name], base)
        entry['relative_ce'] = known(relative_corruption_error, errors[name], clean, base, over.clean)
    rates, distances = {}, {}
    for name, entry in report['perturbations'].items():
        rates[name], distances[name] = entry['flip_rate'], entry['top5_distance']
        entry['flip_ratio'] = known(ratio, rates[name], over.flip_rates.get(name))
        entry['top5_ratio'] = known(ratio, distances[name], over.top5_distances.get(name))
    every = errors if complete and {*errors} <= {*over.errors} else None
    report['mce'] = known(mean_corruption_error, every, over.errors)
    report['relative_mce'] = known(relative_mean_corruption_error, every, clean, over.errors, over.clean)
    report['mfr'] = known(mean_ratio, rates, over.flip_rates)
    report['mt5d'] = known(mean_ratio, distances, over.top5_distances)


def _reports(
        measured: Measured, relative: Relative, weights: Optional[Mapping[str, np.ndarray]] = None,
) -> List[Tree]:
    """Return the report of each model, of arrays."""
    reports = {model.label: _measured(results, weights) for model, results in measured}
    baseline = relative.constant
    if relative.label is not None:
        baseline = Baseline.of(relative.label, reports[relative.label])
    for report in reports.values():
        _relate(report, baseline, relative.complete)
    return [*reports.values()]


def _flatten(report: Any, prefix: str = '') -> Iterator[Tuple[str, np.ndarray, Optional[np.ndarray]]]:
    """Yield path, values and, for a rate of independent images, their number, of each metric."""
    for key, value in report.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{key}.')
        elif isinstance(value, (np.ndarray, float)) and key not in COUNTS:
            yield f'{prefix}{key}', np.asarray(value), report.get('images') if key in RATES else None


def _plain(value: Any, key: str = '') -> Any:
    """Return a report of arrays with one value as plain numbers, None for NaN."""
    if isinstance(value, dict):
        return {key: _plain(part, key) for key, part in value.items()}
    if not isinstance(value, (np.ndarray, float)):
        return value
    number = float(np.asarray(value).reshape(-1)[0])
    return None if np.isnan(number) else int(number) if key in COUNTS else number


def make_reports(measured: Measured, relative: Relative) -> Tuple[List[Tree], List[str]]:
    """Return each model's report in plain numbers, and notes on metrics that do not exist."""
    reports = _reports(measured, relative)
    missing = [path for path, values, _ in _flatten(reports[0]) if np.isnan(values).any()]
    notes = [f'no {", ".join(missing)}: the baseline has no error there, or the corruption adds none to it'
             ] if missing else []
    return [_plain(report) for report in reports], notes


def _compared(report: Tree) -> Dict[str, Any]:
    """Return the metrics of a report in which models are compared."""
    values = dict(headlines(report), **{f'top1 of {name}': 100 - entry['top1_error']
                                        for name, entry in report['test_sets'].items()})
    return {key: value for key, value in values.items() if value is not None}


def _differences(reports: Sequence[Tree]) -> Dict[Tuple[int, int], Dict[str, Any]]:
    compared = [_compared(report) for report in reports]
    return {(i, j): {key: compared[i][key] - compared[j][key] for key in compared[i] if key in compared[j]}
            for i, j in combinations(range(len(reports)), 2)}


def _images_of(path: str, results: Sequence[CachedResult]) -> int:
    """Return the number of files in the smallest list that a metric may depend on."""
    parts = path.split('.')
    own = [result for result in results if result.task.place[:len(parts)][:2] == tuple(parts[:2])[:len(
        result.task.place)]] or results
    return min(len(result.records['item']) for result in own)


def _of_model(results: Sequence[CachedResult], intervals: Dict[str, Any]) -> Dict[str, Any]:
    """Return one model's statistics."""
    labelled = [result for result in results if result.task.by_class]
    diagrams = {result.task.name: reliability(result.records['confidence'], result.records['hit1'])
                for result in labelled}
    temperature = None
    for result in labelled:
        if 'temperature' in result.records:
            temperature, fitted = temperature_scaling(result.records)
            if fitted:
                diagrams[f'{result.task.name} at the fitted temperature'] = fitted
    pooled: Dict[int, List[CachedResult]] = {}
    for result in results:
        if result.task.place[0] == 'corruptions':
            pooled.setdefault(result.task.severity, []).append(result)
    for severity, each in sorted(pooled.items()):
        diagrams[f'corruptions at severity {severity}'] = reliability(
            *(np.concatenate([result.records[name] for result in each]) for name in ('confidence', 'hit1')))
    return dict(resamples=RESAMPLES, intervals=intervals, temperature=temperature, reliability=diagrams,
                per_class={result.task.name: per_class(result) for result in labelled})


def add_statistics(
        values: Dict[str, Any], measured: Measured, relative: Relative, seed: int,
) -> None:
    """Add each model's statistics and the comparisons of all pairs of models to results."""
    each = [results for _, results in measured]
    observed = _reports(measured, relative)
    drawn: List[Dict[str, List[Any]]] = [{} for _ in each]
    drawn_differences: Dict[Tuple[int, int], Dict[str, List[Any]]] = {}
    for weights in resamples(each[0], seed):
        reports = _reports(measured, relative, weights)
        shape = len(next(iter(weights.values())))
        for report, into in zip(reports, drawn):
            for path, numbers, _ in _flatten(report):
                into.setdefault(path, []).append(np.broadcast_to(numbers, shape))
        for pair, found in _differences(reports).items():
            for key, numbers in found.items():
                drawn_differences.setdefault(pair, {}).setdefault(key, []).append(np.broadcast_to(numbers, shape))

    def interval(path: str, parts: Sequence[np.ndarray], results: Sequence[CachedResult]) -> Any:
        images = _images_of(path, results)
        ends = percentiles(np.concatenate(parts)) if images > 1 else None  # one image has no spread
        return ends and dict(low=ends[0], high=ends[1], method='bootstrap', small=images < LEAST_IMAGES)
    small = False
    for report, model_values, results, into in zip(observed, values['models'], each, drawn):
        intervals: Dict[str, Any] = {}
        for path, numbers, images in _flatten(report):
            if np.isnan(numbers).any():
                continue
            if images is not None:
                low, high = wilson(numbers.item(), int(np.asarray(images).item()))
                intervals[path] = dict(low=low, high=high, method='wilson', small=False)
            else:
                intervals[path] = interval(path, into[path], results)
        small = small or any(entry and entry['small'] for entry in intervals.values())
        model_values['statistics'] = _of_model(results, intervals)
        temperature = model_values['statistics']['temperature']
        if temperature and temperature['temperature'] is None:
            values['notes'].append(f'{model_values["label"]}: no temperature was fitted, because the best one lies on '
                                   f'a bound of the search, 0.018 or 55')
    if small:
        values['notes'].append(f'intervals with * are bootstraps of fewer than {LEAST_IMAGES} images: they are too '
                               'narrow')
    for (i, j), found in _differences(observed).items():
        tests = {a.task.title: mcnemar(a.records['hit1'], b.records['hit1']) for a, b in zip(each[i], each[j])
                 if a.task.tested}
        paths = {key: HEADLINES[key][1] if key in HEADLINES else f'test_sets.{key.removeprefix("top1 of ")}'
                 for key in found}
        values['comparisons'].append(dict(
            models=[measured[i][0].label, measured[j][0].label], mcnemar=tests,
            differences={key: dict(difference=float(np.asarray(value).item()),
                                   interval=interval(paths[key], drawn_differences[i, j][key], each[i]))
                         for key, value in found.items() if not np.isnan(value).any()}))
