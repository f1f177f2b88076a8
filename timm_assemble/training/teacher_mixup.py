"""Teacher rows between the data set and the task: joined to the labels, collated, and mixed like the labels.

timm's mixup is called with the positions in the batch as labels, as many classes as positions and no smoothing. The
targets it returns are then the mixing matrix, in every mode. Applied to labels and teacher rows, it saves a copy of
timm's mixup and does not depend on which images timm mixes.
"""
import copy
from typing import Any, Callable, List, Sequence, Tuple

import torch
from timm.data import FastCollateMixup, Mixup
from timm.data.mixup import mixup_target
from torch.utils.data import Dataset

from ..data.samples import Samples, next_readable
from ..errors import UserError
from .distillation import pack_targets, unpack_targets

__all__ = [
    'TeacherDataset', 'TeacherCollate', 'TeacherMixup', 'TeacherCollateMixup', 'mix_with_matrix', 'mix_rows',
]


class TeacherDataset(Dataset):
    """A data set whose targets carry the teacher's probabilities, packed as ``[label, p_1 .. p_C]``, float32.

    Any collate function that stacks tensors works. ``transform`` and other attributes are those of the inner data set.
    Images are read as the teacher's, by ``timm_assemble.data``. In place of a file that cannot be read any more, the
    next sample comes with its own label and row, and a warning.

    Args:
        dataset: Map-style data set of ``(image, label)``.
        store: Teacher rows in the same order, :class:`~.logit_store.TeacherLogits`.
        temperature: Temperature of the softmax, positive.
        standardized: Take the softmax of standardized logits, for a loss ``'...+std'``.
    """

    def __init__(self, dataset: Any, store: Any, temperature: float = 1.0, standardized: bool = False) -> None:
        if not temperature > 0:
            raise UserError(f'temperature must be positive, got {temperature!r}')
        self.dataset = Samples.inside(dataset)
        self.store = store
        self.temperature, self.standardized = temperature, standardized

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tuple[Any, torch.Tensor]:
        index, (image, label) = next_readable(self.dataset.__getitem__, index, len(self))
        row = self.store.probabilities(index, self.temperature, self.standardized)
        return image, pack_targets(torch.as_tensor(label), row)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet during unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)


def mix_with_matrix(mixup: Mixup, images: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """Mix images with timm's mixup and return the mixing matrix as well.

    Args:
        mixup: timm's ``Mixup`` or ``FastCollateMixup``, in any mode.
        images: ``(B, C, H, W)``; for ``FastCollateMixup`` a list of B uint8 ``(C, H, W)``. B is even.

    Returns:
        The mixed images, and the mixing matrix, float32 ``(B', B)``: each row has the weights of the B images in one
        mixed image. B' is B, or B / 2 in mode ``half``.
    """
    positions_mixup: Any = copy.copy(mixup)
    positions_mixup.num_classes = len(images)
    positions_mixup.label_smoothing = 0.0
    if isinstance(mixup, FastCollateMixup):
        return FastCollateMixup.__call__(positions_mixup, [(x, i) for i, x in enumerate(images)])
    return Mixup.__call__(positions_mixup, images, torch.arange(len(images), device=images.device))


def mix_rows(matrix: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mix rows as the images were mixed, in full float32.

    It avoids a matrix product, which would use TF32 on CUDA if the training allows it, for a matrix that is mostly 0.

    Args:
        matrix: ``(B', B)`` from :func:`mix_with_matrix`; a mixed image has at most two sources.
        rows: ``(B, C)``.

    Returns:
        ``(B', C)``.
    """
    weights, sources = matrix.topk(2, dim=1)
    return rows[sources[:, 0]] * weights[:, :1] + rows[sources[:, 1]] * weights[:, 1:]


def _mixed_targets(mixup: Mixup, matrix: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    labels, teacher_probs = unpack_targets(targets, mixup.num_classes)
    class_weights = mixup_target(labels, mixup.num_classes, smoothing=mixup.label_smoothing)
    return mix_rows(matrix, pack_targets(class_weights, teacher_probs))


class TeacherMixup(Mixup):
    """timm's ``Mixup`` for images and packed targets ``(B, 1 + C)``; returns targets ``(B, 2C)``.

    Labels are smoothed and mixed as in timm. The teacher's probabilities are mixed with the same weights and never
    smoothed. The arguments are those of timm's class.
    """

    def __call__(self, x: torch.Tensor, target: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        x, matrix = mix_with_matrix(self, x)
        return x, _mixed_targets(self, matrix, target)


class TeacherCollateMixup(FastCollateMixup):
    """timm's ``FastCollateMixup`` for samples with packed targets; targets are as in :class:`TeacherMixup`."""

    def __call__(self, batch: Sequence[Tuple[Any, torch.Tensor]], _: Any = None) -> Tuple[torch.Tensor, torch.Tensor]:
        x, matrix = mix_with_matrix(self, [image for image, _ in batch])
        return x, _mixed_targets(self, matrix, torch.stack([target for _, target in batch]))


class TeacherCollate:
    """Extends a collate function for class indices, such as timm's ``fast_collate``, to packed targets.

    ``fast_collate`` before timm 1.0.31 converts targets to integers, and augmentation splits repeat them.

    Args:
        collate: Collate function for samples with integer targets.
    """

    def __init__(self, collate: Callable[[List[Tuple[Any, int]]], Tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.collate = collate

    def __call__(self, batch: Sequence[Tuple[Any, torch.Tensor]]) -> Tuple[torch.Tensor, torch.Tensor]:
        x, positions = self.collate([(image, i) for i, (image, _) in enumerate(batch)])
        return x, torch.stack([target for _, target in batch])[positions]
