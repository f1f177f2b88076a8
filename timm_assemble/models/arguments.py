"""Arguments that the families of networks share: their ranges, layers given by name or class, a blur's size."""
from functools import partial
from typing import Any, Dict, Sequence

from timm.layers import BlurPool2d, LayerType, get_act_layer
from torch import nn

from ..errors import check
from ..layers import resolve_norm_layer

__all__ = ['POOLS', 'check_classifier', 'check_network', 'resolve_aa_size', 'resolve_layers']

POOLS = ('', 'avg', 'max', 'avgmax', 'catavgmax', 'fast', 'fastavg', 'fastmax', 'fastavgmax', 'fastcatavgmax')


def check_network(num_classes: int, global_pool: str, in_chans: int, width: int, output_stride: int, bn_eps: float,
                  bn_momentum: float, **rates: float) -> None:
    """Check the arguments that both families have."""
    check(global_pool != '' or num_classes <= 0, 'num_classes', num_classes, "0 where global_pool is ''")
    check(in_chans > 0, 'in_chans', in_chans, 'positive')
    check(width > 0 and width % 8 == 0, 'width', width, 'a positive multiple of 8')
    check(output_stride in (8, 16, 32), 'output_stride', output_stride, '8, 16 or 32')
    check(bn_eps > 0, 'bn_eps', bn_eps, 'positive')
    for name, rate in dict(bn_momentum=bn_momentum, **rates).items():
        check(0 <= rate <= 1, name, rate, 'from 0 to 1')


def check_classifier(num_classes: int, global_pool: str, pools: Sequence[str] = POOLS) -> None:
    """Check the arguments of ``reset_classifier``."""
    check(global_pool in pools, 'global_pool', global_pool, f'one of {pools}')
    check(num_classes >= 0, 'num_classes', num_classes, '0 or more')
    check(global_pool != 'flatten' or num_classes == 0, 'num_classes', num_classes, "0 where global_pool is 'flatten'")


def _make_act(layer: Any, device: Any, dtype: Any, **kwargs: Any) -> nn.Module:
    return layer(**kwargs).to(device=device, dtype=dtype)  # PReLU has parameters


def resolve_layers(
        act_layer: LayerType, norm_layer: LayerType, bn_eps: float, bn_momentum: float, device: Any, dtype: Any,
) -> Dict[str, Any]:
    """Return activation and normalization layers, given by timm's names or as classes, and device and dtype."""
    try:
        act: Any = get_act_layer(act_layer)
    except KeyError:
        act = None
    check(callable(act), 'act_layer', act_layer, "a class, or a name of timm such as 'relu' or 'silu'")
    return dict(
        act_layer=partial(_make_act, act, device, dtype), device=device, dtype=dtype,
        norm_layer=resolve_norm_layer(norm_layer, eps=bn_eps, momentum=bn_momentum))


def resolve_aa_size(aa_layer: Any, aa_size: int) -> int:
    """Return the size of the anti-aliasing filter: 3 for timm's ``aa_layer='blur'``, else ``aa_size``."""
    if aa_layer:
        blur = aa_layer is BlurPool2d or aa_layer in ('blur', 'blurpool')
        check(blur, 'aa_layer', aa_layer, "'blur', which is aa_size=3, or None")
        check(aa_size in (0, 3), 'aa_size', aa_size, "0 or 3 where aa_layer is 'blur'")
        return 3
    check(aa_size in (0, 2, 3, 4, 5, 6, 7), 'aa_size', aa_size, '0 or from 2 to 7')
    return aa_size
