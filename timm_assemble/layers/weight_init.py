"""Initial weights of the official code, and constant buffers."""
from typing import Any

import torch
from timm.layers import lecun_normal_
from torch import nn

from .anti_alias import AntiAlias2d
from .drop_block import DropBlock2d

__all__ = ['init_weights_official', 'fill_constant_buffers']


def init_weights_official(module: nn.Module) -> None:
    """Initialise one module; pass this to ``Module.apply``.

    Convolutions: normal, truncated at two standard deviations, scaled to variance ``1 / fan_in``. Linear: Glorot
    uniform ``U(-a, a)``, ``a = sqrt(6 / (fan_in + fan_out))``, bias 0. Batch norm: weight 1, bias 0, initial
    statistics. Convolutions on the meta device are skipped, which saves a second per model.

    Source: the official code; arXiv 1706.02515 for the scale.
    """
    if isinstance(module, nn.Conv2d):
        if module.weight.is_meta:
            return
        lecun_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()


def fill_constant_buffers(model: nn.Module, incompatible_keys: Any = None) -> None:
    """Fill a model's blur filters and DropBlock rates on its parameters' device.

    Also a hook after ``load_state_dict``: a model made on the meta device loads its weights there, but checkpoints do
    not contain these buffers.

    Args:
        model: Model with at least one parameter.
        incompatible_keys: Argument of the hook, unused.
    """
    device = next(model.parameters()).device
    for module in model.modules():
        if isinstance(module, (AntiAlias2d, DropBlock2d)):
            for name, buffer in list(module.named_buffers(recurse=False)):
                if buffer.is_meta and device.type != 'meta':
                    setattr(module, name, torch.empty_like(buffer, device=device))
            module.init_non_persistent_buffers()
