"""Initial values of the official code, and the constant buffers that no checkpoint has.

Knows torch, timm's initialisers, and the layers with such buffers.
"""
from typing import Any

import torch
from timm.layers import lecun_normal_
from torch import nn

from .anti_alias import AntiAlias2d
from .drop_block import DropBlock2d

__all__ = ['init_weights_official', 'fill_constant_buffers']


def init_weights_official(module: nn.Module) -> None:
    """Initialise one module, for use with ``Module.apply``.

    Convolutions: normal, cut at two standard deviations, scaled to variance ``1 / fan_in``. Linear: Glorot uniform
    ``U(-a, a)``, ``a = sqrt(6 / (fan_in + fan_out))``, bias 0. Batch norm: weight 1, bias 0, fresh statistics. On the
    meta device, which has no values, convolutions are left alone: drawing nothing takes a second a model there.

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
    """Fill a model's blur filters and DropBlock rates, on the device of its parameters.

    Serves as a hook after ``load_state_dict`` too: a model made on the meta device gets its weights there, but these
    buffers are in no checkpoint.

    Args:
        model: Model with at least one parameter.
        incompatible_keys: What the hook is given; not needed.
    """
    device = next(model.parameters()).device
    for module in model.modules():
        if isinstance(module, (AntiAlias2d, DropBlock2d)):
            for name, buffer in list(module.named_buffers(recurse=False)):
                if buffer.is_meta and device.type != 'meta':
                    setattr(module, name, torch.empty_like(buffer, device=device))
            module.init_non_persistent_buffers()
