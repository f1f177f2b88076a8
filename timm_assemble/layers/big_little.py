"""Big-Little: a deep branch at half resolution and a shallow one at full, summed and merged.

Knows torch alone: the branches are arguments, so that any block can stand in them.
"""
import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['big_little_sum', 'BigLittleStem', 'BigLittleStage']


def big_little_sum(big: torch.Tensor, little: torch.Tensor) -> torch.Tensor:
    r"""Bring the big branch to the little one's size and add.

    .. math:: y = \mathrm{ReLU}(\mathrm{nearest}(\mathrm{big}) + \mathrm{little})

    Args:
        big: ``(B, C, h, w)``, the branch at low resolution.
        little: ``(B, C, H, W)``, the branch at high resolution.

    Returns:
        ``(B, C, H, W)``.

    Source: arXiv 1807.03848 section 3; arXiv 2001.06268 section 3.1 (BL).

    Departures: the official code repeats each pixel of ``big`` twice and fails unless ``(H, W) == (2h, 2w)``.
    Nearest-neighbour resizing to ``(H, W)`` is the same function there, and defined everywhere else.
    """
    # the resized map is ours alone, so the sum needs no map of its own
    return F.relu_(F.interpolate(big, size=little.shape[-2:], mode='nearest').add_(little))


class BigLittleStem(nn.Module):
    """Second half of the Big-Little stem: two branches of one stride and width, ``merge(ReLU(big(x) + little(x)))``.

    Source: arXiv 1807.03848 section 4, figure 3 (the first two layers of bL-ResNet).

    Args:
        big: Branch of a single strided convolution, without a last activation.
        little: Branch of thin convolutions of the same total stride and output width, without a last activation.
        merge: What follows the sum.
    """

    def __init__(self, big: nn.Module, little: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.big = big
        self.little = little
        self.merge = merge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merge(F.relu_(self.big(x) + self.little(x)))


class BigLittleStage(nn.Module):
    """Big-Little stage: ``merge(big_little_sum(big(x), little(x)))``, see :func:`big_little_sum`.

    Source: arXiv 1807.03848 section 3, arXiv 2001.06268 section 3.1 (BL).

    Args:
        big: Deep branch, first reducing the resolution by 2, without a last activation.
        little: Shallow branch at full resolution and the same output width, without a last activation.
        merge: What follows the sum; carries the stage's stride.
    """

    def __init__(self, big: nn.Module, little: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.big = big
        self.little = little
        self.merge = merge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merge(big_little_sum(self.big(x), self.little(x)))
