"""Shift consistency: does the prediction stay when the crop moves by some pixels? (Zhang, ICML 2019), as cells.

Knows pictures and the evaluator.
"""
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterable, List

import numpy as np
import torch
from PIL import Image

from ..datasets.images import Listing, PictureDataset, list_folder, picture_seed, to_tensor
from ..datasets.protocols import Preparation, resize_short_side
from .cache import Cell, Subject
from .classify import predict

__all__ = ['ShiftDataset', 'shift_cell', 'two_crops']


def two_crops(picture: np.ndarray, size: int, shift: int, seed: int) -> List[np.ndarray]:
    """Two random crops of a picture, at most ``shift`` pixels apart along each axis.

    Each one's place is drawn from the ``(shift + 1)^2`` around the middle. Where the picture is smaller than
    ``size + shift`` it is continued by reflection.

    Args:
        picture: (H, W, 3).
        size: Side of the crops.
        shift: Pixels, 1 or more.
        seed: Of both places.
    """
    sides = picture.shape[:2]
    missing = [max(0, size + shift - side) for side in sides]
    picture = np.pad(picture, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode='reflect')
    corner = [(side - size - shift) // 2 for side in picture.shape[:2]]
    places = np.random.RandomState(seed).randint(0, shift + 1, size=(2, 2)) + corner
    return [picture[top:top + size, left:left + size] for top, left in places]


class ShiftDataset(PictureDataset):
    """The pictures of a listing as pairs of crops: (2, 3, S, S) uint8 and the class.

    Crops are of the model's size and cut out last, so that ``shift`` counts the pixels that the model sees.
    """

    def __init__(self, listing: Listing, preparation: Preparation, shift: int, seed: int):
        super().__init__(listing, preparation)
        self.shift, self.seed = shift, seed

    def before(self, picture: Image.Image) -> Image.Image:
        resize, crop, size = self.preparation
        return resize_short_side(picture, max(1, round((resize or min(picture.size)) * size / crop)))

    def prepare(self, picture: Image.Image, name: str) -> torch.Tensor:
        seed = picture_seed(self.seed, 'shift', self.shift, name)
        return to_tensor(two_crops(np.asarray(picture), self.preparation.size, self.shift, seed))


def _measure(subject: Subject, batches: Iterable[Any]) -> Dict[str, Any]:
    pictures = same = 0
    for batch in batches:
        first, second = predict(subject.classify, batch.images).view(-1, 2).unbind(1)
        pictures, same = pictures + len(first), same + int((first == second).sum())
    return dict(pictures=pictures, same=same)


def _dataset(folder: Path, preparation: Preparation, shift: int, seed: int) -> ShiftDataset:
    return ShiftDataset(list_folder(folder), preparation, shift, seed)


def shift_cell(of: Cell, preparation: Preparation, shift: int, seed: int) -> Cell:
    """The cell of shift consistency on the pictures of another cell, which are on disk as they are measured.

    Args:
        of: Cell of clean pictures, or of a published corruption.
        preparation: The one of that cell.
        shift: Pixels, 1 or more.
        seed: The run's; each picture has its own from it.
    """
    identity = dict(of.identity, measure='agreement', shift=shift, seed=seed)
    return Cell(
        'shift', of.name, of.severity, of.folder, identity, partial(_dataset, of.folder, preparation, shift, seed),
        _measure, lambda pictures: max(1, pictures // 2), of.items, 2 * of.item_bytes)
