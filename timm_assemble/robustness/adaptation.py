"""Batch norms that use the statistics of the test batch.

Source: Schneider et al., "Improving robustness against common corruptions by covariate shift adaptation" (NeurIPS
2020), arXiv 2006.16971, section 3.
"""
from functools import partial
from typing import Any, List, Tuple

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import UserError

__all__ = ['adapt_batch_norms', 'mixed_statistics']


def mixed_statistics(
        x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, prior: int,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and variance ``N / (N + n) * trained + n / (N + n) * batch`` of each channel.

    Args:
        x: (n, C, ...) input of a batch norm. The batch's variance is unbiased, as the trained one.
        mean: (C,) trained mean.
        var: (C,) trained variance.
        prior: N, images that the trained statistics count as.
    """
    mean, var, weight = mean.clone(), var.clone(), len(x) / (prior + len(x))
    if x.numel() == x.shape[1]:  # one value has no variance
        return torch.lerp(mean, x.flatten().to(mean.dtype), weight), (1 - weight) * var
    F.batch_norm(x, mean, var, training=True, momentum=weight)  # of which only the running statistics are used
    return mean, var


def _adapt(module: Any, args: Tuple[torch.Tensor], mean: torch.Tensor, var: torch.Tensor, prior: int) -> None:
    module.running_mean, module.running_var = mixed_statistics(args[0], mean, var, prior)


def adapt_batch_norms(model: nn.Module, prior: int, label: str = 'the model') -> None:
    """Let all batch norms of a model in eval mode use :func:`mixed_statistics` of each batch.

    Nothing is kept from one batch to the next. The model must be on its device.

    Raises:
        UserError: It has no batch norms with trained statistics.
    """
    norms: List[Any] = [module for module in model.modules()
                        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None]
    if not norms:
        raise UserError(f'adapt must be given for models with batch norms, {label} has none')
    for norm in norms:
        norm.register_forward_pre_hook(partial(_adapt, mean=norm.running_mean, var=norm.running_var, prior=prior))
