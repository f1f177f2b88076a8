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

__all__ = ['ALEXNET', 'Baseline', 'assemble', 'baseline_of', 'summarise']


class Baseline(NamedTuple):
    """The model that errors are relative to, in percent."""

    name: str
    errors: Mapping[str, Any]
    clean: Optional[float]
    flip_rates: Mapping[str, float]
    top5_distances: Mapping[str, float]

    @classmethod
    def measured(cls, name: str, results: Sequence[CachedResult]) -> 'Baseline':
        """Return the baseline of a model that was measured on the same images."""
        report = _measured(results)
        return cls(
            name,
            {kind: [errors['top1_error'] for errors in entry['severities'].values()]
             for kind, entry in report['corruptions'].items()},
            report['clean'] and report['clean']['top1_error'],
            {kind: entry['flip_rate'] for kind, entry in report['perturbations'].items()},
            {kind: entry['top5_distance'] for kind, entry in report['perturbations'].items()})


ALEXNET = Baseline('AlexNet', ALEXNET_ERROR, ALEXNET_CLEAN_ERROR, ALEXNET_FLIP_RATE, {})


def _mean(values: Sequence[float]) -> Optional[float]:
    return float(np.mean(values)) if values else None


def _errors(metrics: Mapping[str, Any]) -> Dict[str, Any]:
    images = metrics['images']
    return dict(images=images, top1_error=100 * metrics['wrong_top1'] / images,
                top5_error=100 * metrics['wrong_top5'] / images, ece=metrics['ece'])


def _difference(name: str, errors: Dict[str, Any], clean: Mapping[str, Any]) -> Dict[str, Any]:
    """Return errors of a test set with the differences of its accuracies to those of clean images."""
    reference = f'{name}-clean' if f'{name}-clean' in clean else 'clean' if 'clean' in clean else None
    own = clean[reference] if reference else None
    return dict(errors, reference=reference, **{
        f'{top}_diff': own and own[f'{top}_error'] - errors[f'{top}_error'] for top in ('top1', 'top5')})


def _measured(results: Sequence[CachedResult]) -> Dict[str, Any]:
    """Return what was measured, in percent, and its means."""
    clean: Dict[str, Any] = {}
    shift: Optional[Dict[str, Any]] = None
    corruptions: Dict[str, Any] = {}
    perturbations: Dict[str, Any] = {}
    test_sets: Dict[str, Any] = {}
    ood: Dict[str, Any] = {}
    for task, metrics, *_ in results:
        if task.group in ('clean', 'reference'):
            clean[task.name] = _errors(metrics)
        elif task.group == 'test_set':
            test_sets[task.name] = _errors(metrics)
        elif task.group == 'ood':
            ood[task.name] = metrics
        elif task.group == 'corruption':
            corruptions.setdefault(task.name, dict(severities={}))['severities'][str(task.severity)] = _errors(metrics)
        elif task.group == 'perturbation':
            perturbations[task.name] = dict(
                metrics, flip_rate=100 * metrics['flips'] / metrics['pairs'],
                top5_distance=metrics['top5_distance'] / metrics['pairs'])
        else:
            shift = shift or dict(pixels=task.identity['shift'], clean=None, corruptions={})
            consistency = dict(images=metrics['images'], consistency=100 * metrics['same'] / metrics['images'])
            if task.severity:
                shift['corruptions'].setdefault(task.name, {})[str(task.severity)] = consistency
            else:
                shift['clean'] = consistency
    for entry in corruptions.values():
        entry['mean_error'] = _mean([errors['top1_error'] for errors in entry['severities'].values()])
    severities = [*next(iter(corruptions.values()))['severities']] if corruptions else []
    return dict(
        clean=clean.get('clean'), corruptions=corruptions, perturbations=perturbations, shift=shift,
        references={name: errors for name, errors in clean.items() if name != 'clean'},
        test_sets={name: _difference(name, errors, clean) for name, errors in test_sets.items()}, ood=ood,
        mean_error=_mean([entry['mean_error'] for entry in corruptions.values()]),
        mean_ece=_mean([errors['ece'] for entry in corruptions.values() for errors in entry['severities'].values()]),
        ece_by_severity={severity: _mean([entry['severities'][severity]['ece'] for entry in corruptions.values()])
                         for severity in severities},
        mean_flip_rate=_mean([entry['flip_rate'] for entry in perturbations.values()]),
        mean_top5_distance=_mean([entry['top5_distance'] for entry in perturbations.values()]))


def summarise(
        results: Sequence[CachedResult], baseline: Optional[Baseline], all_corruptions: bool = True,
) -> Tuple[Dict[str, Any], List[str]]:
    """Return a model's metrics in percent, None for missing ones, and notes on ratios to a baseline's error of 0.

    Without ``all_corruptions`` of the protocol there is no mCE.
    """
    report = _measured(results)
    _, errors, clean, rates, distances = Baseline.measured('', results)
    missing: Dict[str, List[str]] = {}  # by reason

    def ratio(what: str, metric: Callable[..., float], *args: Any) -> Optional[float]:
        if baseline is None or None in args:
            return None
        try:
            return metric(*args)
        except ValueError as e:
            missing.setdefault(str(e), []).append(what)
            return None

    over = baseline or Baseline('', {}, None, {}, {})
    for name, entry in report['corruptions'].items():
        entry['ce'] = ratio(f'CE of {name}', corruption_error, errors[name], over.errors.get(name))
        entry['relative_ce'] = ratio(f'relative CE of {name}', relative_corruption_error, errors[name], clean,
                                     over.errors.get(name), over.clean)
    for name, entry in report['perturbations'].items():
        entry['flip_ratio'] = ratio(
            f'flip ratio of {name}', mean_flip_rate, {name: entry['flip_rate']}, over.flip_rates or None)
        entry['top5_ratio'] = ratio(
            f'top-5 ratio of {name}', mean_flip_rate, {name: entry['top5_distance']}, over.top5_distances or None)
    all_errors = errors if errors and all_corruptions and {*errors} <= {*over.errors} else None
    report['mce'] = ratio('mCE', mean_corruption_error, all_errors, over.errors)
    report['relative_mce'] = ratio(
        'relative mCE', relative_mean_corruption_error, all_errors, clean, over.errors, over.clean)
    report['mfr'] = ratio('mFR', mean_flip_rate, rates or None, over.flip_rates or None)
    report['mt5d'] = ratio('mT5D', mean_flip_rate, distances or None, over.top5_distances or None)
    return report, [f'no {", ".join(whats)}: {reason}' for reason, whats in missing.items()]


def baseline_of(
        label: Optional[str], imagenet: bool, models: Sequence[Tuple[Classifier, Sequence[CachedResult]]],
) -> Optional[Baseline]:
    """Return the measured baseline of a label; without it AlexNet on the classes of ``imagenet``, else none."""
    if label is None:
        return ALEXNET if imagenet else None
    return Baseline.measured(label, {model.label: results for model, results in models}[label])


def _notes(plan: Plan, models: Sequence[Tuple[Classifier, Any]], baseline: Optional[Baseline]) -> List[str]:
    corrupted, clean = plan.of_group('corruption'), plan.of_group('clean')
    notes = [*plan.notes]
    notes += [f'{model.label} is made for images of {model.details["own_size"]}, and was measured at {plan.size}'
              for model, _ in models if model.details['own_size'] not in (None, plan.size)]
    for task in (clean or corrupted)[:1]:
        notes += [f'{model.label} predicts among all of its {model.details["num_classes"]} classes on '
                  f'{len(task.classes)} of them' for model, _ in models
                  if len(task.classes) < model.details['num_classes'] - (model.details['num_classes'] == 1001)]
    if clean and corrupted and clean[0].items != corrupted[0].items:
        notes.append(f'relative CE and relative mCE compare errors on different images: {clean[0].items} clean ones, '
                     f'{corrupted[0].items} of each corruption')
    if corrupted and not plan.complete:
        notes.append(f'no mCE: not the {len(plan.protocol.corruptions)} corruptions of {plan.protocol.name}')
    if plan.of_group('corruption', 'perturbation') and baseline is None:
        notes.append("no mCE and no mFR: AlexNet's are of ImageNet's 1000 classes, all with images; give another "
                     'baseline')
    elif corrupted and baseline is ALEXNET and plan.protocol.name in ('imagenet-c-bar', 'imagenet-3dcc'):
        notes.append(f"no mCE: AlexNet's errors on {plan.protocol.name} are not known here; give another baseline")
    if plan.of_group('perturbation') and baseline is ALEXNET:
        notes.append("no mT5D: AlexNet's top-5 distances are not known here; give another baseline")
    return notes


def _predicted_among(plan: Plan, model: Classifier, name: str) -> str:
    [task] = [task for task in plan.tasks if task.name == name and task.group in ('test_set', 'reference', 'ood')]
    label_map = task.label_map(model)
    if label_map and label_map.mask is not None:
        return f'{len(label_map.mask)} classes of {name.removesuffix("-clean")}'
    return f'all {model.details["num_classes"]} classes'


def assemble(
        plan: Plan, models: Sequence[Tuple[Classifier, Sequence[CachedResult]]], baseline: Optional[Baseline],
        precision: str, versions: Dict[str, str], run: Dict[str, Any],
) -> Dict[str, Any]:
    """Return all results, in the form of the schema, without statistics.

    ``run`` is what differs between two runs of the same measurement, apart from the tasks' seconds.
    """
    notes = _notes(plan, models, baseline)
    reports = []
    for model, results in models:
        report, more = summarise(results, baseline, plan.complete)
        notes += more
        for group in ('test_sets', 'references', 'ood'):
            for name, entry in report[group].items():
                report[group][name] = dict(entry, predicted_among=_predicted_among(plan, model, name))
        reports.append(dict(label=model.label, **model.details, **report, statistics=None))
    seconds = {model.label: {f'{result.task.group} {result.task.title}': result.seconds for result in results}
               for model, results in models}
    return dict(
        schema_version=SCHEMA_VERSION, versions=versions,
        protocol=dict(
            name=plan.protocol.name, text=plan.text,
            images='generated' if plan.libraries else 'published' if plan.of_group('corruption') else 'none',
            corruptions=[*plan.corruptions] if plan.of_group('corruption') else [],
            perturbations=[task.name for task in plan.of_group('perturbation')], severities=[*SEVERITIES],
            input_size=plan.size, crop_pct=plan.protocol.crop / plan.protocol.resize, seed=plan.request.seed,
            precision=precision, baseline=baseline and baseline.name),
        data=plan.data, unreadable=[], models=reports, comparisons=[], notes=[*dict.fromkeys(notes)],
        run=dict(run, seconds=seconds))
