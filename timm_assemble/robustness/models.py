"""Models under test, by name or as callables."""
import functools
import hashlib
import re
from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch

from ..models.loading import error_line, load_source, split_source
from ..utils.accuracy import map_classes
from .datasets.test_sets import LabelMap, LabelSpace, synsets
from .plan import Plan
from .tasks.classify import Classify, LogitsError, compute_logits
from .tasks.task import Classifier

__all__ = ['Model', 'label_models', 'load_classifier', 'map_folders', 'timm_classify']

Model = Union[str, Classify]


def _labels(models: Sequence[Model]) -> List[str]:
    """Return labels: a checkpoint's file name, with its folders where necessary."""
    short = [split_source(model)[0] if isinstance(model, str) else getattr(model, '__name__', type(model).__name__)
             for model in models]
    labels = [model if isinstance(model, str) and split_source(model)[2] and short.count(label) > 1 else label
              for model, label in zip(models, short)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f'models must have distinct labels, got {", ".join(twice)} more than once')
    return labels


def label_models(
        models: Union[Model, Sequence[Model], Mapping[str, Model]], baseline: Optional[str] = None,
) -> Tuple[Dict[str, Model], Optional[str]]:
    """Return label to model, a new baseline first, and the baseline's label."""
    if isinstance(models, Mapping):
        labelled = dict(models)
    else:
        models = [models] if isinstance(models, str) or callable(models) else [*models]
        labelled = dict(zip(_labels(models), models))
    if not labelled:
        raise ValueError('models must be at least one, got none')
    if baseline is None or baseline in labelled:
        return labelled, baseline
    for label, model in labelled.items():
        if model == baseline:
            return labelled, label
    if isinstance(models, Mapping):
        labelled = {_labels([baseline])[0]: baseline, **labelled}
    else:
        labelled = dict(zip(_labels([baseline, *models]), [baseline, *models]))
    return labelled, next(iter(labelled))


def timm_classify(
        model: Any, mean: Sequence[float], std: Sequence[float], size: int, device: torch.device, amp: bool = False,
) -> Classify:
    """Return the callable from (N, 3, size, size) uint8 images to logits; the model is moved to the device."""
    # transformers are built for the size of training
    if size != model.pretrained_cfg['input_size'][-1] and hasattr(model, 'set_input_size'):
        model.set_input_size(img_size=(size, size))
    model = model.to(device)
    shift, scale = (torch.tensor(v, device=device).view(1, -1, 1, 1) * 255 for v in (mean, std))
    dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16

    def classify(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=amp):
            return model(images.float().sub_(shift).div_(scale))
    return classify


def _from_name(label: str, name: str, size: int, device: torch.device, amp: bool) -> Classifier:
    source = load_source(name)
    channels, _, own_size = source.input_size
    if channels != 3:
        raise ValueError(f'models must take images of 3 channels, {name} takes {channels}')
    if source.num_classes < 1:
        raise ValueError(f'models must have a classifier, {name} returns features')
    # weights are not everything: anti-aliasing, for one, has none
    structure = re.sub(r' at 0x[0-9a-f]+', '', repr(source.model))
    shared = dict(architecture=source.architecture, checksum=source.checksum, mean=[*source.mean], std=[*source.std])
    return Classifier(
        label, timm_classify(source.model, source.mean, source.std, size, device, amp),
        dict(shared, structure=hashlib.sha256(structure.encode()).hexdigest()),
        details=dict(shared, source=name, num_classes=source.num_classes, own_size=own_size,
                     parameters=sum(p.numel() for p in source.model.parameters())))


def map_folders(
        space: LabelSpace, classes: Tuple[str, ...], num_classes: int, argument: str, where: str = '',
) -> LabelMap:
    """Return a model's classes of the folders of a test set; ValueError if the model has others."""
    imagenet = num_classes in (1000, 1001)
    background = num_classes - 1000  # official checkpoints have class 0 for it
    if (space.folders not in ('any', 'none') or space.mask) and not imagenet:
        raise ValueError(f"{argument} must be a model of ImageNet's 1000 classes, got {num_classes}")
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
    found = map_classes(classes, num_classes, argument, where)
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
            details = dict.fromkeys(('architecture', 'checksum', 'own_size', 'mean', 'std', 'parameters'))
            classifier = Classifier(label, model, dict(callable=identity),
                                    details=dict(details, source=f'callable {identity}'))
        logits = compute_logits(classifier.classify, torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device))
    except (AssertionError, RuntimeError) as e:
        raise ValueError(f'models must take images of {size} x {size}, {label} does not: {error_line(e)}') from e
    except LogitsError as e:
        raise ValueError(f'models must return logits, {label} does not: {e}') from e
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
