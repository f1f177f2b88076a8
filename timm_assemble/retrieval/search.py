"""Exact ranking of a gallery by cosine similarity, in blocks, so that memory does not grow with the queries.

Of equally similar images the one earlier in the list comes first.
"""
from typing import Tuple

import torch

__all__ = ['block_rows', 'normalize', 'rank_gallery']

SIMILARITIES = 2 ** 23  # of a block, which take 200 MiB with what is made of them


def normalize(embeddings: torch.Tensor) -> torch.Tensor:
    """Scale (N, D) embeddings in place to the length 1; one of zeros stays, and has the similarity 0 to all."""
    for block in embeddings.split(4096):
        block.div_(block.norm(dim=1, keepdim=True).clamp_min_(1e-12))
    return embeddings


def block_rows(images: int) -> int:
    """Return how many queries are searched at a time in a gallery of so many images."""
    return max(1, min(1024, SIMILARITIES // max(1, images)))


@torch.inference_mode()
def rank_gallery(queries: torch.Tensor, gallery: torch.Tensor, own: torch.Tensor) -> Tuple[
        torch.Tensor, torch.Tensor]:
    """Return (Q, N) numbers of all gallery images, the nearest first, and their similarities.

    Args:
        queries: (Q, D) of length 1.
        gallery: (N, D) of length 1.
        own: (Q,) number of the gallery image that is the query itself, which comes last, with the similarity ``-inf``;
            -1 for none.
    """
    similarities = queries @ gallery.T
    inside = (own >= 0).nonzero()[:, 0]
    similarities[inside, own[inside]] = -torch.inf
    similarities, indices = similarities.sort(dim=1, descending=True, stable=True)
    return indices, similarities
