"""From images to embeddings: any model of timm with a choice of its head, or a callable."""
import inspect
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional, Tuple

import torch
from torch import nn

from ..data.preprocessing import Preprocessing, size_text
from ..errors import UserError, error_line
from ..evaluation.models import (
    FromPixels, Model, EvaluatedModel, callable_details, compute_outputs, from_pixels, load_rgb_source, model_details,
    model_identity,
)
from ..layers import gem_pool_2d
from ..models.loading import ModelSource

__all__ = ['HEADS', 'Embedder', 'compute_embeddings', 'load_embedder']

HEADS = ('model', 'avg', 'gem', 'flat', 'embedding')


@dataclass(frozen=True, kw_only=True)
class Embedder(EvaluatedModel):
    """A model under test; ``pixels`` makes them of an image, 8 bits each."""

    pixels: Preprocessing


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
    return features.mean((2, 3)) if head == 'avg' else gem_pool_2d(features).flatten(1)


def _has_embedding(model: Any) -> bool:
    """Return whether a layer with weights stands between pooling and classifier."""
    if hasattr(model, 'embedding_args'):  # of this package's models
        return model.embedding_args is not None
    return getattr(model, 'head_hidden_size', None) != model.num_features


def _drop_activation(model: Any) -> None:
    """Drop the activation after the embedding of this package's models: the official code compares what precedes it."""
    embedding = getattr(model, 'embedding', None)
    for module in embedding.modules() if isinstance(embedding, nn.Module) else ():
        if hasattr(module, 'act'):
            module.act = nn.Identity()


def _load(name: str, last_stride: Optional[int]) -> ModelSource:
    if last_stride is None:
        return load_rgb_source(name)
    missing = UserError(f"last_stride must not be given for {name}: it is an argument of this package's models alone")
    try:
        source = load_rgb_source(name, last_stride=last_stride)
    except UserError as e:
        raise missing if "'last_stride'" in str(e) else e from e
    if 'last_stride' not in inspect.signature(type(source.model)).parameters:
        raise missing
    return source


def load_embedder(
        label: str, model: Model, device: torch.device, *, head: str = 'model', last_stride: Optional[int] = None,
        input_size: Optional[Tuple[int, int]] = None, crop_pct: Optional[float] = None, amp: bool = False,
        identity: Optional[str] = None,
) -> Embedder:
    """Load a model and try it on one image; ``identity`` distinguishes a callable from all others."""
    if isinstance(model, str):
        source = _load(model, last_stride)
        if head == 'embedding' and not _has_embedding(source.model):
            raise UserError(f'head embedding needs a layer between pooling and classifier, {label} has none')
        if head == 'embedding':
            _drop_activation(source.model)
        preprocessing = source.preprocessing.with_size(input_size, crop_pct)
        decides, details = model_identity(source), model_details(model, source)  # of the weights before another size
        embed = from_pixels(source.model, preprocessing, device, amp, partial(_forward, source.model, head))
    else:
        if head != 'model' or last_stride is not None:
            raise UserError(f'head and `last_stride` are for models by name, {label} is a callable')
        if input_size is None:
            raise UserError(f'input_size must be given for a callable, {label}')
        preprocessing = Preprocessing((3, *input_size)).with_size(crop_pct=crop_pct)
        embed, decides, details = model, dict(callable=identity or label), callable_details(identity or label)
    pixels = replace(preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3)  # the model normalizes
    blank = torch.zeros(1, 3, *pixels.size, dtype=torch.uint8, device=device)
    try:
        dimensions = compute_embeddings(embed, blank).shape[1]
    except torch.cuda.OutOfMemoryError:
        raise
    except (UserError, AssertionError, RuntimeError, TypeError, AttributeError) as e:
        raise UserError(f'models must return embeddings of images of {size_text(pixels.size)} with head {head}, '
                        f'{label} does not: {error_line(e)}') from e
    about = dict(input_size=[*pixels.size], crop_pct=pixels.crop_pct, interpolation=pixels.interpolation,
                 crop_mode=pixels.crop_mode)
    return Embedder(label=label, compute=embed, pixels=pixels, is_callable=not isinstance(model, str),
                    identity=dict(decides, head=head, preprocessing=about),
                    details=dict(details, **about, dimensions=dimensions))
