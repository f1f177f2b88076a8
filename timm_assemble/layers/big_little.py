"""Big-Little: the sum of a deep low-resolution and a shallow branch, and its merge.

The branches are arguments, so any block can build them.
"""
from typing import Optional

import torch
import torch.nn.functional as F
from timm.layers import LayerType, create_act_layer
from torch import nn

__all__ = ['big_little_sum', 'BigLittleStem', 'BigLittleStage']


def big_little_sum(big: torch.Tensor, little: torch.Tensor) -> torch.Tensor:
    r"""Resize the big branch to the little one and return their sum.

    .. math:: y = \mathrm{nearest}(\mathrm{big}) + \mathrm{little}

    Args:
        big: ``(B, C, h, w)``, the branch at low resolution.
        little: ``(B, C, H, W)``, the branch at high resolution.

    Returns:
        ``(B, C, H, W)``.

    Source: arXiv 1807.03848 section 3; arXiv 2001.06268 section 3.1 (BL).

    Departures: the official code repeats each pixel of ``big`` twice and fails unless ``(H, W) == (2h, 2w)``.
    Nearest-neighbour resizing is the same function there and also defined for other sizes.
    """
    # in place: the resized feature map has no other user
    return F.interpolate(big, size=little.shape[-2:], mode='nearest').add_(little)


class BigLittleStem(nn.Module):
    """Second half of the Big-Little stem, ``merge(ReLU(big(x) + little(x)))``.

    Both branches have the same stride and output width.

    Source: arXiv 1807.03848 section 4, figure 3 (the first two layers of bL-ResNet).

    Args:
        big: Branch of a single strided convolution, without last activation.
        little: Branch of thin convolutions, without last activation.
        merge: Layer after the sum.
        act_layer: Activation of the sum.
    """

    def __init__(
            self, big: nn.Module, little: nn.Module, merge: nn.Module, act_layer: LayerType = nn.ReLU) -> None:
        super().__init__()
        self.big = big
        self.little = little
        self.act = create_act_layer(act_layer, inplace=True)
        self.merge = merge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.merge(self.act(self.big(x) + self.little(x)))


class BigLittleStage(nn.Module):
    """Big-Little stage, ``ReLU(big_little_sum(big(x'), little(x')))`` with ``x' = merge(x)``.

    The output is the sum at the stage's own resolution, a level of the feature pyramid. The block that merges this sum
    and subsamples it opens the next stage.

    Source: arXiv 1807.03848 section 3, arXiv 2001.06268 section 3.1 (BL).

    Args:
        big: Deep branch at half resolution, without last activation.
        little: Shallow branch at full resolution and of the same output width, without last activation.
        merge: Layer that merges the sum of the stage before, with the stride between the two; None in the first stage.
        act_layer: Activation of the sum.
    """

    def __init__(
            self, big: nn.Module, little: nn.Module, merge: Optional[nn.Module] = None, act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__()
        self.merge = nn.Identity() if merge is None else merge
        self.big = big
        self.little = little
        self.act = create_act_layer(act_layer, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.merge(x)
        return self.act(big_little_sum(self.big(x), self.little(x)))
