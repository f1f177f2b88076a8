"""Recall@k and MAP@R, from the ranks of images of the query's class.

Each image is a query against all others (leave-one-out). Images without another one of their class are no queries.
"""
from typing import Dict, NamedTuple, Sequence

import numpy as np
import torch

from ..errors import UserError

__all__ = ['Scores', 'retrieval_metrics', 'score_neighbours']


class Scores(NamedTuple):
    """Of each query the rank of its first right neighbour, 0 for none among the K nearest, and its AP@R."""

    first: np.ndarray
    average_precision: np.ndarray


def score_neighbours(right: torch.Tensor, relevant: torch.Tensor) -> Scores:
    r"""Score queries by their neighbours.

    .. math:: AP@R = \frac{1}{R} \sum_{i=1}^{R} \text{right}_i \cdot \text{precision@}i

    Args:
        right: (Q, K) bools, whether each of the K nearest images is of the query's class, the nearest first.
        relevant: (Q,) numbers R of other images of the query's class, at most K; 0 scores 0.

    Source: arXiv 2003.08505 section 3.2.
    """
    ranks = torch.arange(1, right.shape[1] + 1, device=right.device)
    first = torch.where(right.any(1), right.int().argmax(1) + 1, 0)
    within = right & (ranks <= relevant[:, None])
    precision = within.cumsum(1) / ranks.double()
    average = (precision * within).sum(1) / relevant.clamp(min=1)
    return Scores(first.cpu().numpy(), average.cpu().numpy())


def retrieval_metrics(scores: Scores, relevant: np.ndarray, recall_at: Sequence[int]) -> Dict[str, float]:
    """Return ``recall@k`` for each k and ``map@r`` in percent, over the queries that have something to find."""
    asked = relevant > 0
    if not asked.any():
        raise UserError('classes must have two images or more, at least one of them; got one image of each class')
    first, average = scores.first[asked], scores.average_precision[asked]
    return {**{f'recall@{k}': 100 * float(((first > 0) & (first <= k)).mean()) for k in recall_at},
            'map@r': 100 * float(average.mean())}
