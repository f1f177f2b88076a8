"""Several teachers as one: a store of the weighted mean of their probabilities, made of a store of each."""
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

import torch

from ..errors import UserError
from ..runtime.ranks import Ranks
from .logit_store import TeacherLogits
from .store import StoreInfo, StoreWriter, read_info
from .view_store import TeacherViews

__all__ = ['combine_stores', 'mean_logits']


def mean_logits(logits: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    r"""Return logits whose softmax is the weighted mean of several teachers' probabilities.

    .. math:: \log \sum_i w_i \, \mathrm{softmax}(z_i) / \sum_i w_i

    Args:
        logits: ``(teachers, B, C)``.
        weights: One positive weight per teacher.

    Returns:
        float64 ``(B, C)``, finite.

    Raises:
        UserError: There are not as many positive weights as teachers.
    """
    if len(weights) != len(logits) or not all(0 < weight < float('inf') for weight in weights):
        raise UserError(f'weights must be {len(logits)} positive numbers, one per teacher, got {list(weights)}')
    shares = torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1) / sum(weights)
    probs = (logits.double().softmax(-1) * shares).sum(0)
    return probs.clamp(min=torch.finfo(torch.float64).tiny).log()


def _open(path: Path) -> Any:
    views = path.is_dir() and any(path.glob('view-*.npy'))
    store: Any = (TeacherViews if views else TeacherLogits)(path)
    if store.info is None:
        raise UserError(f'stores must be folders that `timm-assemble teacher-logits` wrote, got the file {path}')
    return store


def _combined_info(stores: Sequence[Any], weights: Sequence[float], top_k: Optional[int]) -> Any:
    """Return what the mean belongs to; all but teachers and their preprocessing must be equal."""
    first = stores[0].info
    for store in stores[1:]:
        for field in fields(first) if type(store.info) is type(first) else ():
            name, own = field.name, getattr(store.info, field.name)
            if name not in ('teacher', 'preprocessing', 'top_k', 'chunk_size') and own != getattr(first, name):
                raise UserError(f'stores must belong to the same images, got {store.path} with another `{name}` than '
                                f'{stores[0].path}')
        if type(store.info) is not type(first):
            raise UserError(f'stores must all be of logits or all of views, got {stores[0].path} and {store.path}')
    total = sum(weights)
    teachers = [dict(store.info.teacher, weight=weight / total) for store, weight in zip(stores, weights)]
    names = ' + '.join(str(teacher['name']) for teacher in teachers)
    return replace(
        first, teacher={'name': names, 'teachers': teachers},
        preprocessing={'teachers': [store.info.preprocessing for store in stores]},
        top_k=first.top_k if top_k is None else top_k)


def _rows(stores: Sequence[Any], keys: Sequence[Any]) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return all teachers' logits of some rows, and the seeds and checksums of what they saw."""
    replays = [[store.replay(*key) for key in keys] for store in stores]
    for store, own in zip(stores, replays):
        if own != replays[0]:
            raise UserError(f'stores must be of the same images, got others in {store.path} than in {stores[0].path}')
    probs = torch.stack([torch.stack([store.probabilities(*key) for key in keys]) for store in stores])
    seeds, checksums = torch.tensor(replays[0], dtype=torch.int64).unbind(1)
    return probs.log(), seeds, checksums


def combine_stores(
        stores: Sequence[Union[str, Path]],
        output: Union[str, Path],
        weights: Optional[Sequence[float]] = None,
        top_k: Optional[int] = None,
) -> StoreInfo:
    """Write a store of the weighted mean of several teachers' probabilities.

    Each teacher has a store of its own, with its size and normalization, of the same images or the same views. The mean
    is of what these stores hold: with ``top_k`` of their k largest logits, the rest spread evenly. A call after an
    interruption computes the missing chunks.

    Args:
        stores: Complete stores, all of logits or all of views.
        output: Folder of the mean's store.
        weights: Positive, one per store; equal by default.
        top_k: Number of largest logits to store per row; by default the first store's.

    Returns:
        What the mean belongs to; ``teacher['teachers']`` names all teachers and their weights.

    Raises:
        UserError: A store cannot be read, the stores are of different images, or weights are missing or not positive.

    Source: arXiv 1503.02531 section 2, which distills from the mean of an ensemble.
    """
    if len(stores) < 2:
        raise UserError(f'stores must be two or more, got {len(stores)}')
    opened: List[Any] = [_open(Path(path)) for path in stores]
    weights = [1.0] * len(opened) if weights is None else list(weights)
    mean_logits(torch.zeros(len(opened), 1, 1), weights)  # rejects wrong weights before anything is written
    info = _combined_info(opened, weights, top_k)
    writer = StoreWriter(output, info)
    with Ranks() as ranks:
        ranks.from_first(writer.prepare)
        for unit in ranks.own(ranks.from_first(writer.missing)):
            keys = [key if isinstance(key, tuple) else (key,) for key in info.keys(unit)]
            logits, seeds, checksums = _rows(opened, keys)
            writer.write(unit, info.pack(unit, mean_logits(logits, weights), seeds, checksums))
        ranks.barrier()
        ranks.from_first(writer.finish)
    return read_info(Path(output), type(info))[0]
