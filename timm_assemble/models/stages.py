"""Stem and stages put together from convolutions and blocks, by arguments.

Knows torch, timm's layers and the other layers of this folder.
"""
from functools import partial
from typing import Any, Callable, Dict, Optional, Sequence

from timm.layers import LayerType
from torch import nn

from ..layers.big_little import BigLittleStage, BigLittleStem
from ..layers.bottleneck import Bottleneck
from ..layers.shortcut import ProjectionShortcut

__all__ = ['make_stem', 'make_blocks', 'make_big_little_stage']


def make_stem(
        in_chans: int, width: int, deep: bool, big_little: Optional[Sequence[int]], conv: Callable[..., nn.Module],
) -> nn.Sequential:
    """Stride 2 (Big-Little: 4), ``width`` channels."""
    if deep:
        stem = nn.Sequential(
            conv(in_chans, width // 2, 3, stride=2), conv(width // 2, width // 2, 3), conv(width // 2, width, 3))
    else:
        stem = nn.Sequential(conv(in_chans, width, 7, stride=2))
    if big_little is not None:
        thin = width // big_little[0]
        stem.append(BigLittleStem(
            big=conv(width, width, 3, stride=2, apply_act=False),
            little=nn.Sequential(
                conv(width, thin, 3), conv(thin, thin, 3, stride=2), conv(thin, width, 1, apply_act=False)),
            merge=conv(width, width, 1),
        ))
    return stem


def make_blocks(
        in_chs: int,
        width: int,
        depth: int,
        stride: int,
        shortcut: str,
        aa_shortcut: bool = False,
        act_last: bool = True,
        drop_layer: Optional[Callable[[], nn.Module]] = None,
        norm_layer: LayerType = nn.BatchNorm2d,
        aa_size: int = 0,
        attn: Optional[str] = None,
        device=None,
        dtype=None,
) -> nn.Sequential:
    """``depth`` bottlenecks, of which the first has the stride and always a projection shortcut."""
    common: Dict[str, Any] = dict(norm_layer=norm_layer, drop_layer=drop_layer, device=device, dtype=dtype)
    projection = ProjectionShortcut(
        in_chs, Bottleneck.expansion * width, stride, kind=shortcut, aa_size=aa_size if aa_shortcut else 0, **common)
    blocks = nn.Sequential()
    for i in range(depth):
        blocks.append(Bottleneck(
            in_chs if i == 0 else Bottleneck.expansion * width,
            width,
            stride=stride if i == 0 else 1,
            shortcut=projection if i == 0 else None,
            attn=attn,
            aa_size=aa_size,
            act_last=act_last or i < depth - 1,
            **common,
        ))
    return blocks


def make_big_little_stage(
        in_chs: int, width: int, depth: int, stride: int, big_little: Sequence[int],
        blocks: Callable[..., nn.Module], conv: Callable[..., nn.Module],
) -> BigLittleStage:
    """``depth - 1`` blocks at half resolution beside a thin and shallow branch, then one block to merge them."""
    alpha, beta = big_little
    big_depth, little_depth, thin = depth - 1, max(1, depth // beta - 1), width // alpha
    blocks = partial(blocks, shortcut='big_little')
    little: Any = blocks(in_chs, thin, little_depth, 1)
    little.append(conv(Bottleneck.expansion * thin, Bottleneck.expansion * width, 1, apply_act=False))
    return BigLittleStage(
        # the last ReLU is left to the sum, but a single block keeps its own, as the official code has it
        big=blocks(in_chs, width, big_depth, 2, act_last=big_depth == 1),
        little=little,
        merge=blocks(Bottleneck.expansion * width, width, 1, stride),
    )
