"""Losses between a student's logits and a teacher's stored probabilities, by the names of ``kd_loss_type``."""
from typing import Callable, Dict, NamedTuple, Tuple

import torch
import torch.nn.functional as F

from ..errors import UserError, did_you_mean

__all__ = [
    'LOSS_TYPES', 'DistillationLoss', 'dist', 'distillation_cross_entropy', 'distillation_loss', 'dkd', 'kl', 'soften',
    'standardize_logits',
]

STANDARDIZED = '+std'  # suffix of a loss's name


def _check(logits: torch.Tensor, teacher_probs: torch.Tensor, temperature: float) -> None:
    if not temperature > 0:
        raise UserError(f'temperature must be positive, got {temperature!r}')
    if logits.shape != teacher_probs.shape:
        raise UserError(
            f'teacher_probs must have the shape of logits, {tuple(logits.shape)}, got {tuple(teacher_probs.shape)}')


def distillation_cross_entropy(
        logits: torch.Tensor, teacher_probs: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    r"""Compute the cross entropy between a teacher's softened probabilities and the student's.

    .. math:: L = -\frac{T^2}{B} \sum_b \sum_c p_{bc} \log \mathrm{softmax}(z_b / T)_c

    It differs from the KL divergence by the teacher's entropy and has the same gradient.

    Args:
        logits: ``(B, C)`` student logits z, any floating dtype; the loss is computed in float32.
        teacher_probs: ``(B, C)`` probabilities p of the teacher at the same temperature; rows sum to 1.
        temperature: Temperature T, positive.

    Returns:
        0-d float32 tensor.

    Raises:
        UserError: The shapes differ or the temperature is not positive.

    Source: arXiv 1503.02531 section 2; arXiv 2001.06268 section 3.2.
    """
    _check(logits, teacher_probs, temperature)
    log_probs = F.log_softmax(logits.float() / temperature, dim=-1)
    return -(teacher_probs * log_probs).sum(-1).mean() * temperature ** 2


def kl(logits: torch.Tensor, teacher_probs: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    r"""Compute the KL divergence of the student's softened probabilities from the teacher's.

    .. math:: L = \frac{T^2}{B} \sum_b \sum_c p_{bc} \log \frac{p_{bc}}{\mathrm{softmax}(z_b / T)_c}

    Arguments, return value and errors are those of :func:`distillation_cross_entropy`.

    Source: arXiv 1503.02531 section 2.
    """
    entropy = -torch.special.xlogy(teacher_probs, teacher_probs).sum(-1).mean() * temperature ** 2
    return distillation_cross_entropy(logits, teacher_probs, temperature) - entropy


def _target_classes(labels: torch.Tensor, num_classes: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the at most two classes of each label and their weights, ``(B, 2)`` each, without label smoothing."""
    if labels.ndim == 1:
        labels = F.one_hot(labels, num_classes)
    weights, classes = (labels - labels.amin(1, keepdim=True)).float().topk(2, dim=1)
    return classes, weights / weights.sum(1, keepdim=True)


def dkd(
        logits: torch.Tensor, teacher_probs: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0,
        alpha: float = 1.0, beta: float = 0.5,
) -> torch.Tensor:
    r"""Compute the decoupled distillation loss: of the target against the rest, and among the other classes.

    .. math::
        L = \frac{T^2}{B} \sum_b \alpha\, \mathrm{KL}(b(p) \| b(q)) + \beta\, \mathrm{KL}(\hat p \| \hat q), \quad
        b(p) = (p_t, 1 - p_t), \quad \hat p_c = \frac{p_c}{1 - p_t},\ c \ne t

    with the student's :math:`q = \mathrm{softmax}(z / T)` and the target class t. The second term of a row is 0 if the
    teacher gives all its probability to the target.

    Args:
        logits, teacher_probs, temperature: As in :func:`distillation_cross_entropy`, with 3 classes or more.
        labels: Class indices ``(B,)``, or class weights ``(B, C)`` of mixed and smoothed labels.
        alpha, beta: Weights of the two terms; the default is the paper's for ImageNet.

    Returns:
        0-d float32 tensor.

    Raises:
        UserError: As in :func:`distillation_cross_entropy`, or there are fewer than 3 classes.

    Source: arXiv 2203.08679 section 3. Departures: the paper has one target per image. A mixed label has two; the loss
    is then the mean of the loss for each, with their weights in the mixture. Label smoothing, the weight that all
    classes have, makes no target.
    """
    _check(logits, teacher_probs, temperature)
    num_classes = logits.shape[-1]
    if num_classes < 3:
        raise UserError(f'logits must have 3 classes or more for dkd, got {num_classes}')
    classes, weights = _target_classes(labels, num_classes)
    log_q = F.log_softmax(logits.float() / temperature, dim=-1)
    total = logits.new_zeros(len(logits), dtype=torch.float32)
    for target, weight in zip(classes.split(1, dim=1), weights.unbind(1)):
        p_target = teacher_probs.gather(1, target).squeeze(1)
        p_others = teacher_probs.scatter(1, target, 0.0)
        p_rest = p_others.sum(1)
        log_q_target = log_q.gather(1, target).squeeze(1)
        log_q_others = log_q.scatter(1, target, float('-inf'))
        log_q_rest = log_q_others.logsumexp(1)
        binary = (torch.special.xlogy(p_target, p_target) + torch.special.xlogy(p_rest, p_rest)
                  - p_target * log_q_target - p_rest * log_q_rest)
        p_hat = p_others / p_rest.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(1)
        log_q_hat = (log_q - log_q_rest.unsqueeze(1)).scatter(1, target, 0.0)
        among = (torch.special.xlogy(p_hat, p_hat) - p_hat * log_q_hat).sum(1)
        total = total + weight * (alpha * binary + beta * among)
    return total.mean() * temperature ** 2


def _correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation over the last dimension; 0 where one of both is constant."""
    x, y = (v - v.mean(-1, keepdim=True) for v in (x, y))
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1)).clamp(min=1e-8)


def dist(
        logits: torch.Tensor, teacher_probs: torch.Tensor, temperature: float = 1.0, beta: float = 1.0,
        gamma: float = 1.0,
) -> torch.Tensor:
    r"""Compute the distance of the student's relations between classes, and between images, from the teacher's.

    .. math::
        L = T^2 \left[ \frac{\beta}{B} \sum_b \left(1 - \rho(q_{b\cdot}, p_{b\cdot})\right)
        + \frac{\gamma}{C} \sum_c \left(1 - \rho(q_{\cdot c}, p_{\cdot c})\right) \right]

    with Pearson's correlation :math:`\rho`, over the classes of an image and over the images of the batch. The second
    term needs several images; several processes compute it over their own. A class to which all images give the same
    probability counts with 1 and has no gradient.

    Args:
        logits, teacher_probs, temperature: As in :func:`distillation_cross_entropy`.
        beta, gamma: Weights of the two terms; the default is the paper's for ImageNet.

    Returns:
        0-d float32 tensor.

    Raises:
        UserError: As in :func:`distillation_cross_entropy`.

    Source: arXiv 2205.10536 section 4. Departures: the factor T^2, as the authors' code has it.
    """
    _check(logits, teacher_probs, temperature)
    probs = F.softmax(logits.float() / temperature, dim=-1)
    inter = 1 - _correlation(probs, teacher_probs).mean()
    intra = 1 - _correlation(probs.T, teacher_probs.T).mean()
    return (beta * inter + gamma * intra) * temperature ** 2


def standardize_logits(logits: torch.Tensor) -> torch.Tensor:
    r"""Subtract the mean over the classes and divide by the standard deviation.

    .. math:: Z(z)_c = (z_c - \bar z) / \sigma(z), \quad \sigma(z)^2 = \frac{1}{C} \sum_c (z_c - \bar z)^2

    Args:
        logits: ``(..., C)``.

    Returns:
        float32 ``(..., C)``; 0 where all logits of a row are equal.

    Source: arXiv 2403.01427 section 3. Departures: of a store with ``top_k``, mean and deviation are those of the
    stored logits, which are equal in all classes but the k largest.
    """
    logits = logits.float()
    centred = logits - logits.mean(-1, keepdim=True)
    return centred / centred.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-7)


def soften(logits: torch.Tensor, temperature: float = 1.0, standardized: bool = False) -> torch.Tensor:
    """Return a teacher's probabilities, the softmax over the temperature of its logits or of the standardized ones."""
    return ((standardize_logits(logits) if standardized else logits) / temperature).softmax(-1)


WITHOUT_LABELS: Dict[str, Callable[..., torch.Tensor]] = {'kl': kl, 'ce': distillation_cross_entropy, 'dist': dist}
LOSS_TYPES = tuple(name + suffix for suffix in ('', STANDARDIZED) for name in (*WITHOUT_LABELS, 'dkd'))


class DistillationLoss(NamedTuple):
    """A loss by name.

    Attributes:
        name: ``'kl'``, ``'ce'``, ``'dkd'`` or ``'dist'``.
        standardized: Standardize the student's logits; the teacher's probabilities must be of standardized ones.
    """

    name: str
    standardized: bool

    def __call__(
            self, logits: torch.Tensor, teacher_probs: torch.Tensor, labels: torch.Tensor, temperature: float,
    ) -> torch.Tensor:
        """Compute the loss; ``labels`` are class indices or class weights, which only ``dkd`` needs."""
        if self.standardized:
            logits = standardize_logits(logits)
        if self.name == 'dkd':
            return dkd(logits, teacher_probs, labels, temperature)
        return WITHOUT_LABELS[self.name](logits, teacher_probs, temperature)


def distillation_loss(loss_type: str, parameter: str = 'loss_type') -> DistillationLoss:
    """Return the loss of a name among ``LOSS_TYPES``: ``'kl'``, ``'ce'``, ``'dkd'``, ``'dist'``, ``'kl+std'``, ...

    Raises:
        UserError: The name is another.
    """
    if loss_type not in LOSS_TYPES:
        raise UserError(f'{parameter} must be one of {", ".join(LOSS_TYPES)}, got {loss_type!r}'
                        f'{did_you_mean(loss_type, LOSS_TYPES)}')
    return DistillationLoss(loss_type.removesuffix(STANDARDIZED), loss_type.endswith(STANDARDIZED))
