"""Generalised-mean pooling, the head's alternative to the average.

Knows torch and timm's tracing marks; usable without the rest of the package.
"""
import torch
from timm.layers import register_notrace_function
from torch import nn

__all__ = ['gem_pool_2d', 'GeMPool2d']


@register_notrace_function  # symbolic tracing cannot see the dtype
def gem_pool_2d(x: torch.Tensor, p: float = 3.0) -> torch.Tensor:
    r"""Generalised mean over the picture.

    .. math:: y_c = \left(\frac{1}{HW} \min(\max(\sum_{hw} x_{chw}^p, 10^{-6}), 10^{12})\right)^{1/p}

    Args:
        x: ``(B, C, H, W)``, not negative (the output of a ReLU).
        p: Exponent; 1 is the average, infinity the maximum.

    Returns:
        ``(B, C, 1, 1)`` in the dtype of ``x``; the arithmetic of half precisions is done in float32, since a
        cube leaves float16's range at 41.

    Source: arXiv 1711.02512 equation 3. That p = 3 and that the sum is what the bounds are for is the official code's;
    a clamp of x itself, as in other implementations, differs where a channel is 0 all over.
    """
    dtype = x.dtype
    if dtype == torch.float16 or dtype == torch.bfloat16:
        x = x.float()
    total = x.pow(p).sum((2, 3), keepdim=True).clamp(1e-6, 1e12)  # the root's slope at 0 is infinite
    return (total / (x.shape[2] * x.shape[3])).pow(1.0 / p).to(dtype)


class GeMPool2d(nn.Module):
    """Module of :func:`gem_pool_2d` with p = 3, with the surface of timm's ``SelectAdaptivePool2d``."""

    pool_type: str

    def __init__(self) -> None:
        super().__init__()
        self.pool_type = 'gem'

    def feat_mult(self) -> int:
        """Output width over input width."""
        return 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return gem_pool_2d(x)
