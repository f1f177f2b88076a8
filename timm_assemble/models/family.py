"""What the families of models share: their configuration, the check for weights, and the setting of DropBlock rates."""
import warnings
from typing import Any, Dict, List, Mapping

import timm
import torch
from timm.models import resolve_pretrained_cfg

from ..errors import UserError, check
from ..layers import set_drop_block_rate

__all__ = ['FAMILIES', 'DropBlockRate', 'base_cfg', 'check_has_weights', 'registered_models']

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


def check_has_weights(variant: str, kwargs: Mapping[str, Any], otherwise: str = '') -> None:
    """Check that ``create_model(variant, pretrained=True, **kwargs)`` names weights.

    Raises:
        UserError: It names none; the message has their sources, ``otherwise`` among them.
    """
    cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay'))
    if not (cfg.has_weights or cfg.state_dict):
        raise UserError(
            f"pretrained must be False, since {variant} comes without weights of its own. Load a model from the "
            f"Hugging Face Hub with create_model('hf-hub:user/name', pretrained=True){otherwise}.")


def registered_models() -> List[str]:
    """Return the names of this package's models."""
    return timm.list_models(module=FAMILIES)
