"""Stem and stages of the network, built from convolutions and blocks."""
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from timm.layers import DropPath, LayerType
from torch import nn

from ..layers import (
    BigLittleStage, BigLittleStem, Bottleneck, ConvNormAct, DropBlock2d, MaxPool2dSame, ProjectionShortcut,
)

__all__ = ['make_stem', 'make_stem_pool', 'make_stages', 'make_blocks', 'make_branches']


def make_stem(in_chans: int, width: int, deep: bool, **common: Any) -> nn.Sequential:
    """Build the convolutions of stride 2, with ``width`` output channels; ``common`` are :class:`ConvNormAct`'s."""
    if not deep:
        return nn.Sequential(ConvNormAct(in_chans, width, 7, stride=2, **common))
    return nn.Sequential(
        ConvNormAct(in_chans, width // 2, 3, stride=2, **common), ConvNormAct(width // 2, width // 2, 3, **common),
        ConvNormAct(width // 2, width, 3, **common))


def make_stem_pool(width: int, big_little: Optional[Sequence[int]], **common: Any) -> nn.Module:
    """Build what subsamples the stem's output by 2: the Big-Little stem, or a max-pool."""
    if big_little is None:
        return MaxPool2dSame()
    thin, no_act = width // big_little[0], dict(common, act_layer=None)
    return BigLittleStem(
        big=ConvNormAct(width, width, 3, stride=2, **no_act),
        little=nn.Sequential(
            ConvNormAct(width, thin, 3, **common), ConvNormAct(thin, thin, 3, stride=2, **common),
            ConvNormAct(thin, width, 1, **no_act)),
        merge=ConvNormAct(width, width, 1, **common),
        act_layer=common['act_layer'])


def make_stages(
        width: int,
        drop_paths: Sequence[Sequence[float]],
        last_stride: int,
        output_stride: int,
        shortcut: str,
        aa_shortcut: bool,
        big_little: Optional[Sequence[int]],
        drop_block_rate: float,
        **common: Any,
) -> Tuple[List[nn.Module], List[Dict[str, Any]]]:
    """Build the four stages, and the entry of ``feature_info`` of each.

    A Big-Little stage ends in the sum of its branches, a level of the feature pyramid. The block that merges the sum
    opens the next stage. From ``output_stride`` on, dilations replace the strides.

    Args:
        width: Width of stage 1's bottlenecks, which doubles with every stage.
        drop_paths: Drop path rates of the blocks of every stage.
        last_stride: Stride of stage 4.
        output_stride: Largest stride of a stage's output.
        shortcut, aa_shortcut: Of the stages without Big-Little.
        big_little: Factors of the little branches of stages 1 to 3, or None.
        drop_block_rate: DropBlock rate in stages 3 and 4, or 0.
        common: Arguments of all blocks.
    """
    stages: List[nn.Module] = []
    feature_info: List[Dict[str, Any]] = []
    merge_args: Dict[str, Any] = {}
    in_chs, net_stride, dilation = width, 4, 1
    for i, stride in enumerate((1, 2, 2, last_stride)):
        first_dilation = dilation
        if net_stride < output_stride:
            net_stride *= stride
        else:
            stride, dilation = 1, dilation * stride
        spacing: Dict[str, Any] = dict(stride=stride, dilation=dilation, first_dilation=first_dilation)
        args: Dict[str, Any] = dict(common, width=width * 2 ** i)
        if drop_block_rate and i >= 2:
            args['drop_layer'] = partial(DropBlock2d, drop_block_rate, 7, 0.25 if i == 2 else 1.0, common['device'])
        if big_little and i < 3:
            merge: Any = make_blocks(in_chs, **merge_args, **spacing) if i else None
            big, little = make_branches(in_chs, drop_paths[i][:-1], big_little, dilation, **args)
            stages.append(BigLittleStage(big, little, merge, common['act_layer']))
            merge_args = dict(args, drop_paths=drop_paths[i][-1:])
        else:
            merge = make_blocks(in_chs, **merge_args, dilation=first_dilation) if big_little else ()
            blocks = make_blocks(
                in_chs, drop_paths=drop_paths[i], shortcut=shortcut, aa_shortcut=aa_shortcut, **spacing, **args)
            stages.append(nn.Sequential(*merge, *blocks))
        in_chs = Bottleneck.expansion * args['width']
        feature_info.append(dict(num_chs=in_chs, reduction=net_stride, module=f'stages.{i}'))
    return stages, feature_info


def make_blocks(
        in_chs: int,
        width: int,
        drop_paths: Sequence[float],
        stride: int = 1,
        dilation: int = 1,
        first_dilation: Optional[int] = None,
        shortcut: str = 'big_little',
        attn: Optional[str] = None,
        aa_size: int = 0,
        aa_shortcut: bool = False,
        act_last: bool = True,
        norm_layer: LayerType = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
        drop_layer: Optional[Callable[[], nn.Module]] = None,
        device: Any = None,
        dtype: Any = None,
) -> nn.Sequential:
    """Build a bottleneck for each drop path rate; the first has the stride and a projection shortcut."""
    out_chs = Bottleneck.expansion * width
    spacing: Dict[str, Any] = dict(stride=stride, dilation=dilation, first_dilation=first_dilation)
    common: Dict[str, Any] = dict(norm_layer=norm_layer, drop_layer=drop_layer, device=device, dtype=dtype)
    projection = ProjectionShortcut(
        in_chs, out_chs, kind=shortcut, aa_size=aa_size if aa_shortcut else 0, **spacing, **common)
    blocks = nn.Sequential()
    for i, rate in enumerate(drop_paths):
        blocks.append(Bottleneck(
            in_chs if i == 0 else out_chs,
            width,
            shortcut=projection if i == 0 else None,
            attn=attn,
            aa_size=aa_size,
            act_last=act_last or i < len(drop_paths) - 1,
            act_layer=act_layer,
            drop_path=DropPath(rate) if rate > 0 else None,
            **(spacing if i == 0 else dict(dilation=dilation)),
            **common,
        ))
    return blocks


def make_branches(
        in_chs: int,
        drop_paths: Sequence[float],
        big_little: Sequence[int],
        dilation: int,
        width: int,
        **common: Any,
) -> Tuple[nn.Sequential, nn.Sequential]:
    """Build the big branch, a block for each drop path rate, and the thin and shallow little branch.

    The remaining arguments are those of :func:`make_blocks`. A block of the little branch drops its path at the rate
    of the big block beside it.
    """
    alpha, beta = big_little
    depth = len(drop_paths)
    little_depth, thin = max(1, (depth + 1) // beta - 1), width // alpha
    # the sum applies the last ReLU, but a single block keeps its own, as in the official code
    big = make_blocks(in_chs, width, drop_paths, 2, dilation, act_last=depth == 1, **common)
    little = make_blocks(in_chs, thin, drop_paths[:little_depth], 1, dilation, **common)
    norm: Dict[str, Any] = {name: common[name] for name in ('norm_layer', 'device', 'dtype')}
    expansion = Bottleneck.expansion
    little.append(ConvNormAct(expansion * thin, expansion * width, 1, act_layer=None, **norm))
    return big, little
