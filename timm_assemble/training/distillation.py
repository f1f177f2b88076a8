"""Distillation from stored teacher logits: packed targets and a task for timm's train.py.

A target is one tensor, because timm's loaders, prefetchers and training loops move exactly one. Its row for an image is
``[label, p_1 .. p_C]``, the label and the teacher's probabilities; after mixup ``[y_1 .. y_C, p_1 .. p_C]``.
"""
from typing import Any, Callable, Dict, Optional, Tuple, Union

import torch
from timm.task import ClassificationTask
from torch import nn

from ..errors import UserError
from .losses import distillation_loss

__all__ = ['distillation_weights', 'pack_targets', 'unpack_targets', 'StoredLogitsDistillationTask']


def pack_targets(labels: torch.Tensor, teacher_probs: torch.Tensor) -> torch.Tensor:
    """Concatenate labels and teacher probabilities into one tensor.

    Args:
        labels: ``(...,)`` class indices below 2^24, which float32 holds exactly, or ``(..., C)`` class weights.
        teacher_probs: ``(..., C)``.

    Returns:
        float32 ``(..., 1 + C)`` or ``(..., 2C)``.
    """
    if labels.ndim < teacher_probs.ndim:
        labels = labels.unsqueeze(-1)
    return torch.cat((labels.float(), teacher_probs.float()), dim=-1)


def unpack_targets(targets: torch.Tensor, num_classes: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Split packed targets into labels and probabilities; the inverse of :func:`pack_targets`.

    Args:
        targets: float32 ``(..., 1 + C)`` or ``(..., 2C)``.
        num_classes: C, 2 or more.

    Returns:
        Labels, int64 ``(...,)`` or float32 ``(..., C)``, and probabilities, float32 ``(..., C)``.

    Raises:
        UserError: The last dimension has another size.
    """
    width = targets.shape[-1] if targets.ndim else 0
    if width not in (1 + num_classes, 2 * num_classes) or num_classes < 2:
        raise UserError(
            f'targets must have {1 + num_classes} or {2 * num_classes} columns, a label or {num_classes} class weights '
            f'and {num_classes} teacher probabilities, got shape {tuple(targets.shape)}')
    labels, teacher_probs = targets.split((width - num_classes, num_classes), dim=-1)
    return (labels if width == 2 * num_classes else labels.squeeze(-1).long()), teacher_probs


def distillation_weights(task_weight: Optional[float], distill_weight: Optional[float]) -> Tuple[float, float]:
    """Return the weights of both losses with timm's defaults.

    Both are 1 if unset; the task's weight alone makes the other 1 minus it.

    Args:
        task_weight: train.py's ``task_loss_weight``.
        distill_weight: train.py's ``distill_loss_weight``.

    Source: the argument help of timm's train.py.
    """
    if distill_weight is None:
        return (1.0, 1.0) if task_weight is None else (task_weight, 1.0 - task_weight)
    return 1.0 if task_weight is None else task_weight, distill_weight


class StoredLogitsDistillationTask(ClassificationTask):
    r"""timm's classification task with the teacher's probabilities in the targets; no teacher runs.

    .. math:: L = w_t \, \mathrm{criterion}(z, y) + w_d \, \mathrm{loss}(z, p, T)

    A term of weight 0 is left out.

    Args:
        model: Student with 2 or more classes.
        criterion: Loss of the labels, which are ``(B, C)`` class weights after mixup and class indices otherwise.
        task_loss_weight: Weight w_t; defaults as in :func:`distillation_weights`.
        distill_loss_weight: Weight w_d.
        temperature: Temperature T of the probabilities in the targets.
        loss_type: Loss of the probabilities, ``'kl'``, ``'ce'``, ``'dkd'`` or ``'dist'``, each also with ``'+std'``;
            the paper's by default.
        **kwargs: Further arguments of timm's ClassificationTask.

    Raises:
        UserError: The temperature is not positive, or the loss does not exist.

    Source: arXiv 2001.06268 section 3.2. Departures: timm's LogitDistillationTask runs the teacher on the augmented
    image in every step and minimizes the KL divergence, which has the same gradient.
    """

    def __init__(
            self,
            model: nn.Module,
            criterion: Union[nn.Module, Callable],
            task_loss_weight: Optional[float] = None,
            distill_loss_weight: Optional[float] = None,
            temperature: float = 1.0,
            loss_type: str = 'ce',
            **kwargs: Any,
    ) -> None:
        if not temperature > 0:
            raise UserError(f'temperature must be positive, got {temperature!r}')
        super().__init__(model, criterion=criterion, **kwargs)
        self.task_loss_weight, self.distill_loss_weight = distillation_weights(task_loss_weight, distill_loss_weight)
        self.temperature = temperature
        self.distillation_loss = distillation_loss(loss_type)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> Dict[str, Any]:
        """Run the student and compute the loss.

        Args:
            input: ``(B, C, H, W)`` images.
            target: Packed targets, see :func:`pack_targets`.

        Returns:
            ``loss``, its parts ``task_loss`` and ``kd_loss`` before weighting, and the logits as ``output``.
        """
        output = self.trainable_module(input)
        labels, teacher_probs = unpack_targets(target, output.shape[-1])
        task_loss = self.criterion(output, labels)
        kd_loss = self.distillation_loss(output, teacher_probs, labels, self.temperature)
        terms = ((self.task_loss_weight, task_loss), (self.distill_loss_weight, kd_loss))
        loss = sum((weight * term for weight, term in terms if weight), kd_loss.new_zeros(()))
        return {'loss': loss, 'output': output, 'task_loss': task_loss, 'kd_loss': kd_loss}
