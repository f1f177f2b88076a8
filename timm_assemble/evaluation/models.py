"""Models under test, by name or as callables from pixels: labels, identities, and what results say of them."""
import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch

from ..data.images import printable
from ..data.preprocessing import Preprocessing, normalize
from ..errors import UserError
from ..models.loading import ModelSource, load_source, split_source
from ..runtime.device import amp_dtype
from .results import file_names

__all__ = [
    'EvaluatedModel', 'FromPixels', 'Model', 'OutputError', 'callable_details', 'check_identities', 'compute_outputs',
    'from_pixels', 'label_models', 'load_rgb_source', 'model_details', 'model_identity']

FromPixels = Callable[[torch.Tensor], torch.Tensor]
Model = Union[str, FromPixels]


class OutputError(UserError):
    """A model returns something else than one finite row for each image."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """A model under test.

    Attributes:
        label: Its name in results.
        compute: From (N, 3, H, W) uint8 RGB images on the device to (N, C).
        identity: Distinguishes its outputs from those of all others.
        details: What the results say of it.
        is_callable: Whether it is the user's function, which may write into its images.
    """

    label: str
    compute: FromPixels
    identity: Dict[str, Any]
    details: Dict[str, Any] = field(default_factory=dict)
    is_callable: bool = True


def _labels(models: Sequence[Model]) -> List[str]:
    """Return labels: a checkpoint's file name, with its folders where necessary."""
    short = [printable(split_source(model)[0]) if isinstance(model, str) else
             getattr(model, '__name__', type(model).__name__) for model in models]
    labels = [printable(model) if short.count(label) > 1 and isinstance(model, str) and split_source(model)[2] else
              label for model, label in zip(models, short)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f'models must have distinct labels, got {", ".join(twice)} more than once')
    return labels


def label_models(
        models: Union[Model, Sequence[Model], Mapping[str, Model]], baseline: Optional[str] = None,
) -> Tuple[Dict[str, Model], Optional[str]]:
    """Return label to model, a new baseline first, and the baseline's label.

    Raises:
        UserError: There is no model, or two labels are equal or would name one file.
    """
    labelled, baseline = _labelled(models, baseline)
    file_names(labelled, 'models')
    return labelled, baseline


def _labelled(
        models: Union[Model, Sequence[Model], Mapping[str, Model]], baseline: Optional[str],
) -> Tuple[Dict[str, Model], Optional[str]]:
    if isinstance(models, Mapping):
        labelled = dict(models)
    else:
        models = [models] if isinstance(models, str) or callable(models) else [*models]
        labelled = dict(zip(_labels(models), models))
    if not labelled:
        raise UserError('models must be at least one, got none')
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


def check_identities(labelled: Mapping[str, Model], identities: Mapping[str, str], cached: bool) -> None:
    """Check that callables, and only they, have distinct identities; they need them if results are cached."""
    callables = [label for label, model in labelled.items() if not isinstance(model, str)]
    unknown = [label for label in identities if label not in callables]
    if unknown:
        raise UserError(f'identities must be of callables, {callables or "none"} here, got {unknown}')
    if len({*identities.values()}) < len(identities):
        raise UserError(f'identities must be distinct, got {dict(identities)}')
    missing = [label for label in callables if label not in identities]
    if cached and missing:
        raise UserError(f'identities must say which weights {", ".join(missing)} has, because `output` caches results')


def from_pixels(
        model: Any, preprocessing: Preprocessing, device: torch.device, amp: bool = False,
        forward: Optional[FromPixels] = None,
) -> FromPixels:
    """Return the callable from (N, 3, H, W) uint8 images to outputs of the model, or of a ``forward`` through it.

    The model is moved to the device.
    """
    # transformers are built for the size of training
    if preprocessing.size != tuple(model.pretrained_cfg['input_size'][1:]) and hasattr(model, 'set_input_size'):
        model.set_input_size(img_size=preprocessing.size)
    forward, dtype = forward or model.to(device), amp_dtype(device)
    model.to(device)
    mean, std = preprocessing.statistics(device)

    def compute(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=amp):
            return forward(normalize(images, mean, std))
    return compute


@torch.inference_mode()
def compute_outputs(compute: FromPixels, images: torch.Tensor, name: str, columns: str) -> torch.Tensor:
    """Return the outputs of images as float32; OutputError if they are not (N, ``columns``) or not finite."""
    outputs = compute(images)
    shape = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else ()
    if len(shape) != 2 or shape[0] != len(images):
        raise OutputError(f'{name} must be ({len(images)}, {columns}), got {shape or type(outputs).__name__}')
    outputs = outputs.float()
    wrong = ~outputs.isfinite().all(1)
    if wrong.any():
        raise OutputError(f'{name} must be finite, got others for {int(wrong.sum())} of {len(outputs)} images')
    return outputs


def model_identity(source: ModelSource) -> Dict[str, Any]:
    """Return what distinguishes a model's outputs from those of all others.

    Weights are not everything: anti-aliasing, for one, has none.
    """
    structure = re.sub(r' at 0x[0-9a-f]+', '', repr(source.model))
    return dict(architecture=source.architecture, checksum=source.checksum, mean=[*source.preprocessing.mean],
                std=[*source.preprocessing.std], structure=hashlib.sha256(structure.encode()).hexdigest())


def model_details(name: str, source: ModelSource) -> Dict[str, Any]:
    """Return what results say of a model by name."""
    steps = source.preprocessing
    return dict(source=printable(name), architecture=source.architecture, checksum=source.checksum, mean=[*steps.mean],
                std=[*steps.std], own_size=[*steps.size], parameters=sum(p.numel() for p in source.model.parameters()))


def callable_details(identity: str) -> Dict[str, Any]:
    """Return what results say of a callable."""
    return dict.fromkeys(('architecture', 'checksum', 'own_size', 'mean', 'std', 'parameters'), None) | dict(
        source=f'callable {identity}')


def load_rgb_source(name: str, **model_args: Any) -> ModelSource:
    """Load a model by name that takes images of 3 channels."""
    source = load_source(name, **model_args)
    if source.preprocessing.channels != 3:
        raise UserError(f'models must take images of 3 channels, {name} takes {source.preprocessing.channels}')
    return source
