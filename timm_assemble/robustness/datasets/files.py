"""File lists of folders with one folder per class, and batches of their pixels."""
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

__all__ = ['Batch', 'FileDataset', 'FileList', 'Unreadable', 'batches', 'class_folders', 'list_files']

IMAGES = ('.jpeg', '.jpg', '.png', '.webp', '.bmp', '.ppm')


class Unreadable(NamedTuple):
    """A file that cannot be read, and why."""

    path: Path
    reason: str


class Batch(NamedTuple):
    """Images of B files: (N, 3, S, S) uint8 RGB, and (B,) class and image counts."""

    images: torch.Tensor
    classes: torch.Tensor
    counts: Tuple[int, ...]
    unreadable: Tuple[Unreadable, ...]


class FileList(NamedTuple):
    """Files of a folder, sorted; the fingerprint covers their names and sizes."""

    folder: Path
    classes: Tuple[str, ...]
    files: Tuple[Tuple[str, int], ...]  # name relative to the folder, with /, and number of the class
    fingerprint: str


def class_folders(folder: Path) -> Tuple[str, ...]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    return tuple(sorted(f.name for f in os.scandir(folder) if f.is_dir() and not f.name.startswith('.')))


def list_files(folder: Path, extensions: Sequence[str] = IMAGES, parameter: str = 'folder') -> FileList:
    """List ``folder/class/file`` without hidden files; errors call the folder ``parameter``."""
    if not folder.is_dir():
        raise ValueError(f'{parameter} must be a folder with one folder per class, got {folder}')
    classes = class_folders(folder)
    files: List[Tuple[str, int]] = []
    digest = hashlib.sha256()
    for i, name in enumerate(classes):
        for file in sorted(os.scandir(folder / name), key=lambda f: f.name):
            if file.name.lower().endswith(tuple(extensions)) and not file.name.startswith('.'):
                files.append((f'{name}/{file.name}', i))
                digest.update(f'{name}/{file.name}\t{file.stat().st_size}\n'.encode())
    if not files:
        raise ValueError(
            f'{parameter} must have one folder per class with {", ".join(extensions)} files, {folder} has none')
    return FileList(folder, classes, tuple(files), digest.hexdigest())


@dataclass
class FileDataset(Dataset):
    """Pixels (N, 3, S, S) uint8 and class of each file, or :class:`Unreadable`."""

    files: FileList
    load: Callable[[Path], Any]
    finish: Callable[[Any, str], Sequence[Any]]  # from what was loaded and the file's name to N of (S, S, 3)

    def __len__(self) -> int:
        return len(self.files.files)

    def __getitem__(self, index: int) -> Union[Tuple[torch.Tensor, int], Unreadable]:
        name, target = self.files.files[index]
        path = self.files.folder / name
        try:
            loaded = self.load(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:  # Pillow has no single error
            return Unreadable(path, ' '.join(str(e).split()) or type(e).__name__)
        pixels = np.stack([np.asarray(image) for image in self.finish(loaded, name)])
        return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()), target


def _collate(items: Sequence[Any]) -> Batch:
    read = [item for item in items if not isinstance(item, Unreadable)]
    images = torch.cat([images for images, _ in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Batch(
        images, torch.tensor([target for _, target in read], dtype=torch.long),
        tuple(len(images) for images, _ in read), tuple(item for item in items if isinstance(item, Unreadable)))


def batches(dataset: Dataset, batch_size: int, workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
    """Return all files once, in order, whatever the number of workers."""
    return iter(DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=_collate, pin_memory=pin_memory))
