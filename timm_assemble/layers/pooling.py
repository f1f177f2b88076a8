"""The stem's max-pool, padded as TensorFlow's SAME, and generalised-mean (GeM) pooling of the head."""
import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['GeMPool2d', 'MaxPool2dSame', 'gem_pool_2d']


class MaxPool2dSame(nn.Module):
    """Maximum over 3x3 spatial positions, stride 2, with TensorFlow's SAME padding.

    Input ``(B, C, H, W)``, output ``(B, C, ceil(H / 2), ceil(W / 2))``. A side of even size is padded at its end, a
    side of odd size at both ends. timm's layer of this name has control flow, which symbolic tracing rejects.

    Source: the official code.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        odd = [n - n // 2 * 2 for n in (x.shape[-1], x.shape[-2])]  # OpenVINO has no remainder of free sizes
        x = F.pad(x, [odd[0], 1, odd[1], 1], value=float('-inf'))
        return F.max_pool2d(x, kernel_size=3, stride=2)


def gem_pool_2d(x: torch.Tensor, p: float = 3.0) -> torch.Tensor:
    r"""Compute the generalised mean over the spatial positions.

    .. math:: y_c = \left(\frac{1}{HW} \max(\sum_{hw} \bar x_{chw}^p, 10^{-6})\right)^{1/p} \quad
        \bar x = \min(\max(x, 10^{-6}), 10^{12})

    Args:
        x: ``(B, C, H, W)``, meant for the output of a ReLU: what is below 0 counts as 0.
        p: Exponent; 1 is the average, infinity the maximum.

    Returns:
        ``(B, C, 1, 1)`` in the dtype of ``x``. Half precisions are computed in float32, since the cube of 41 overflows
        float16.

    Source: arXiv 1711.02512 equation 3; exponent and bounds are the official code's. Others have no bound of the sum,
    which differs if a channel is 0 everywhere.
    """
    dtype = x.dtype
    if dtype == torch.float16 or dtype == torch.bfloat16:
        x = x.float()
    total = x.clamp(1e-6, 1e12).pow(p).sum((2, 3), keepdim=True).clamp(min=1e-6)
    return (total / (x.shape[2] * x.shape[3])).pow(1.0 / p).to(dtype)


torch.fx.wrap('gem_pool_2d')  # depends on the dtype, which symbolic tracing does not know


class GeMPool2d(nn.Module):
    """Module of :func:`gem_pool_2d` with p = 3, a timm ``SelectAdaptivePool2d``."""

    pool_type: str

    def __init__(self) -> None:
        super().__init__()
        self.pool_type = 'gem'

    def feat_mult(self) -> int:
        """Return the ratio of output to input channels."""
        return 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return gem_pool_2d(x)
