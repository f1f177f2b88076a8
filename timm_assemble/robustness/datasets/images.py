"""Folders of pictures, a folder a class, to batches of pixels; what cannot be read is named and not guessed.

Knows torch's loader and Pillow.
"""
import hashlib
import os
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from .corruptions import corrupt, picture_seed
from .protocols import Preparation

__all__ = [
    'Batch', 'Corruption', 'Listing', 'PictureDataset', 'Unreadable', 'batches', 'class_folders', 'list_folder',
    'read_picture', 'to_tensor',
]

EXTENSIONS = ('.jpeg', '.jpg', '.png', '.webp', '.bmp', '.ppm')


class Unreadable(NamedTuple):
    """A file that is no picture, and why."""

    path: Path
    reason: str


class Batch(NamedTuple):
    """``images`` (N, 3, S, S) uint8 RGB; ``classes`` (B,) number of the folder; ``counts`` (B,) images of each item."""

    images: torch.Tensor
    classes: torch.Tensor
    counts: Tuple[int, ...]
    unreadable: Tuple[Unreadable, ...]


class Listing(NamedTuple):
    """Files of a folder in the order of their names; ``fingerprint`` is of all names and sizes in bytes."""

    folder: Path
    classes: Tuple[str, ...]
    files: Tuple[Tuple[str, int], ...]  # name from the folder on, with /, and number of the class
    fingerprint: str


def class_folders(folder: Path) -> Tuple[str, ...]:
    """Names of the folders in a folder, sorted, hidden ones passed over."""
    return tuple(sorted(f.name for f in os.scandir(folder) if f.is_dir() and not f.name.startswith('.')))


def list_folder(folder: Path, extensions: Sequence[str] = EXTENSIONS) -> Listing:
    """List ``folder/class/file``; hidden files and others' extensions are passed over.

    Raises:
        ValueError: It is no folder, or has no such files.
    """
    if not folder.is_dir():
        raise ValueError(f'{folder} must be a folder with a folder a class')
    classes = class_folders(folder)
    files: List[Tuple[str, int]] = []
    digest = hashlib.sha256()
    for i, name in enumerate(classes):
        found = sorted((f.name, f.stat().st_size) for f in os.scandir(folder / name)
                       if f.name.lower().endswith(tuple(extensions)) and not f.name.startswith('.'))
        for file, size in found:
            files.append((f'{name}/{file}', i))
            digest.update(f'{name}/{file}\t{size}\n'.encode())
    if not files:
        raise ValueError(f'{folder} must have a folder a class with {", ".join(extensions)}, and has none')
    return Listing(folder, classes, tuple(files), digest.hexdigest())


def read_picture(path: Path) -> Image.Image:
    """Decode a whole picture, as RGB, the way it lies in the file: a rotation noted in EXIF is not done.

    Raises:
        OSError, ValueError, SyntaxError: It cannot be read; Pillow knows no single way of saying so.
    """
    with Image.open(path) as picture:
        return picture.convert('RGB')


def to_tensor(pictures: Sequence[Any]) -> torch.Tensor:
    """Pictures of one size, of Pillow or (H, W, 3) arrays, to (N, 3, H, W) uint8."""
    return torch.from_numpy(np.stack([np.asarray(p) for p in pictures]).transpose(0, 3, 1, 2).copy())


class Corruption(NamedTuple):
    """A corruption to be made anew; ``seed`` is the run's."""

    name: str
    severity: int
    seed: int


class PictureDataset(Dataset):
    """The files of a listing, prepared: (1, 3, S, S) uint8 and the class, or :class:`Unreadable`."""

    def __init__(self, listing: Listing, preparation: Preparation, corruption: Optional[Corruption] = None):
        self.listing = listing
        self.preparation = preparation
        self.corruption = corruption

    def __len__(self) -> int:
        return len(self.listing.files)

    def before(self, picture: Image.Image) -> Image.Image:
        """What is done first; where it cannot be done, the file is none of this kind."""
        return self.preparation.before(picture)

    def prepare(self, picture: Image.Image, name: str) -> torch.Tensor:
        """The pixels that the model gets, from what :meth:`before` gave."""
        if self.corruption is not None:
            kind, severity, seed = self.corruption
            picture = Image.fromarray(
                corrupt(np.asarray(picture), kind, severity, picture_seed(seed, kind, severity, name)))
        return to_tensor([self.preparation.after(picture)])

    def __getitem__(self, index: int) -> Union[Tuple[torch.Tensor, int], Unreadable]:
        name, target = self.listing.files[index]
        path = self.listing.folder / name
        try:
            picture = self.before(read_picture(path))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            return Unreadable(path, ' '.join(str(e).split()) or type(e).__name__)
        return self.prepare(picture, name), target


def _collate(items: Sequence[Any]) -> Batch:
    read = [item for item in items if not isinstance(item, Unreadable)]
    images = torch.cat([images for images, _ in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Batch(
        images, torch.tensor([target for _, target in read], dtype=torch.long),
        tuple(len(images) for images, _ in read), tuple(item for item in items if isinstance(item, Unreadable)))


def batches(dataset: Dataset, batch_size: int, workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
    """All items once, in order, so that neither batches nor results depend on the number of workers."""
    return iter(DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=_collate, pin_memory=pin_memory))
