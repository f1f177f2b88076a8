"""Recall@k, mAP and MAP@R of queries, from the ranks of gallery images of the query's class; with 95 % intervals."""
from typing import Any, Dict, NamedTuple, Sequence

import numpy as np

from ..evaluation.intervals import student, wilson

__all__ = ['Scores', 'retrieval_metrics', 'score_queries']


class Scores(NamedTuple):
    """Of each query the rank of its first right image, 0 for none, and its AP and AP@R."""

    first: np.ndarray
    average: np.ndarray
    average_r: np.ndarray


def score_queries(right: np.ndarray) -> Scores:
    r"""Score queries by the whole gallery.

    .. math::
        AP = \frac{1}{R} \sum_{i=1}^{N} \text{right}_i \cdot \text{precision@}i \qquad
        AP@R = \frac{1}{R} \sum_{i=1}^{R} \text{right}_i \cdot \text{precision@}i

    R is the number of right images; a query without any scores 0.

    Args:
        right: (Q, N) bools, whether each gallery image is of the query's class, the nearest first.

    Source: arXiv 2003.08505 section 3.2.
    """
    queries, ranks = right.nonzero()
    ranks += 1
    relevant = right.sum(1)
    before = relevant.cumsum() - relevant  # right images of earlier queries
    precision = (np.arange(1, len(ranks) + 1) - before[queries]) / ranks
    first = np.zeros(len(right), np.int64)
    first[relevant > 0] = ranks[before[relevant > 0]]
    average, average_r = (np.bincount(queries, precision * weight, len(right)) / np.maximum(relevant, 1)
                          for weight in (1, ranks <= relevant[queries]))
    return Scores(first, average, average_r)


def retrieval_metrics(scores: Scores, asked: np.ndarray, recall_at: Sequence[int]) -> Dict[str, Dict[str, Any]]:
    """Return ``recall@k`` for each k, ``map`` and ``map@r`` in percent of the queries that have something to find.

    Returns:
        ``metrics`` by name, and ``intervals``: the low and high end of each one, or None of a mean of one query.
    """
    first, *averages = (values[asked] for values in scores)
    rates = {f'recall@{k}': 100 * float(((first > 0) & (first <= k)).mean()) for k in recall_at}
    means = {name: 100 * values for name, values in zip(('map', 'map@r'), averages)}
    return dict(metrics=rates | {name: float(values.mean()) for name, values in means.items()},
                intervals={name: wilson(rate, len(first)) for name, rate in rates.items()}
                | {name: student(values) for name, values in means.items()})
