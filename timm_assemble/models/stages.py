"""Stem and stages of the network, built from convolutions and blocks."""
from functools import partial
from typing import Any, Callable, Dict, Optional, Sequence

from timm.layers import ConvNormAct, LayerType
from torch import nn

from ..layers import BigLittleStage, BigLittleStem, Bottleneck, ProjectionShortcut

__all__ = ['make_stem', 'make_blocks', 'make_big_little_stage']


def make_stem(
        in_chans: int,
        width: int,
        deep: bool,
        big_little: Optional[Sequence[int]],
        norm_layer: LayerType = nn.BatchNorm2d,
        device=None,
        dtype=None,
) -> nn.Sequential:
    """Build a stem of stride 2, or 4 with Big-Little, and ``width`` output channels."""
    conv: Callable[..., nn.Module] = partial(ConvNormAct, norm_layer=norm_layer, device=device, dtype=dtype)
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
        attn: Optional[str] = None,
        aa_size: int = 0,
        aa_shortcut: bool = False,
        act_last: bool = True,
        norm_layer: LayerType = nn.BatchNorm2d,
        drop_layer: Optional[Callable[[], nn.Module]] = None,
        device=None,
        dtype=None,
) -> nn.Sequential:
    """Build bottlenecks; the first has the stride and a projection shortcut."""
    out_chs = Bottleneck.expansion * width
    common: Dict[str, Any] = dict(norm_layer=norm_layer, drop_layer=drop_layer, device=device, dtype=dtype)
    projection = ProjectionShortcut(
        in_chs, out_chs, stride, kind=shortcut, aa_size=aa_size if aa_shortcut else 0, **common)
    blocks = nn.Sequential()
    for i in range(depth):
        blocks.append(Bottleneck(
            in_chs if i == 0 else out_chs,
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
        in_chs: int,
        width: int,
        depth: int,
        stride: int,
        big_little: Sequence[int],
        attn: Optional[str] = None,
        aa_size: int = 0,
        norm_layer: LayerType = nn.BatchNorm2d,
        drop_layer: Optional[Callable[[], nn.Module]] = None,
        device=None,
        dtype=None,
) -> BigLittleStage:
    """Build ``depth - 1`` big blocks, a thin and shallow branch, and a merging block."""
    alpha, beta = big_little
    big_depth, little_depth, thin = depth - 1, max(1, depth // beta - 1), width // alpha
    out_chs, thin_chs = Bottleneck.expansion * width, Bottleneck.expansion * thin
    dd: Dict[str, Any] = dict(device=device, dtype=dtype)
    common: Dict[str, Any] = dict(
        shortcut='big_little', attn=attn, aa_size=aa_size, norm_layer=norm_layer, drop_layer=drop_layer, **dd)
    little = make_blocks(in_chs, thin, little_depth, stride=1, **common)
    little.append(ConvNormAct(thin_chs, out_chs, 1, apply_act=False, norm_layer=norm_layer, **dd))
    return BigLittleStage(
        # the sum applies the last ReLU, but a single block keeps its own, as in the official code
        big=make_blocks(in_chs, width, big_depth, stride=2, act_last=big_depth == 1, **common),
        little=little,
        merge=make_blocks(out_chs, width, 1, stride, **common),
    )
