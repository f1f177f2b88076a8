"""Exact nearest neighbours by cosine similarity, in blocks of queries, so that memory does not grow with their number.

Of equally similar images the one earlier in the list comes first.
"""
from typing import NamedTuple, Tuple

import torch

__all__ = ['Neighbours', 'block_rows', 'nearest_neighbours', 'normalize']

SIMILARITIES = 2 ** 25  # of a block: 128 MiB


class Neighbours(NamedTuple):
    """Of the queries from ``start`` the (Q, K) numbers of the nearest images and their similarities."""

    start: int
    indices: torch.Tensor
    similarities: torch.Tensor


def normalize(embeddings: torch.Tensor) -> torch.Tensor:
    """Scale (N, D) embeddings in place to the length 1; one of zeros stays, and has the similarity 0 to all."""
    for block in embeddings.split(4096):
        block.div_(block.norm(dim=1, keepdim=True).clamp_min_(1e-12))
    return embeddings


def block_rows(images: int) -> int:
    """Return how many queries are searched at a time."""
    return max(1, min(1024, SIMILARITIES // images))


def _largest(values: torch.Tensor, k: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the k largest of each row, largest first, and of equal ones the first: ``topk`` leaves that open."""
    top, indices = values.topk(k)
    last = top[:, -1:]
    for row in ((values >= last).sum(1) > k).nonzero()[:, 0].tolist():  # equal ones are left out: take the first
        above = indices[row][top[row] > last[row]]
        equal = (values[row] == last[row]).nonzero()[:k - len(above), 0]
        indices[row] = torch.cat([above, equal])
        top[row] = values[row, indices[row]]
    indices, order = indices.sort(1)
    top, by_value = top.gather(1, order).sort(dim=1, descending=True, stable=True)
    return top, indices.gather(1, by_value)


@torch.inference_mode()
def nearest_neighbours(embeddings: torch.Tensor, k: int, start: int) -> Neighbours:
    """Search one block.

    Args:
        embeddings: (N, D) of length 1.
        k: Number of neighbours, below N. A query is not its own neighbour.
        start: Number of the first query, a multiple of :func:`block_rows`.
    """
    queries = embeddings[start:start + block_rows(len(embeddings))]
    similarities = queries @ embeddings.T
    rows = torch.arange(len(queries), device=embeddings.device)
    similarities[rows, start + rows] = -torch.inf
    values, indices = _largest(similarities, k)
    return Neighbours(start, indices, values)
