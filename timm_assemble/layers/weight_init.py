"""Initial weights of the official code."""
import torch
from timm.layers import lecun_normal_
from torch import nn

__all__ = ['init_weights_official']


def init_weights_official(module: nn.Module) -> None:
    """Initialise one module; pass this to ``Module.apply``.

    Convolutions: normal, truncated at two standard deviations, scaled to variance ``1 / fan_in``. Linear: Glorot
    uniform ``U(-a, a)``, ``a = sqrt(6 / (fan_in + fan_out))``, bias 0. Norms and others: their own initial values.
    Convolutions on the meta device are skipped, which saves a second per model.

    Source: the official code; arXiv 1706.02515 for the scale.
    """
    if isinstance(module, nn.Conv2d):
        if module.weight.is_meta:
            return
        lecun_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    elif callable(reset := getattr(module, 'reset_parameters', None)):
        reset()
    for name, value in (('running_mean', 0.0), ('running_var', 1.0)):
        buffer = getattr(module, name, None)
        if isinstance(buffer, torch.Tensor):  # not all norms of timm reset them
            buffer.fill_(value)
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        nn.init.zeros_(module.bias)
