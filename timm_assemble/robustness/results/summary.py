"""From the metrics of tasks to the results, relative to a baseline."""
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..metrics import (
    ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, ALEXNET_FLIP_RATE, SEVERITIES, corruption_error, mean_corruption_error,
    mean_flip_rate, relative_corruption_error, relative_mean_corruption_error,
)
from ..plan import Plan
from ..tasks.cache import CachedResult
from ..tasks.task import Classifier
from .schema import SCHEMA_VERSION

__all__ = ['ALEXNET', 'Baseline', 'assemble', 'summarise']


class Baseline(NamedTuple):
    """The model that errors are relative to, in percent."""

    name: str
    errors: Mapping[str, Any]
    clean: Optional[float]
    flip_rates: Mapping[str, float]

    @classmethod
    def measured(cls, name: str, results: Sequence[CachedResult]) -> 'Baseline':
        """Return the baseline of a model that was measured on the same images."""
        report = _measured(results)
        return cls(
            name,
            {kind: [errors['top1_error'] for errors in entry['severities'].values()]
             for kind, entry in report['corruptions'].items()},
            report['clean'] and report['clean']['top1_error'],
            {kind: entry['flip_rate'] for kind, entry in report['perturbations'].items()})


ALEXNET = Baseline('AlexNet', ALEXNET_ERROR, ALEXNET_CLEAN_ERROR, ALEXNET_FLIP_RATE)


def _mean(values: Sequence[float]) -> Optional[float]:
    return float(np.mean(values)) if values else None


def _errors(metrics: Mapping[str, Any]) -> Dict[str, Any]:
    images = metrics['images']
    return dict(images=images, top1_error=100 * metrics['wrong_top1'] / images,
                top5_error=100 * metrics['wrong_top5'] / images, ece=metrics['ece'])


def _measured(results: Sequence[CachedResult]) -> Dict[str, Any]:
    """Return what was measured, in percent, and its means."""
    clean: Optional[Dict[str, Any]] = None
    shift: Optional[Dict[str, Any]] = None
    corruptions: Dict[str, Any] = {}
    perturbations: Dict[str, Any] = {}
    for task, metrics, *_ in results:
        if task.group == 'clean':
            clean = _errors(metrics)
        elif task.group == 'corruption':
            corruptions.setdefault(task.name, dict(severities={}))['severities'][str(task.severity)] = _errors(metrics)
        elif task.group == 'perturbation':
            perturbations[task.name] = dict(metrics, flip_rate=100 * metrics['flips'] / metrics['pairs'])
        else:
            shift = shift or dict(pixels=task.identity['shift'], clean=None, corruptions={})
            consistency = dict(images=metrics['images'], consistency=100 * metrics['same'] / metrics['images'])
            if task.severity:
                shift['corruptions'].setdefault(task.name, {})[str(task.severity)] = consistency
            else:
                shift['clean'] = consistency
    for entry in corruptions.values():
        entry['mean_error'] = _mean([errors['top1_error'] for errors in entry['severities'].values()])
    return dict(
        clean=clean, corruptions=corruptions, perturbations=perturbations, shift=shift,
        mean_error=_mean([entry['mean_error'] for entry in corruptions.values()]),
        mean_ece=_mean([errors['ece'] for entry in corruptions.values() for errors in entry['severities'].values()]),
        mean_flip_rate=_mean([entry['flip_rate'] for entry in perturbations.values()]))


def summarise(
        results: Sequence[CachedResult], baseline: Optional[Baseline], all_corruptions: bool = True,
) -> Tuple[Dict[str, Any], List[str]]:
    """Return a model's metrics in percent, None for missing ones, and notes on ratios to a baseline's error of 0.

    Without ``all_corruptions`` of the protocol there is no mCE.
    """
    report = _measured(results)
    _, errors, clean, rates = Baseline.measured('', results)
    notes: List[str] = []

    def ratio(what: str, metric: Callable[..., float], *args: Any) -> Optional[float]:
        if baseline is None or None in args:
            return None
        try:
            return metric(*args)
        except ValueError as e:
            notes.append(f'no {what}: {e}')
            return None

    over = baseline or Baseline('', dict.fromkeys(errors), None, {})
    for name, entry in report['corruptions'].items():
        entry['ce'] = ratio(f'CE of {name}', corruption_error, errors[name], over.errors[name])
        entry['relative_ce'] = ratio(f'relative CE of {name}', relative_corruption_error, errors[name], clean,
                                     over.errors[name], over.clean)
    for name, entry in report['perturbations'].items():
        entry['flip_ratio'] = ratio(
            f'flip ratio of {name}', mean_flip_rate, {name: entry['flip_rate']}, over.flip_rates)
    all_errors = errors if errors and all_corruptions else None
    report['mce'] = ratio('mCE', mean_corruption_error, all_errors, over.errors)
    report['relative_mce'] = ratio(
        'relative mCE', relative_mean_corruption_error, all_errors, clean, over.errors, over.clean)
    report['mfr'] = ratio('mFR', mean_flip_rate, rates or None, over.flip_rates)
    return report, notes


def assemble(
        plan: Plan, models: Sequence[Tuple[Classifier, Sequence[CachedResult]]], baseline_label: Optional[str],
        imagenet: bool, precision: str, versions: Dict[str, str], run: Dict[str, Any],
) -> Dict[str, Any]:
    """Return all results, in the form of the schema.

    Without ``baseline_label`` errors are relative to AlexNet's if the classes are those of ``imagenet``. ``run`` is
    what differs between two runs of the same measurement, apart from the tasks' seconds.
    """
    baseline = ALEXNET if imagenet else None
    if baseline_label is not None:
        baseline = Baseline.measured(baseline_label, {model.label: result for model, result in models}[baseline_label])
    corrupted, clean = plan.of_group('corruption'), plan.of_group('clean')
    notes = [f'{model.label} is made for images of {model.details["own_size"]}, and was measured at {plan.size}'
             for model, _ in models if model.details['own_size'] not in (None, plan.size)]
    if clean and corrupted and clean[0].items != corrupted[0].items:
        notes.append(f'relative CE and relative mCE compare errors on different images: {clean[0].items} clean ones, '
                     f'{corrupted[0].items} of each corruption')
    if corrupted and not plan.complete:
        notes.append(f'no mCE: not the {len(plan.protocol.corruptions)} corruptions of {plan.protocol.name}')
    if plan.of_group('corruption', 'perturbation') and baseline is None:
        notes.append("no mCE and no mFR: AlexNet's are of ImageNet's 1000 classes; give another baseline")
    reports = []
    for model, results in models:
        report, more = summarise(results, baseline, plan.complete)
        notes += more
        reports.append(dict(label=model.label, **model.details, **report))
    seconds = {model.label: {f'{result.task.group} {result.task.title}': result.seconds for result in results}
               for model, results in models}
    return dict(
        schema_version=SCHEMA_VERSION, versions=versions,
        protocol=dict(
            name=plan.protocol.name, text=plan.text,
            images='generated' if plan.libraries else 'published' if corrupted else 'none',
            corruptions=[*plan.corruptions] if corrupted else [],
            perturbations=[task.name for task in plan.of_group('perturbation')], severities=[*SEVERITIES],
            input_size=plan.size, seed=plan.request.seed, precision=precision, baseline=baseline and baseline.name),
        data=plan.data, models=reports, notes=[*dict.fromkeys(notes)], run=dict(run, seconds=seconds))
