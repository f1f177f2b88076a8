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
    LEAST_IMAGES, METRICS, RESAMPLES, halves, mcnemar, per_class, percentiles, reliability, resamples,
    temperature_scaling, wilson,
)
from .tasks import Classifier

__all__ = [
    'ALEXNET', 'HEADLINES', 'Baseline', 'Headline', 'Measured', 'Relative', 'add_statistics', 'compare', 'headlines',
    'lookup', 'make_reports', 'title_of']

Tree = Dict[str, Any]
Measured = Sequence[Tuple[Classifier, Sequence[CachedResult]]]
COUNTS = ('images', 'sequences', 'flips', 'pairs', 'pixels', 'fitted_images')
RATES = ('consistency', *(name for name, metric in METRICS.items() if metric.rate))  # of independent images


class Headline(NamedTuple):
    """A headline metric.

    Attributes:
        title: In tables.
        path: In a report.
        accuracy: Whether it is 100 minus the error there.
        main: Whether the first table has it.
    """

    title: str
    path: str
    accuracy: bool = False
    main: bool = True

    def of(self, report: Mapping[str, Any]) -> Any:
        """Return its value, None where it was not measured."""
        value = lookup(report, self.path)
        return value if value is None or not self.accuracy else 100 - value

    def on(self, name: str) -> 'Headline':
        """Return a headline of the clean images as that of a test set."""
        return self._replace(path=self.path.replace('clean', f'test_sets.{name}', 1))


HEADLINES: Dict[str, Headline] = dict(
    top1=Headline('top-1', 'clean.top1_error', accuracy=True),
    top5=Headline('top-5', 'clean.top5_error', accuracy=True),
    ece=Headline('ECE', 'clean.ece'), mean_error=Headline('mean error', 'means.top1_error'),
    mean_ece=Headline('mean ECE', 'means.ece'), mce=Headline('mCE', 'mce'),
    relative_mce=Headline('relative mCE', 'relative_mce'), mean_flip_rate=Headline('flip rate', 'mean_flip_rate'),
    mfr=Headline('mFR', 'mfr'),
    consistency=Headline('consistency', 'shift.consistency'),
    **{f'{mean}{name}': Headline(f'{mean.replace("_", " ")}{METRICS[name].title}', f'{place}.{name}', main=False)
       for mean, place in (('', 'clean'), ('mean_', 'means')) for name in [*METRICS][3:]})


def lookup(report: Any, path: str) -> Any:
    """Return what is at a path of keys with dots between; None for nothing."""
    for key in path.split('.'):
        report = None if report is None else report.get(key)
    return report


def headlines(report: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a model's headline metrics; None for missing ones."""
    return {key: headline.of(report) for key, headline in HEADLINES.items()}


def title_of(key: str) -> str:
    """Return the title of a key of comparisons: of ``HEADLINES``, or ``KEY of TEST_SET``."""
    base, of, name = key.partition(' of ')
    return HEADLINES[base].title + of + name


class Baseline(NamedTuple):
    """The model that errors are relative to."""

    name: str
    errors: Mapping[str, Any]
    clean: Any
    flip_rates: Mapping[str, Any]

    @classmethod
    def of(cls, name: str, report: Tree) -> 'Baseline':
        """Return the baseline that is a model with a report, of the same images."""
        return cls(
            name, _errors(report), lookup(report, 'clean.top1_error'),
            {kind: entry['flip_rate'] for kind, entry in report['perturbations'].items()})


ALEXNET = Baseline('AlexNet', {**ALEXNET_ERROR, **ALEXNET_3DCC_ERROR}, ALEXNET_CLEAN_ERROR, ALEXNET_FLIP_RATE)


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


def _means(entries: Sequence[Mapping[str, Any]]) -> Any:
    """Return the mean of each metric of images; None without any."""
    return {name: _mean([entry[name] for entry in entries]) for name in METRICS} if entries else None


def _reference_of(name: str, cleans: Mapping[str, Any]) -> Optional[str]:
    """Return the clean images that a test set compares with: those of its own classes, or all."""
    return None if name in cleans else next((of for of in (f'{name}-clean', 'clean') if of in cleans), None)


def _measured(results: Sequence[CachedResult], weights: Optional[Mapping[str, np.ndarray]] = None) -> Tree:
    """Return what was measured, and its means; on resampled files by the ``weights`` of each list."""
    def drawn(result: CachedResult) -> np.ndarray:
        return weights[result.task.names] if weights else np.ones((1, len(result.records['item'])))
    report: Tree = dict(clean=None, temperature=None, corruptions={}, perturbations={}, shift=None, test_sets={},
                        ood={})
    cleans = {result.task.name: result for result in results
              if result.task.place == ('clean',) or result.task.name.endswith('-clean')}
    for result in results:
        task, reference = result.task, None
        if task.place[0] == 'ood':
            clean = cleans[_reference_of(task.name, cleans) or 'clean']
            reference = clean.records, drawn(clean)
        task.put(report, task.metrics(result.records, drawn(result), reference))
        if 'temperature' in result.records:
            report['temperature'] = temperature_scaling(result.records, drawn(result))
    for name, errors in report['test_sets'].items():
        errors['reference'] = _reference_of(name, cleans)
        own = report['test_sets'].get(errors['reference'], report['clean'] if errors['reference'] else None)
        for top in ('top1', 'top5'):
            errors[f'{top}_diff'] = own and own[f'{top}_error'] - errors[f'{top}_error']
    corruptions, perturbations = report['corruptions'], report['perturbations']
    for entry in corruptions.values():
        entry['means'] = _means([*entry['severities'].values()])
    severities = [*next(iter(corruptions.values()))['severities']] if corruptions else []
    report['means_by_severity'] = {
        severity: _means([entry['severities'][severity] for entry in corruptions.values()]) for severity in severities}
    report['means'] = _means([entry['means'] for entry in corruptions.values()])
    report['mean_flip_rate'] = _mean([entry['flip_rate'] for entry in perturbations.values()])
    return report


def _relate(report: Tree, baseline: Optional[Baseline], complete: bool) -> None:
    """Add the metrics that are relative to a baseline; None where it or the model lacks something."""
    over = baseline or Baseline('', {}, None, {})

    def known(metric: Callable[..., Any], *args: Any) -> Any:
        return None if any(a is None or (isinstance(a, Mapping) and not a) for a in args) else metric(*args)
    errors, clean = _errors(report), lookup(report, 'clean.top1_error')
    for name, entry in report['corruptions'].items():
        base = over.errors.get(name)
        entry['ce'] = known(corruption_error, errors[name], base)
        entry['relative_ce'] = known(relative_corruption_error, errors[name], clean, base, over.clean)
    rates = {name: entry['flip_rate'] for name, entry in report['perturbations'].items()}
    for name, entry in report['perturbations'].items():
        entry['flip_ratio'] = known(ratio, rates[name], over.flip_rates.get(name))
    every = errors if complete and {*errors} <= {*over.errors} else None
    report['mce'] = known(mean_corruption_error, every, over.errors)
    report['relative_mce'] = known(relative_mean_corruption_error, every, clean, over.errors, over.clean)
    report['mfr'] = known(mean_ratio, rates, over.flip_rates)


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
        elif isinstance(value, (np.ndarray, float)) and key not in (*COUNTS, 'temperature'):
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


def _compared(report: Tree) -> Dict[str, Headline]:
    """Return the metrics of a report in which models are compared, by name."""
    found = {**HEADLINES, **{f'{key} of {name}': headline.on(name) for name in report['test_sets']
                             for key, headline in HEADLINES.items() if headline.path.startswith('clean.')}}
    return {key: headline for key, headline in found.items() if headline.of(report) is not None}


def _differences(reports: Sequence[Tree]) -> Dict[Tuple[int, int], Dict[str, Any]]:
    compared = [_compared(report) for report in reports]
    return {(i, j): {key: headline.of(reports[i]) - headline.of(reports[j]) for key, headline in compared[i].items()
                     if key in compared[j]} for i, j in combinations(range(len(reports)), 2)}


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
    for result in labelled:
        records = result.records
        if not np.isnan(records.get('temperature', np.nan)).any():
            _, held_out = halves(records['item'])
            diagrams[f'{result.task.name} at the fitted temperature'] = reliability(
                records['calibrated_confidence'][held_out], records['hit1'][held_out])
    pooled: Dict[int, List[CachedResult]] = {}
    for result in results:
        if result.task.place[0] == 'corruptions':
            pooled.setdefault(result.task.severity, []).append(result)
    for severity, each in sorted(pooled.items()):
        diagrams[f'corruptions at severity {severity}'] = reliability(
            *(np.concatenate([result.records[name] for result in each]) for name in ('confidence', 'hit1')))
    return dict(resamples=RESAMPLES, intervals=intervals, reliability=diagrams,
                per_class={result.task.name: per_class(result) for result in labelled if not result.task.labels})


class _Bootstrap:
    """Reports and differences of models, of the images themselves and of all resamples."""

    def __init__(self, measured: Measured, relative: Relative, seed: int) -> None:
        self.measured, self.observed = measured, _reports(measured, relative)
        self.drawn: List[Dict[str, List[Any]]] = [{} for _ in measured]
        self.differences: Dict[Tuple[int, int], Dict[str, List[Any]]] = {}
        for weights in resamples(measured[0][1], seed):
            reports = _reports(measured, relative, weights)
            shape = len(next(iter(weights.values())))
            for report, into in zip(reports, self.drawn):
                for path, numbers, _ in _flatten(report):
                    into.setdefault(path, []).append(np.broadcast_to(numbers, shape))
            for pair, found in _differences(reports).items():
                for key, numbers in found.items():
                    self.differences.setdefault(pair, {}).setdefault(key, []).append(np.broadcast_to(numbers, shape))

    def interval(self, path: str, parts: Sequence[np.ndarray], model: int) -> Any:
        images = _images_of(path, self.measured[model][1])
        ends = percentiles(np.concatenate(parts)) if images > 1 else None  # one image has no spread
        return ends and dict(low=ends[0], high=ends[1], method='bootstrap', small=images < LEAST_IMAGES)

    def intervals(self, model: int) -> Dict[str, Any]:
        """Return the intervals of a model's metrics, by path."""
        found: Dict[str, Any] = {}
        for path, numbers, images in _flatten(self.observed[model]):
            if np.isnan(numbers).any():
                continue
            if images is None:
                found[path] = self.interval(path, self.drawn[model][path], model)
            else:
                low, high = wilson(numbers.item(), int(np.asarray(images).item()))
                found[path] = dict(low=low, high=high, method='wilson', small=False)
        return found

    def comparisons(self) -> List[Tree]:
        """Return the differences of all pairs of models, and McNemar's tests."""
        compared = []
        for (i, j), found in _differences(self.observed).items():
            (first, own), (second, other) = self.measured[i], self.measured[j]
            headlines = _compared(self.observed[i])
            compared.append(dict(
                models=[first.label, second.label],
                mcnemar={a.task.title: mcnemar(a.records['hit1'], b.records['hit1']) for a, b in zip(own, other)
                         if a.task.tested},
                differences={key: dict(difference=float(np.asarray(value).item()), interval=self.interval(
                    headlines[key].path, self.differences[i, j][key], i))
                             for key, value in found.items() if not np.isnan(value).any()}))
        return compared


def compare(measured: Measured, relative: Relative, seed: int) -> List[Tree]:
    """Return the comparisons of all pairs of models, as in results."""
    return _Bootstrap(measured, relative, seed).comparisons()


def add_statistics(values: Dict[str, Any], measured: Measured, relative: Relative, seed: int) -> None:
    """Add each model's statistics and the comparisons of all pairs of models to results."""
    bootstrap, small = _Bootstrap(measured, relative, seed), False
    for i, (model, results) in enumerate(measured):
        intervals = bootstrap.intervals(i)
        small = small or any(entry and entry['small'] for entry in intervals.values())
        values['models'][i]['statistics'] = _of_model(results, intervals)
        temperature = values['models'][i]['temperature']
        if temperature and temperature['temperature'] is None:
            values['notes'].append(f'{model.label}: no temperature was fitted, because the best one lies on a bound of '
                                   f'the search, 0.018 or 55')
    if small:
        values['notes'].append(f'intervals with * are bootstraps of fewer than {LEAST_IMAGES} images: they are too '
                               'narrow')
    values['comparisons'] = bootstrap.comparisons()
