"""Teacher rows on the way from the data set to the task: joined to the labels, collated, and mixed like them.

timm's mixup is called with positions in the batch as the labels, as many classes as positions and no smoothing. What
it gives back as targets is then the mixing matrix, whatever its mode: applied to labels and teacher rows alike, it
needs no copy of timm's mixup, nor knowledge of which picture it mixes with which.

Knows torch, timm's mixup and how targets are packed; a store is anything with ``probabilities(index, temperature)``.
"""
import copy
from typing import Any, Callable, List, Protocol, Sequence, Tuple

import torch
from timm.data import FastCollateMixup, Mixup
from timm.data.mixup import mixup_target
from torch.utils.data import Dataset

from .distillation import pack_targets, unpack_targets

__all__ = [
    'TeacherDataset', 'TeacherCollate', 'TeacherMixup', 'TeacherCollateMixup', 'mix_with_matrix', 'mix_rows',
]


class TeacherRows(Protocol):
    """What is needed of a store."""

    def probabilities(self, index: int, temperature: float) -> torch.Tensor: ...


class TeacherDataset(Dataset):
    """A data set whose targets carry the teacher's probabilities: packed ``[label, p_1 .. p_C]``, float32.

    Any collation that stacks tensors takes them; ``transform`` and all else is the inner data set's.

    Args:
        dataset: Data set of ``(picture, label)`` by index.
        store: Teacher's rows in the same order.
        temperature: Temperature of the softmax, positive.
    """

    def __init__(self, dataset: Any, store: TeacherRows, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise ValueError(f'temperature must be positive, got {temperature!r}.')
        self.dataset = dataset
        self.store = store
        self.temperature = temperature

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tuple[Any, torch.Tensor]:
        picture, label = self.dataset[index]
        return picture, pack_targets(torch.as_tensor(label), self.store.probabilities(index, self.temperature))

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not yet there while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


def mix_with_matrix(mixup: Mixup, pictures: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """Mix pictures with timm's mixup and learn how they were mixed.

    Args:
        mixup: timm's ``Mixup``, or ``FastCollateMixup``, of any mode.
        pictures: ``(B, C, H, W)``; for ``FastCollateMixup`` a list of B uint8 ``(C, H, W)``. B is even.

    Returns:
        The mixed pictures, and the mixing matrix, float32 ``(B', B)``, whose rows are the shares of the B pictures in
        each mixed one. B' is B, or half of it in mode half.
    """
    positions_mixup: Any = copy.copy(mixup)
    positions_mixup.num_classes = len(pictures)
    positions_mixup.label_smoothing = 0.0
    if isinstance(mixup, FastCollateMixup):
        return FastCollateMixup.__call__(positions_mixup, [(x, i) for i, x in enumerate(pictures)])
    return Mixup.__call__(positions_mixup, pictures, torch.arange(len(pictures), device=pictures.device))


def mix_rows(matrix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mix rows as pictures were mixed, in full float32.

    Not a matrix product: on CUDA that is TF32 where the training allows it, and nearly all of the matrix is 0.

    Args:
        matrix: ``(B', B)`` of :func:`mix_with_matrix`; two pictures at most have a share in a mixed one.
        rows: ``(B, C)``.

    Returns:
        ``(B', C)``.
    """
    shares, sources = matrix.topk(2, dim=1)
    return rows[sources[:, 0]] * shares[:, :1] + rows[sources[:, 1]] * shares[:, 1:]


def _mixed_targets(mixup: Mixup, matrix: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    labels, teacher_probs = unpack_targets(targets, mixup.num_classes)
    class_weights = mixup_target(labels, mixup.num_classes, smoothing=mixup.label_smoothing)
    return mix_rows(matrix, pack_targets(class_weights, teacher_probs))


class TeacherMixup(Mixup):
    """timm's ``Mixup``, called with pictures and packed targets ``(B, 1 + C)``; gives ``(B, 2C)``.

    The labels are smoothed and mixed as timm does it, the teacher's probabilities mixed by the same shares, never
    smoothed. Arguments are those of timm's class.
    """

    def __call__(self, x: torch.Tensor, target: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        x, matrix = mix_with_matrix(self, x)
        return x, _mixed_targets(self, matrix, target)


class TeacherCollateMixup(FastCollateMixup):
    """timm's ``FastCollateMixup`` over samples with packed targets; otherwise as :class:`TeacherMixup`."""

    def __call__(self, batch: Sequence[Tuple[Any, torch.Tensor]], _: Any = None) -> Tuple[torch.Tensor, torch.Tensor]:
        x, matrix = mix_with_matrix(self, [picture for picture, _ in batch])
        return x, _mixed_targets(self, matrix, torch.stack([target for _, target in batch]))


class TeacherCollate:
    """A collation for class indices, such as timm's ``fast_collate``, made to carry packed targets.

    timm before 1.0.31 turns targets into integers there, and the parts of an augmentation split repeat them.

    Args:
        collate: Collation of samples with an integer as the target.
    """

    def __init__(self, collate: Callable[[List[Tuple[Any, int]]], Tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.collate = collate

    def __call__(self, batch: Sequence[Tuple[Any, torch.Tensor]]) -> Tuple[torch.Tensor, torch.Tensor]:
        x, positions = self.collate([(picture, i) for i, (picture, _) in enumerate(batch)])
        return x, torch.stack([target for _, target in batch])[positions]
