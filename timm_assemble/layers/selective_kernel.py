"""SK-C3, the selective kernel: a wide 3x3 convolution, its halves gated."""
from typing import Any, Dict, Optional

import torch
from timm.layers import LayerType
from torch import nn

from .conv_norm_act import ConvNormAct

__all__ = ['selective_kernel_merge', 'SelectiveKernelC3']


def selective_kernel_merge(x: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    r"""Compute the weighted sum of two branches, concatenated along the channels.

    .. math:: y_c = g_c\,a_c + (1 - g_c)\,b_c, \qquad g_c = \sigma(z^a_c - z^b_c)

    This is the softmax over the logits :math:`(z^a_c, z^b_c)` of the branches :math:`(a_c, b_c)`. A softmax over two
    logits is the sigmoid of their difference, so neither a stacked copy of the feature map nor a second gate is needed.

    Args:
        x: Branches ``(B, 2F, H, W)``: channels ``[0, F)`` are branch a, ``[F, 2F)`` branch b.
        logits: Logits ``(B, 2F, 1, 1)``, split in the same way.

    Returns:
        ``(B, F, H, W)`` in the memory format of ``x``.

    Source: arXiv 2001.06268 section 3.1 (SK), arXiv 1903.06586 section 3.1.
    """
    a, b = x.chunk(2, dim=1)
    logit_a, logit_b = logits.chunk(2, dim=1)
    return torch.lerp(b, a, (logit_a - logit_b).sigmoid())


def spatial_mean(x: torch.Tensor) -> torch.Tensor:
    """Compute the mean over spatial positions, ``(B, C, H, W)`` to ``(B, C, 1, 1)``.

    The gradient of ``sum`` is broadcast. That of ``mean`` is written to memory as a feature map, never in
    channels-last.
    """
    dtype = torch.float32 if x.dtype == torch.float16 else None  # sums can exceed float16's 65504
    return (x.sum((2, 3), keepdim=True, dtype=dtype) / (x.shape[2] * x.shape[3])).to(x.dtype)


torch.fx.wrap('spatial_mean')  # depends on the dtype, which symbolic tracing does not know


class SelectiveKernelC3(nn.Module):
    r"""Selective kernel on the halves of one dense 3x3 convolution.

    "C3" is the variant without 5x5 and dilated convolutions. The gate computes the logits of
    :func:`selective_kernel_merge`, :math:`z = W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1 s))`, from
    :math:`s = \mathrm{mean}_{hw}(a + b)`; it has a hidden width of ``max(out_chs // 2, 32)``.
    Input ``(B, in_chs, H, W)``, output ``(B, out_chs, ceil(H / stride), ceil(W / stride))``.

    Source: arXiv 2001.06268 section 3.1, table 2, row C3.

    Args:
        in_chs: Input channels.
        out_chs: Output channels; ``in_chs`` if None.
        stride, dilation: Of the 3x3 convolution.
        norm_layer: Normalisation layer of the convolution and the gate.
        act_layer: Activation layer of both.
    """

    def __init__(
            self,
            in_chs: int,
            out_chs: Optional[int] = None,
            stride: int = 1,
            dilation: int = 1,
            norm_layer: LayerType = nn.BatchNorm2d,
            act_layer: LayerType = nn.ReLU,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        super().__init__()
        out_chs = in_chs if out_chs is None else out_chs
        hidden_chs = max(out_chs // 2, 32)
        common: Dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer, device=device, dtype=dtype)
        self.conv = ConvNormAct(in_chs, 2 * out_chs, 3, stride, dilation, **common)
        self.fc1 = ConvNormAct(out_chs, hidden_chs, 1, **common)
        self.fc2 = nn.Conv2d(hidden_chs, 2 * out_chs, 1, bias=False, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        # the mean of a sum is the sum of the means: no (B, F, H, W) sum is written to memory
        mean_a, mean_b = spatial_mean(x).chunk(2, dim=1)
        logits = self.fc2(self.fc1(mean_a + mean_b))
        return selective_kernel_merge(x, logits)
