"""The projection shortcut of a residual block: pooling and a 1x1 convolution."""
from timm.layers import ConvNormAct, LayerType
from torch import nn

from .anti_alias import AntiAlias2d

__all__ = ['shortcut_pool', 'ProjectionShortcut', 'SHORTCUTS']

SHORTCUTS = ('plain', 'd', 'big_little')


def shortcut_pool(kind: str, stride: int) -> list[nn.Module]:
    """Return the pooling layers of a shortcut, before its 1x1 convolution.

    - ``'d'``, stride 2: zero padding by one at the right and bottom, then a 2x2 average that counts the zeros.
    - ``'d'``, stride 1: a 2x2 average that does not count the padding, as replication padding and average.
    - ``'big_little'``, stride 2: a 3x3 average that counts the padding; none at stride 1.
    - ``'plain'``: none, the 1x1 convolution has the stride.

    Args:
        kind: One of ``SHORTCUTS``.
        stride: 1 or 2.

    Source: arXiv 1812.01187 section 4.2 (ResNet-D), arXiv 1807.03848 section 4; arXiv 2001.06268 section 3.1.

    Raises:
        ValueError: Unknown ``kind``.
    """
    if kind not in SHORTCUTS:
        raise ValueError(f'shortcut must be one of {SHORTCUTS}, got {kind!r}.')
    if kind == 'd':
        pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.ReplicationPad2d((0, 1, 0, 1))
        return [pad, nn.AvgPool2d(2, stride)]
    if kind == 'big_little' and stride == 2:
        return [nn.AvgPool2d(3, 2, padding=1)]
    return []


class ProjectionShortcut(nn.Sequential):
    """Pooling, see :func:`shortcut_pool`, then 1x1 convolution and normalisation.

    Input ``(B, in_chs, H, W)``, output ``(B, out_chs, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        stride: 1 or 2.
        kind: One of ``SHORTCUTS``.
        aa_size: Anti-aliasing filter size of a plain strided shortcut ("proj"); 0 for none.
        norm_layer: Normalisation layer.
        drop_layer: Callable that returns a new DropBlock layer, or None.
    """

    def __init__(
            self,
            in_chs: int,
            out_chs: int,
            stride: int = 1,
            kind: str = 'plain',
            aa_size: int = 0,
            norm_layer: LayerType = nn.BatchNorm2d,
            drop_layer=None,
            device=None,
            dtype=None,
    ) -> None:
        pools = shortcut_pool(kind, stride)
        if kind == 'plain' and stride == 2 and aa_size:
            pools = [AntiAlias2d(in_chs, filt_size=aa_size, stride=stride, device=device, dtype=dtype)]
        conv = ConvNormAct(
            in_chs,
            out_chs,
            1,
            stride=1 if pools else stride,
            apply_act=False,
            norm_layer=norm_layer,
            drop_layer=drop_layer,
            device=device,
            dtype=dtype,
        )
        super().__init__(*pools, conv)
