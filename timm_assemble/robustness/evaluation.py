"""The library's entry: measure models and return the results."""
import functools
import hashlib
import json
import tempfile
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from ..data.classes import BY_ORDER, ClassMap
from ..data.preprocessing import size_text
from ..errors import UserError, check, error_line
from ..evaluation.engine import (
    CachedResult, Loading, TaskCache, collect_unreadable, image_bar, keep_items, run_tasks,
)
from ..evaluation.models import (
    Model, OutputError, callable_details, check_identities, from_pixels, label_models, load_rgb_source, model_details,
    model_identity,
)
from ..evaluation.options import check_packages, with_options
from ..evaluation.results import check_output, make_run, package_versions, unreadable_line
from ..runtime.device import amp_dtype, find_device
from ..runtime.ranks import Ranks
from .adaptation import adapt_batch_norms
from .metrics import SEVERITIES
from .plan import Plan, RobustnessOptions, make_plan
from .report import ALEXNET, Measured, Relative, add_statistics, make_reports
from .results import SCHEMA_VERSION, Results
from .tasks import Classifier, CleanTask, CorruptionTask, FlipTask, RobustnessTask, compute_logits
from .test_sets import LabelMap, LabelSpace, synsets

__all__ = ['evaluate', 'load_classifier']


def _from_name(label: str, name: str, plan: Plan, device: torch.device, amp: bool) -> Tuple[Any, ClassMap]:
    source, adapted = load_rgb_source(name), plan.adaptation
    if source.num_classes < 1:
        raise UserError(f'models must have a classifier, {name} returns features')
    identity = dict(model_identity(source), adaptation=adapted and [adapted.prior, adapted.batch_size])
    details = model_details(name, source)  # of the weights before another size
    compute = from_pixels(source.model, source.preprocessing.with_size(plan.size), device, amp)
    if adapted:
        adapt_batch_norms(source.model, adapted.prior, label)
    return Classifier(label=label, compute=compute, identity=identity, is_callable=False,
                      details=details), source.class_map


def load_classifier(
        label: str, model: Model, plan: Plan, device: torch.device, amp: bool = False, identity: Optional[str] = None,
) -> Classifier:
    """Load a model, try it on one image and map the class folders to its classes.

    ``identity`` distinguishes a callable from all others; its label by default.
    """
    size, identity, classes = plan.size, identity or label, None
    try:
        if isinstance(model, str):
            classifier, classes = _from_name(label, model, plan, device, amp)
        else:
            check(not plan.adaptation, 'adapt', label, 'given for models by name')
            classifier = Classifier(label=label, compute=model, identity=dict(callable=identity),
                                    details=callable_details(identity))
        logits = compute_logits(classifier.compute, torch.zeros(1, 3, *size, dtype=torch.uint8, device=device))
    except OutputError as e:
        raise UserError(f'models must return logits, {label} does not: {e}') from e
    except (AssertionError, RuntimeError) as e:
        raise UserError(f'models must take images of {size_text(size)}, {label} does not: {error_line(e)}') from e
    classes = classes or ClassMap.of_count(logits.shape[1])

    @functools.cache
    def of_folders(space: LabelSpace, folders: Tuple[str, ...], parameter: str, where: str) -> LabelMap:
        return space.label_map(classes, folders, f'{parameter} for {label}', where)

    def label_map(task: RobustnessTask) -> LabelMap:
        # every folder of a tree has the same classes: only the first is named
        first = next(t for t in plan.tasks if (t.label_space, t.classes) == (task.label_space, task.classes))
        return of_folders(task.label_space, task.classes, first.parameter, f' in {first.folder}')
    classifier = replace(classifier, label_map=label_map)
    by = [found.by for task in plan.tasks for found in [task.label_map(classifier)] if found and found.by]
    classifier.details.update(num_classes=classes.num_classes, classes_by=by[0] if by else "ImageNet's synsets")
    return classifier


def _measurement(plan: Plan, models: Sequence[Classifier], baseline: Optional[str], cache: TaskCache) -> str:
    """Return a fingerprint of all that decides the results."""
    digest = hashlib.sha256(json.dumps(baseline).encode())
    for model in models:
        for task in plan.tasks:
            digest.update(json.dumps([model.label, cache.identity(task, model)], sort_keys=True).encode())
    return digest.hexdigest()


def _leave_out(measured: Measured) -> Tuple[Measured, List[Any]]:
    """Leave every file that one task could not read out of all tasks with the same file names, for all models."""
    bad, files = collect_unreadable([result for _, results in measured for result in results])

    def readable(result: CachedResult) -> CachedResult:
        out = bad.get(result.task.names)
        if out is None:
            return result
        keep = ~np.isin(result.records.get('item', []), [*out])
        if not keep.any():
            raise UserError(f'{result.task.parameter} must have images that can be read in every condition, none of '
                            f'{result.task.items} of {result.task.title} is left: {unreadable_line(files)}')
        return result._replace(records=keep_items(result.records, keep))
    return [(model, [readable(result) for result in results]) for model, results in measured], files


def _notes(plan: Plan, models: Sequence[Classifier], relative: Relative) -> List[str]:
    corrupted, clean = plan.of(CorruptionTask), plan.of(CleanTask)
    notes = [*plan.notes]
    for model in models:
        own = model.details['own_size']
        if own and tuple(own) != plan.size:
            notes.append(f'{model.label} is made for images of {size_text(own)}, and was measured at '
                         f'{size_text(plan.size)}')
        if model.details['classes_by'] == BY_ORDER:
            notes.append(f'{model.label}: classes are by {BY_ORDER}')
    for task in (clean or corrupted)[:1]:
        notes += [f'{model.label} predicts among all of its {model.details["num_classes"]} classes on '
                  f'{len(task.classes)} of them' for model in models
                  if len(task.classes) < model.details['num_classes'] - (model.details['num_classes'] == 1001)]
    if clean and corrupted and clean[0].items != corrupted[0].items:
        notes.append(f'relative CE and relative mCE compare errors on different images: {clean[0].items} clean ones, '
                     f'{corrupted[0].items} of each corruption')
    if corrupted and not plan.complete:
        notes.append(f'no mCE: not the {len(plan.protocol.corruptions)} corruptions of {plan.protocol.name}')
    if plan.of(CorruptionTask, FlipTask) and relative == (None, None, relative.complete):
        notes.append("no mCE and no mFR: AlexNet's are of ImageNet's 1000 classes, all with images; give another "
                     'baseline')
    elif corrupted and relative.constant and not {*plan.corruptions} <= {*relative.constant.errors}:
        notes.append(f"no mCE: AlexNet's errors on {plan.protocol.name} are not published; give another baseline")
    return notes


def _predicted_among(plan: Plan, model: Classifier, place: Tuple[str, ...]) -> str:
    [task] = [task for task in plan.tasks if task.place == place]
    mask = task.label_map(model).mask
    return (f'{len(mask)} classes of {task.name.removesuffix("-clean")}' if mask is not None else
            f'all {model.details["num_classes"]} classes')


def _assemble(plan: Plan, measured: Measured, unreadable: List[Any], relative: Relative, more: Dict[str, Any],
              precision: str) -> Dict[str, Any]:
    """Return all results, in the form of their type."""
    o, models = plan.options, [model for model, _ in measured]
    reports, missing = make_reports(measured, relative)
    for model, report in zip(models, reports):
        for group in ('test_sets', 'ood'):
            for name, entry in report[group].items():
                entry['predicted_among'] = _predicted_among(plan, model, (group, name))
    notes = [*_notes(plan, models, relative), *missing]
    other_versions = {f'{name} {version}' for _, results in measured for result in results
                      for name, version in result.versions.items() if more['versions'].get(name, version) != version}
    if other_versions:
        notes.append(f'some results were cached earlier, with {", ".join(sorted(other_versions))}')
    if unreadable:
        notes.append(f'{unreadable_line(unreadable)}; they are left out of every condition alike')
    corrupted = bool(plan.of(CorruptionTask))
    values = dict(
        more, schema_version=SCHEMA_VERSION, data=plan.data, unreadable=unreadable, comparisons=[],
        protocol=dict(
            name=plan.protocol.name, text=plan.text,
            images='generated' if plan.libraries else 'published' if corrupted else 'none',
            corruptions=[*plan.corruptions] if corrupted else [], severities=[*SEVERITIES],
            perturbations=[task.name for task in plan.of(FlipTask)], input_size=[*plan.size], seed=o.seed or 0,
            precision=precision, adaptation=plan.adaptation,
            baseline=relative.label or (relative.constant and relative.constant.name)),
        models=[dict(report, label=model.label, **model.details, statistics=None)
                for model, report in zip(models, reports)], notes=[*dict.fromkeys(notes)])
    if o.keep_predictions:
        add_statistics(values, measured, relative, o.seed or 0)
    return values


@with_options(RobustnessOptions)
def evaluate(models: Union[Model, Sequence[Model], Mapping[str, Model]], options: RobustnessOptions) -> Results:
    """Measure models on corrupted images, perturbation sequences, shifted crops and other test sets.

    Under torchrun the ranks share the work and all return the results; on several machines ``output`` must be a shared
    folder.

    Args:
        models: One or several, or a mapping from labels. A model is a name that timm has weights for,
            ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, ``NAME=CHECKPOINT``, or a callable from (N, 3, H, W) uint8 RGB
            images on the device to (N, classes) logits, which normalizes them itself.
        {options}

    Raises:
        UserError: An argument is wrong, a folder or model does not fit, or a package of the extra ``robustness`` is
            missing.
    """
    o = options
    check_packages('robustness', *(['imagecorruptions'] if o.generate else []), *(['av'] if o.imagenet_p else []),
                   *(['scipy'] if o.keep_predictions else []), *(['matplotlib'] if o.output else []))
    if o.seed is not None and not (o.generate or o.shift or o.keep_predictions or o.adapt):
        warnings.warn('seed has no effect: without `generate`, `shift`, `adapt` and `keep_predictions` nothing is '
                      'random', stacklevel=3)
    if o.baseline and not (o.imagenet_c or o.imagenet_p or o.generate):
        warnings.warn('baseline has no effect but being measured too: without `imagenet_c`, `imagenet_p` and '
                      '`generate` nothing is relative to it', stacklevel=3)
    labelled, baseline = label_models(models, o.baseline)
    identities = o.identities or {}
    check_identities(labelled, identities, o.output is not None)
    device = find_device(o.device)
    with ExitStack() as stack:
        ranks = stack.enter_context(Ranks())
        plan = make_plan(o)
        classifiers = [load_classifier(label, model, plan, device, o.amp, identities.get(label))
                       for label, model in labelled.items()]
        precision = str(amp_dtype(device) if o.amp else torch.float32).removeprefix('torch.')
        packages = dict.fromkeys(package for task in plan.tasks for package in task.packages)
        versions = {**package_versions(*packages, *(['scipy'] if o.keep_predictions else [])), **plan.libraries}
        folder = Path(o.output or ranks.from_first(lambda: stack.enter_context(tempfile.TemporaryDirectory())))
        store = TaskCache(Path(o.cache or folder / 'cache'), precision, versions)
        measurement = _measurement(plan, classifiers, baseline, store)
        ranks.from_first(lambda: check_output(folder, measurement))
        loading = Loading(o.batch_size, o.workers, device)
        bar = stack.enter_context(image_bar(disable=not o.progress or ranks.rank > 0))
        run_tasks(plan.tasks, classifiers, store, loading, ranks, bar)
        ranks.barrier()
        # sequences need no classes, but flips of models with other classes do not compare with AlexNet's
        imagenet = {*plan.classes} == {*synsets()} and all(
            model.details['num_classes'] in (1000, 1001) for model in classifiers)
        relative = Relative(baseline, ALEXNET if imagenet and baseline is None else None, plan.complete)

        finished: List[Results] = []

        def finish() -> Dict[str, Any]:
            measured, unreadable = _leave_out(
                [(model, [store.expect(task, model) for task in plan.tasks]) for model in classifiers])
            seconds = {model.label: sum(result.seconds for result in results) for model, results in measured}
            more = dict(versions=versions, measurement=measurement,
                        run=make_run(o, device, ranks.world_size, seconds))
            values = _assemble(plan, measured, unreadable, relative, more, precision)
            finished.append(Results(values, measured if o.keep_predictions else ()))
            if o.output is not None:
                finished[0].write(folder)
            return finished[0].to_dict()
        values = ranks.from_first(finish)  # the other ranks wait until the files are whole
    return finished[0] if finished else Results(values)
