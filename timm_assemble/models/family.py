"""What the families of models share: their configuration and the setting of DropBlock rates."""
import warnings
from typing import Any, Dict, List

import timm
import torch

from ..errors import check
from ..layers import set_drop_block_rate

__all__ = ['FAMILIES', 'DropBlockRate', 'base_cfg', 'registered_models']

FAMILIES = ('assemble_resnet', 'assemble_mobilenet')  # modules that register models, by which timm names the families


class DropBlockRate:
    """A model whose DropBlock rate a schedule sets; base class beside ``nn.Module``."""

    @torch.jit.ignore
    def set_drop_block_rate(self, rate: float) -> None:
        """Set the DropBlock rate, 1 - keep_prob, of the last stage; the stage before it has a quarter.

        The rate is from 0 to 1. No recompilation or device sync follows. A model without DropBlock warns.
        """
        check(0 <= rate <= 1, 'rate', rate, 'from 0 to 1')
        if not set_drop_block_rate(self, rate):  # type: ignore[arg-type]
            warnings.warn('set_drop_block_rate has no effect: the model was made with drop_block_rate=0.', stacklevel=2)


def base_cfg(**kwargs: Any) -> Dict[str, Any]:
    """Return a pretrained configuration with the official preprocessing and the given entries."""
    return {
        'num_classes': 1000, 'input_size': (3, 224, 224), 'pool_size': (7, 7), 'crop_pct': 0.875,
        'interpolation': 'bilinear',
        # the official input is 0 to 255 minus the mean, not divided by a deviation
        'mean': (123.68 / 255, 116.78 / 255, 103.94 / 255), 'std': (1 / 255, 1 / 255, 1 / 255),
        'license': 'apache-2.0', 'paper_ids': 'arXiv:2001.06268', **kwargs,
    }


def registered_models() -> List[str]:
    """Return the names of this package's models."""
    return timm.list_models(module=FAMILIES)
