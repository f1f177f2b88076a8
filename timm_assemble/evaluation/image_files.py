"""Image files: lists of folders with one folder per class, and batches of their pixels."""
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError

__all__ = [
    'IMAGES', 'Batch', 'FileDataset', 'FileList', 'Unreadable', 'batches', 'can_be_read', 'class_folders',
    'list_files', 'make_file_list', 'read_image', 'some', 'unreadable_line']

IMAGES = ('.jpeg', '.jpg', '.png', '.webp', '.bmp', '.ppm', '.tif', '.tiff')
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # Pillow has no single error


class Unreadable(NamedTuple):
    """A file that cannot be read, and why."""

    path: Path
    item: int  # its number in the file list
    reason: str


class Batch(NamedTuple):
    """Images of B files: (N, 3, S, S) uint8 RGB, and (B,) class, image counts and numbers in the file list."""

    images: torch.Tensor
    classes: torch.Tensor
    counts: Tuple[int, ...]
    items: Tuple[int, ...]
    unreadable: Tuple[Unreadable, ...]
    seconds: Tuple[float, float]  # that reading and finishing took, summed over the files


class FileList(NamedTuple):
    """Files of a folder, sorted; the fingerprint covers their names and sizes."""

    folder: Path
    classes: Tuple[str, ...]
    files: Tuple[Tuple[str, int], ...]  # name relative to the folder, with /, and number of the class
    fingerprint: str
    names: str  # fingerprint of the names alone: the same images in two folders
    notes: Tuple[str, ...]  # class folders without images, and files that are not read


def some(values: Collection[str], count: int = 5) -> str:
    """Return the first values as a text, and how many more there are."""
    first = ', '.join([*values][:count])
    return first + (f' and {len(values) - count} more' if len(values) > count else '')


def unreadable_line(files: Sequence[Mapping[str, Any]], consequence: str = '') -> str:
    """Return a text on files that cannot be read, which have a ``path`` and a ``reason``."""
    listed = ', '.join(f'{file["path"]} ({file["reason"]})' for file in files[:3])
    return f'{len(files)} of the files cannot be read{consequence}: {listed}{", ..." if len(files) > 3 else ""}'


def class_folders(folder: Path) -> Tuple[str, ...]:
    """Return the names of the folders in a folder, sorted, without hidden ones."""
    return tuple(sorted(f.name for f in os.scandir(folder) if f.is_dir() and not f.name.startswith('.')))


def make_file_list(
        folder: Path, classes: Tuple[str, ...], files: Sequence[Tuple[str, int]], notes: Sequence[str],
) -> FileList:
    """Return the list of files, with its fingerprints."""
    digest, names = hashlib.sha256(), hashlib.sha256()
    for name, _ in files:
        digest.update(f'{name}\t{os.stat(folder / name).st_size}\n'.encode())
        names.update(f'{name}\n'.encode())
    return FileList(folder, classes, tuple(files), digest.hexdigest(), names.hexdigest(), tuple(notes))


def list_files(
        folder: Path, extensions: Sequence[str] = IMAGES, parameter: str = 'folder',
        only: Optional[Collection[str]] = None,
) -> FileList:
    """List ``folder/class/file`` without hidden files, of the classes ``only``; errors name the ``parameter``."""
    if not folder.is_dir():
        raise UserError(f'{parameter} must be a folder with one folder per class, got {folder}')
    classes = tuple(name for name in class_folders(folder) if only is None or name in only)
    files: List[Tuple[str, int]] = []
    empty, other = [], []
    for i, name in enumerate(classes):
        before = len(files)
        for file in sorted(f.name for f in os.scandir(folder / name)):
            if file.startswith('.'):
                continue
            if file.lower().endswith(tuple(extensions)):
                files.append((f'{name}/{file}', i))
            else:
                other.append(f'{name}/{file}')
        if len(files) == before:
            empty.append(name)
    if not files:
        raise UserError(
            f'{parameter} must have one folder per class with {", ".join(extensions)} files, {folder} has none')
    notes = []
    if empty:
        notes.append(f'{folder}: {len(empty)} of {len(classes)} class folders have no images: {some(empty)}')
    if other:
        notes.append(f'{folder}: {len(other)} files are not read, because their names do not end in '
                     f'{", ".join(extensions)}: {some(other)}')
    return make_file_list(folder, classes, files, notes)


def read_image(path: Path) -> Image.Image:
    """Decode an image as RGB with 8 bits, as it is stored: the EXIF rotation is not applied.

    16 bits are scaled to 8: Pillow would cut everything above 255. Other integers and floats have no known range and
    are a ValueError.
    """
    with Image.open(path) as image:
        if image.mode.startswith('I;16') or image.mode == 'I':
            values = np.asarray(image).astype(np.int64)
            if image.mode == 'I' and image.format != 'PNG':  # older Pillow's mode of a PNG with 16 bits
                raise UserError('it has 32 bits per pixel, whose range is unknown')
            return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert('RGB')
        if image.mode == 'F':
            raise UserError('it has floats as pixels, whose range is unknown')
        if image.mode == 'P' and 'transparency' in image.info:
            return image.convert('RGBA').convert('RGB')  # the same pixels, without Pillow's warning
        return image.convert('RGB')


@dataclass
class FileDataset(Dataset):
    """Pixels (N, 3, S, S) uint8, class, number and seconds of each file, or :class:`Unreadable`."""

    files: FileList
    load: Callable[[Path], Any]
    finish: Callable[[Any, str], Sequence[Any]]  # from what was loaded and the file's name to N of (S, S, 3)

    def __len__(self) -> int:
        return len(self.files.files)

    def __getitem__(self, index: int) -> Union[Tuple[torch.Tensor, int, int, float, float], Unreadable]:
        name, target = self.files.files[index]
        path = self.files.folder / name
        start = time.perf_counter()
        try:
            loaded = self.load(path)
        except UNREADABLE as e:
            return Unreadable(path, index, ' '.join(str(e).split()) or type(e).__name__)
        read = time.perf_counter()
        pixels = np.stack([np.asarray(image) for image in self.finish(loaded, name)])
        tensor = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
        return tensor, target, index, read - start, time.perf_counter() - read


def can_be_read(load: Callable[[Path], Any], path: Path) -> bool:
    """Return whether a file can be read."""
    try:
        load(path)
    except UNREADABLE:
        return False
    return True


def _collate(items: Sequence[Any]) -> Batch:
    read = [item for item in items if not isinstance(item, Unreadable)]
    images = torch.cat([item[0] for item in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Batch(
        images, torch.tensor([item[1] for item in read], dtype=torch.long), tuple(len(item[0]) for item in read),
        tuple(item[2] for item in read), tuple(item for item in items if isinstance(item, Unreadable)),
        (sum(item[3] for item in read), sum(item[4] for item in read)))


def batches(
        dataset: Dataset, batch_size: int, workers: int = 0, pin_memory: bool = False,
        only: Optional[Sequence[Sequence[int]]] = None,
) -> Iterator[Batch]:
    """Return all files once, in order, or the batches of ``only`` these numbers, whatever the number of workers."""
    size: Any = dict(batch_size=batch_size) if only is None else dict(batch_sampler=only)
    return iter(DataLoader(dataset, num_workers=workers, collate_fn=_collate, pin_memory=pin_memory, **size))
