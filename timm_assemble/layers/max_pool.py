"""The stem's max-pool, padded as TensorFlow's SAME."""
import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['MaxPool2dSame']


class MaxPool2dSame(nn.Module):
    """Maximum over 3x3 spatial positions, stride 2, with TensorFlow's SAME padding.

    Input ``(B, C, H, W)``, output ``(B, C, ceil(H / 2), ceil(W / 2))``. A side of even size is padded at its end, a
    side of odd size at both ends. timm's layer of this name has control flow, which symbolic tracing rejects.

    Source: the official code.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, [x.shape[-1] % 2, 1, x.shape[-2] % 2, 1], value=float('-inf'))
        return F.max_pool2d(x, kernel_size=3, stride=2)
