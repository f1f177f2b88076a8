"""Anti-aliasing: timm's BlurPool2d, padded for even filters and tiny inputs."""
from typing import Any, List, Optional

import torch
import torch.nn.functional as F
from timm.layers import BlurPool2d

from ..errors import check
from .constant_buffers import ConstantBuffers

__all__ = ['AntiAlias2d']


def reflect_pad(x: torch.Tensor, pads: List[int]) -> torch.Tensor:
    """Pad by reflection, or by the edge where a side is too short to reflect."""
    mode = 'reflect' if min(x.shape[-2], x.shape[-1]) > max(pads) else 'replicate'
    return F.pad(x, pads, mode=mode)


torch.fx.wrap('reflect_pad')  # the shape decides how to pad: symbolic tracing keeps the call


class AntiAlias2d(BlurPool2d, ConstantBuffers):
    r"""Blur with a binomial filter of size k, then subsample by the stride.

    .. math:: y = (x * f f^T)_{\downarrow s}, \qquad f_i = \binom{k - 1}{i} / 2^{k - 1}

    Input ``(B, C, H, W)``, output ``(B, C, ceil(H / stride), ceil(W / stride))`` for stride 2. Reflection pads the
    feature map by ``(k - 1) // 2`` at its start and ``k // 2`` at its end, so main path and shortcut agree in size. The
    filter is a non-persistent buffer. With a dilation d its elements are d apart, and d times as much is padded.

    Source: arXiv 1904.11486; arXiv 2001.06268 section 3.1 (AA), ``sconv``.

    Departures: the official code pads ``(k - 1) // 2`` at both ends. For even k and odd sizes its output is one short,
    and the residual add fails; everywhere else the two agree. A feature map too small for reflection is padded by
    repeating its edge, where the official code fails.

    Args:
        channels: Channels of the input; None for any number.
        filt_size: Filter size k, 2 to 7.
        stride: Downsampling stride.
        dilation: Dilation of the filter, for a network with an ``output_stride``.

    Raises:
        UserError: ``filt_size`` is not from 2 to 7.
    """

    filt: torch.Tensor

    def __init__(
            self,
            channels: Optional[int] = None,
            filt_size: int = 3,
            stride: int = 2,
            dilation: int = 1,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        check(filt_size in range(2, 8), 'filt_size', filt_size, 'an integer from 2 to 7')
        super().__init__(channels, filt_size=filt_size, stride=stride, pad_mode='reflect', device=device, dtype=dtype)
        self.dilation = dilation
        self.pads = [dilation * ((filt_size - 1) // 2), dilation * (filt_size // 2)] * 2  # left, right, top, bottom

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = reflect_pad(x, self.pads)
        channels = x.shape[1] if self.channels is None else self.channels
        weight = self.filt
        if self.channels is None:  # else already of this shape, and a constant, as the tracer to ONNX needs
            weight = weight.expand(channels, 1, self.filt_size, self.filt_size)
        return F.conv2d(x, weight, stride=self.stride, dilation=self.dilation, groups=channels)
