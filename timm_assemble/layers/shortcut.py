"""The projection shortcut of a residual block: pooling and a 1x1 convolution."""
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from timm.layers import LayerType
from torch import nn

from ..errors import check
from .anti_alias import AntiAlias2d
from .conv_norm_act import ConvNormAct

__all__ = ['DilatedAvgPool2d', 'shortcut_pool', 'ProjectionShortcut', 'SHORTCUTS']

SHORTCUTS = ('plain', 'd', 'big_little')


class DilatedAvgPool2d(nn.Module):
    """Average of k x k values that are ``dilation`` apart; the zeros of the padding count.

    Input ``(B, C, H, W)``, output ``(B, C, floor(h / stride) + 1, floor(w / stride) + 1)`` with
    ``h = H + 2 * padding - dilation * (k - 1) - 1``, and w alike. ``nn.AvgPool2d`` has no dilation.
    """

    def __init__(self, kernel_size: int, stride: int, dilation: int, padding: int = 0) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation, self.padding = kernel_size, stride, dilation, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, [self.padding] * 4)
        for dim in (2, 3):
            length = x.shape[dim] - self.dilation * (self.kernel_size - 1)
            total = x.narrow(dim, 0, length)
            for i in range(1, self.kernel_size):
                total = total + x.narrow(dim, i * self.dilation, length)
            x = total
        return x[:, :, ::self.stride, ::self.stride] / self.kernel_size ** 2


def shortcut_pool(
        kind: str, stride: int, dilation: int = 1, first_dilation: Optional[int] = None) -> list[nn.Module]:
    """Return the pooling layers of a shortcut, before its 1x1 convolution.

    - ``'d'``, stride 2: zero padding by one at the right and bottom, then a 2x2 average that counts the zeros.
    - ``'d'``, stride 1: a 2x2 average that does not count the padding, as replication padding and average.
    - ``'big_little'``, stride 2: a 3x3 average that counts the padding; none at stride 1.
    - ``'plain'``: none, the 1x1 convolution has the stride.

    Where a dilation replaces the stride, the layers are those of stride 2 at stride 1.

    Args:
        kind: One of ``SHORTCUTS``.
        stride: 1 or 2.
        dilation: Dilation of what follows the block.
        first_dilation: Dilation of the block; ``dilation`` if None.

    Source: arXiv 1812.01187 section 4.2 (ResNet-D), arXiv 1807.03848 section 4; arXiv 2001.06268 section 3.1.

    Raises:
        UserError: Unknown ``kind``.
    """
    check(kind in SHORTCUTS, 'shortcut', kind, f'one of {SHORTCUTS}')
    apart = first_dilation or dilation
    strided = stride == 2 or apart != dilation
    size, padding = (2, 0) if kind == 'd' else (3, apart)
    pool = nn.AvgPool2d(size, stride, padding) if apart == 1 else DilatedAvgPool2d(size, stride, apart, padding)
    if kind == 'd':
        pads = (0, apart, 0, apart)
        return [nn.ZeroPad2d(pads) if strided else nn.ReplicationPad2d(pads), pool]
    return [pool] if kind == 'big_little' and strided else []


class ProjectionShortcut(nn.Module):
    """Pooling, see :func:`shortcut_pool`, then 1x1 convolution and normalization.

    Input ``(B, in_chs, H, W)``, output ``(B, out_chs, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        stride: 1 or 2.
        dilation, first_dilation: Those of the block.
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
            dilation: int = 1,
            first_dilation: Optional[int] = None,
            kind: str = 'plain',
            aa_size: int = 0,
            norm_layer: LayerType = nn.BatchNorm2d,
            drop_layer: Optional[Callable[[], nn.Module]] = None,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        super().__init__()
        pools = shortcut_pool(kind, stride, dilation, first_dilation)
        apart = first_dilation or dilation
        if kind == 'plain' and aa_size and (stride == 2 or apart != dilation):
            pools = [AntiAlias2d(in_chs, aa_size, stride, apart, device=device, dtype=dtype)]
        self.pool = nn.Sequential(*pools)
        self.conv = ConvNormAct(
            in_chs, out_chs, 1, stride=1 if pools else stride, norm_layer=norm_layer, act_layer=None,
            drop_layer=drop_layer, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.pool(x))
