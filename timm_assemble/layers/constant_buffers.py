"""Constant buffers: they follow from a layer's arguments, so checkpoints do not contain them."""
from typing import Any, Callable

import torch
from torch import nn

__all__ = ['ConstantBuffers', 'fill_constant_buffers']


class ConstantBuffers(nn.Module):
    """A layer whose ``init_non_persistent_buffers`` fills its buffers, wherever they come from."""

    def init_non_persistent_buffers(self) -> None:
        raise NotImplementedError

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        try:
            return super()._apply(fn, recurse)
        except NotImplementedError:  # a move from the meta device, where the buffers have no values to copy
            self.to_empty(device='cpu').init_non_persistent_buffers()
            return super()._apply(fn, recurse)


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
        if isinstance(module, ConstantBuffers):
            for name, buffer in list(module.named_buffers(recurse=False)):
                if buffer.is_meta and device.type != 'meta':
                    setattr(module, name, torch.empty_like(buffer, device=device))
            module.init_non_persistent_buffers()
