"""From images to embeddings: any model of timm with a choice of its head, or a callable."""
import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Dict, NamedTuple, Optional

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform

from ..errors import UserError, error_line
from ..evaluation.models import (
    FromPixels, Model, callable_details, compute_outputs, from_pixels, load_rgb_source, model_details, model_identity,
)
from ..layers import gem_pool_2d
from ..models.loading import ModelSource

__all__ = ['HEADS', 'Embedder', 'Preprocessing', 'compute_embeddings', 'load_embedder']

HEADS = ('model', 'avg', 'gem', 'flat', 'embedding')


class Preprocessing(NamedTuple):
    """How an image becomes the model's input, as timm does it for tests."""

    input_size: int
    crop_pct: float
    interpolation: str
    crop_mode: str = 'center'

    def transform(self) -> Callable[[Image.Image], np.ndarray]:
        """Return the function from an RGB image to (3, S, S) uint8."""
        return create_transform(self.input_size, interpolation=self.interpolation, crop_pct=self.crop_pct,
                                crop_mode=self.crop_mode, use_prefetcher=True)


@dataclass(frozen=True)
class Embedder:
    """A model under test."""

    label: str
    embed: FromPixels
    preprocessing: Preprocessing
    identity: Dict[str, Any]  # distinguishes its embeddings from those of all others
    details: Dict[str, Any] = field(default_factory=dict)  # what the results say of it


def compute_embeddings(embed: FromPixels, images: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of images as float32; OutputError if they are not (N, D) or not finite."""
    return compute_outputs(embed, images, 'embeddings', 'D')


def _feature_map(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return the last feature map as (B, C, H, W); patch tokens are one of width 1."""
    features = model.forward_features(x)
    shape = tuple(getattr(features, 'shape', ()))
    if len(shape) == 3:
        return features[:, getattr(model, 'num_prefix_tokens', 0):].transpose(1, 2)[..., None]
    if len(shape) != 4:
        raise UserError(f'there must be a feature map for this `head`, got {shape or type(features).__name__}')
    channels_last = getattr(model, 'output_fmt', 'NCHW') == 'NHWC' or (
        shape[1] != model.num_features and shape[3] == model.num_features)
    return features.permute(0, 3, 1, 2) if channels_last else features


def _forward(model: Any, head: str, x: torch.Tensor) -> torch.Tensor:
    if head in ('model', 'embedding'):
        return model.forward_head(model.forward_features(x), pre_logits=True)
    features = _feature_map(model, x)
    if head == 'flat':
        return features.flatten(1)
    # the root of a mean of cubes is meant for what follows a ReLU; other activations are a little below 0
    return features.mean((2, 3)) if head == 'avg' else gem_pool_2d(features.clamp(min=0)).flatten(1)


def _has_embedding(model: Any) -> bool:
    """Return whether a layer with weights stands between pooling and classifier."""
    size = getattr(getattr(model, 'head', None), 'embedding_size', None)  # of this package's models
    return bool(size) if size is not None else getattr(model, 'head_hidden_size', None) != model.num_features


def _load(name: str, last_stride: Optional[int]) -> ModelSource:
    if last_stride is None:
        return load_rgb_source(name)
    missing = UserError(f"last_stride must not be given for {name}: it is an argument of this package's models alone")
    try:
        source = load_rgb_source(name, last_stride=last_stride)
    except ValueError as e:
        raise missing if "'last_stride'" in str(e) else e from e
    if 'last_stride' not in inspect.signature(type(source.model)).parameters:
        raise missing
    return source


def load_embedder(
        label: str, model: Model, device: torch.device, *, head: str = 'model', last_stride: Optional[int] = None,
        input_size: Optional[int] = None, crop_pct: Optional[float] = None, amp: bool = False,
        identity: Optional[str] = None,
) -> Embedder:
    """Load a model and try it on one image; ``identity`` distinguishes a callable from all others."""
    if head not in HEADS:
        raise UserError(f'head must be one of {", ".join(HEADS)}, got {head!r}')
    if isinstance(model, str):
        source = _load(model, last_stride)
        if head == 'embedding' and not _has_embedding(source.model):
            raise UserError(f'head embedding needs a layer between pooling and classifier, {label} has none')
        preprocessing = Preprocessing(
            input_size or source.preprocessing.size[1], crop_pct or source.preprocessing.crop_pct,
            source.preprocessing.interpolation, source.preprocessing.crop_mode)
        mean, std = source.preprocessing.mean, source.preprocessing.std
        embed = from_pixels(source.model, mean, std, preprocessing.input_size, device, amp,
                            partial(_forward, source.model, head))
        decides, details = model_identity(source), model_details(model, source)
    else:
        if head != 'model' or last_stride is not None:
            raise UserError(f'head and `last_stride` are for models by name, {label} is a callable')
        if input_size is None:
            raise UserError(f'input_size must be given for a callable, {label}')
        preprocessing = Preprocessing(input_size, crop_pct or 0.875, 'bilinear')
        embed, decides, details = model, dict(callable=identity or label), callable_details(identity or label)
    size = preprocessing.input_size
    try:
        dimensions = compute_embeddings(embed, torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)).shape[1]
    except torch.cuda.OutOfMemoryError:
        raise
    except (ValueError, AssertionError, RuntimeError, TypeError, AttributeError) as e:
        raise UserError(f'models must return embeddings of images of {size} x {size} with head {head}, {label} does '
                         f'not: {error_line(e)}') from e
    return Embedder(label, embed, preprocessing, dict(decides, head=head, preprocessing=[*preprocessing]),
                    dict(details, **preprocessing._asdict(), dimensions=dimensions))
