"""Arguments of the network: their ranges, and layers given by name or class."""
from functools import partial
from inspect import signature
from typing import Any

from timm.layers import BlurPool2d, LayerType, get_act_layer, get_norm_act_layer

from ..errors import check

__all__ = ['resolve_aa_size', 'resolve_act_layer', 'resolve_norm_layer']


def resolve_act_layer(act_layer: LayerType) -> LayerType:
    """Return an activation layer, given by timm's name or as a class."""
    try:
        layer = get_act_layer(act_layer)
    except KeyError:
        layer = None
    check(callable(layer), 'act_layer', act_layer, "a class, or a name of timm such as 'relu' or 'silu'")
    return layer


def resolve_norm_layer(norm_layer: LayerType, eps: float, momentum: float) -> LayerType:
    """Return a normalisation layer, given by timm's name or as a class; batch norms get ``eps`` and ``momentum``.

    What a ``functools.partial`` of a batch norm sets stays.
    """
    try:
        layer = get_norm_act_layer(norm_layer)
    except (AssertionError, KeyError):
        layer = None
    check(callable(layer), 'norm_layer', norm_layer, "a class, or a name of timm such as 'batchnorm2d' or 'groupnorm'")
    layer = layer.func if isinstance(layer, partial) else layer
    batch_norm = dict(eps=eps, momentum=momentum) if 'momentum' in signature(layer).parameters else {}
    return partial(layer, **{**batch_norm, **getattr(norm_layer, 'keywords', {})})


def resolve_aa_size(aa_layer: Any, aa_size: int) -> int:
    """Return the size of the anti-aliasing filter: 3 for timm's ``aa_layer='blur'``, else ``aa_size``."""
    if not aa_layer:
        return aa_size
    blur = aa_layer is BlurPool2d or aa_layer in ('blur', 'blurpool')
    check(blur, 'aa_layer', aa_layer, "'blur', which is aa_size=3, or None")
    check(aa_size in (0, 3), 'aa_size', aa_size, "0 or 3 where aa_layer is 'blur'")
    return 3
