"""Models under test, by name or as callables."""
import functools
from dataclasses import replace
from typing import Optional, Tuple

import torch

from ..errors import UserError, error_line
from ..evaluation.models import (
    Model, OutputError, callable_details, from_pixels, load_rgb_source, model_details, model_identity,
)
from ..data.classes import ClassMap
from .datasets.test_sets import LabelMap, LabelSpace, synsets
from .plan import Plan
from .tasks.classify import compute_logits
from .tasks.task import Classifier

__all__ = ['load_classifier', 'map_folders']


def _from_name(label: str, name: str, size: int, device: torch.device, amp: bool) -> Classifier:
    source = load_rgb_source(name)
    if source.num_classes < 1:
        raise UserError(f'models must have a classifier, {name} returns features')
    return Classifier(
        label, from_pixels(source.model, source.preprocessing.mean, source.preprocessing.std, size, device, amp),
        model_identity(source),
        details=dict(model_details(name, source), num_classes=source.num_classes))


def map_folders(
        space: LabelSpace, classes: Tuple[str, ...], num_classes: int, argument: str, where: str = '',
) -> LabelMap:
    """Return a model's classes of the folders of a test set; ValueError if the model has others."""
    imagenet = num_classes in (1000, 1001)
    background = num_classes - 1000  # official checkpoints have class 0 for it
    if (space.folders not in ('any', 'none') or space.mask) and not imagenet:
        raise UserError(f"{argument} must be a model of ImageNet's 1000 classes, got {num_classes}")
    mask = None
    if space.mask:
        numbers = {name: i + background for i, name in enumerate(synsets())}
        mask = tuple(numbers[name] for name in space.mask)
    if space.folders == 'none':
        return LabelMap((), mask)
    if space.targets is not None:
        return LabelMap(tuple(tuple(c + background for c in targets) for targets in space.targets))
    if space.folders == 'numbers':
        return LabelMap(tuple((int(name) + background,) for name in classes))
    found = ClassMap.of_count(num_classes).find(classes, argument, where).indices
    return LabelMap(tuple((found[name],) for name in classes), mask)


def load_classifier(
        label: str, model: Model, plan: Plan, device: torch.device, amp: bool = False, identity: Optional[str] = None,
) -> Classifier:
    """Load a model, try it on one image and map the class folders to its classes.

    ``identity`` distinguishes a callable from all others; its label by default.
    """
    size, identity = plan.size, identity or label
    try:
        if isinstance(model, str):
            classifier = _from_name(label, model, size, device, amp)
        else:
            classifier = Classifier(label, model, dict(callable=identity), details=callable_details(identity))
        logits = compute_logits(classifier.classify, torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device))
    except (AssertionError, RuntimeError) as e:
        raise UserError(f'models must take images of {size} x {size}, {label} does not: {error_line(e)}') from e
    except OutputError as e:
        raise UserError(f'models must return logits, {label} does not: {e}') from e
    num_classes = classifier.details.setdefault('num_classes', logits.shape[1])

    @functools.cache
    def label_map(space: LabelSpace, classes: Tuple[str, ...]) -> LabelMap:
        parameter = next((name for name in ('generate', 'clean', 'imagenet_c') if getattr(plan.request, name)), '')
        task = next(t for t in plan.tasks if t.label_space == space and t.classes == classes)
        if task.group in ('test_set', 'ood', 'reference'):
            parameter = f'{"ood" if task.group == "ood" else "test_sets"} {task.name}'
        return map_folders(space, classes, num_classes, f'{parameter} for {label}', f' in {task.folder}')
    for task in plan.tasks:
        if task.labelled:
            label_map(task.label_space, task.classes)
    return replace(classifier, label_map=label_map)
