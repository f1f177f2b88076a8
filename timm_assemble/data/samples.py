"""Samples of a training data set of timm or torchvision, read as all images are read here."""
import copy
import logging
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from timm.data.readers import set_img_extensions
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch.utils.data import Dataset

from ..errors import UserError, error_line
from .images import EXTENSIONS, UnreadableError, decode_image, printable, read_image

__all__ = ['Samples', 'innermost', 'next_readable', 'use_image_extensions']

_logger = logging.getLogger(__name__)

PART_SIZE = 256  # images that a thread checks at once
PART = 1 << 14  # bytes at each end of a file that a checksum covers
SKIPS = 10  # unreadable samples in a row, as in timm


def use_image_extensions() -> None:
    """Let timm list the same image files as everything else here."""
    set_img_extensions(EXTENSIONS)


def innermost(dataset: Any) -> Any:
    """Return the data set inside wrappers such as timm's AugMixDataset."""
    while not hasattr(dataset, 'reader') and not hasattr(dataset, 'samples') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


class Samples(Dataset):
    """A map-style data set whose images are read by :mod:`.images`, from the same files.

    timm's own data set takes the next sample for one that cannot be read, without a way to notice. This one raises
    UnreadableError. Images of other data sets than folders and timm's readers are read as their data set does.
    ``transform`` and all other attributes are those of the data set.

    Args:
        dataset: Data set of timm or torchvision of ``(image, label)``.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    @classmethod
    def inside(cls, dataset: Any) -> Any:
        """Return a data set, or a copy of wrappers around it, whose images are read so."""
        if isinstance(dataset, cls):
            return dataset
        if innermost(dataset) is dataset:
            return cls(dataset)
        wrapper = copy.copy(dataset)
        wrapper.dataset = cls.inside(dataset.dataset)
        return wrapper

    @property
    def transform(self) -> Any:
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet during unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        if not self._has_files:
            with self._named(index):
                return self.dataset[index]
        image, label = self.read(index)
        label_transform = getattr(self.dataset, 'target_transform', None)
        label = -1 if label is None else label if label_transform is None else label_transform(label)
        return (image if self.transform is None else self.transform(image)), label

    @property
    def _has_files(self) -> bool:
        return hasattr(self.dataset, 'reader') or self._paths is not None

    @property
    def _paths(self) -> Optional[Sequence[Tuple[str, int]]]:
        """Return paths and labels of a folder of images."""
        from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

        reader = getattr(self.dataset, 'reader', None)
        folder = reader if isinstance(reader, ReaderImageFolder) else self.dataset
        return folder.samples if isinstance(folder, (ReaderImageFolder, ImageFolder)) else None

    def name(self, index: int) -> str:
        """Return the name of a sample's file."""
        if hasattr(self.dataset, 'filename'):
            return printable(str(self.dataset.filename(index)))
        paths = self._paths
        return printable(os.path.relpath(paths[index][0], self.dataset.root)) if paths else f'sample {index}'

    @contextmanager
    def _named(self, index: int) -> Iterator[None]:
        """Raise UnreadableError with the name of the sample in place of any error."""
        try:
            yield
        except Exception as e:  # Pillow raises errors of many kinds for damaged files
            reason = e.reason if isinstance(e, UnreadableError) else error_line(e)
            raise UnreadableError(self.name(index), reason) from e

    def read(self, index: int) -> Tuple[Any, Any]:
        """Return the image without the transform, and the label.

        Raises:
            UnreadableError: The image cannot be read.
        """
        mode, paths = getattr(self.dataset, 'input_img_mode', None) or 'RGB', self._paths
        with self._named(index):
            if paths is not None:
                return read_image(Path(paths[index][0]), mode), paths[index][1]
            if hasattr(self.dataset, 'reader'):
                file, label = self.dataset.reader[index][:2]
                with file:
                    return decode_image(file, mode), label
            transform = getattr(self.dataset, 'transform', None)
            self.dataset.transform = None
            try:
                image, label = self.dataset[index][:2]
            finally:
                self.dataset.transform = transform
        if isinstance(image, torch.Tensor):  # of torch's Subset, and some of torchvision's
            raise UserError(f'dataset must take its transform from its attribute `transform`, got {self.dataset!r}')
        return image, label

    def checksum(self, index: int, whole: bool = False) -> int:
        """Return the CRC-32 of a sample's content, not of its name; 0 if it cannot be read.

        Args:
            index: Number of the sample.
            whole: Whether to read all of the file. By default its size and 16 KiB at each end are covered. The pixels
                count of data sets without files.
        """
        paths = self._paths
        try:
            if paths is not None:
                with open(paths[index][0], 'rb') as file:
                    return _checksum(file, whole)
            if hasattr(self.dataset, 'reader'):
                with self.dataset.reader[index][0] as file:
                    return _checksum(file, whole)
            return zlib.crc32(np.ascontiguousarray(self.read(index)[0]).data)
        except (OSError, UnreadableError):
            return 0

    def changed(self, indices: Sequence[int], checksums: Any, whole: bool = False) -> List[int]:
        """Return the indices of the samples whose content has another checksum; shows a bar if it takes long."""
        from tqdm import tqdm

        one_by_one = self._paths is None  # an archive has one position
        parts = [indices[i:i + PART_SIZE] for i in range(0, len(indices), PART_SIZE)]  # a future each

        def changed(part: Sequence[int]) -> List[int]:
            return [index for index in part if self.checksum(index, whole) != checksums[index]]
        with ThreadPoolExecutor(1 if one_by_one else 16) as pool:
            found = tqdm(pool.map(changed, parts), 'checking images', len(parts), delay=2, unit_scale=PART_SIZE,
                         unit='image')
            return [*chain(*found)]

    def folders_like_images(self) -> List[str]:
        """Return the names of folders that are named like images, which timm does not list."""
        reader = getattr(self.dataset, 'reader', None)
        if not isinstance(reader, ReaderImageFolder):
            return []
        return [printable(os.path.relpath(os.path.join(root, name), reader.root))
                for root, folders, _ in os.walk(reader.root, followlinks=True)
                for name in sorted(folders) if name.lower().endswith(EXTENSIONS)]


def _checksum(file: BinaryIO, whole: bool) -> int:
    size = file.seek(0, os.SEEK_END)
    value = zlib.crc32(str(size).encode())
    for start in range(0, size, PART) if whole else (0, max(PART, size - PART)):
        file.seek(start)
        value = zlib.crc32(file.read(PART), value)
    return value


def next_readable(read: Any, index: int, count: int) -> Tuple[int, Any]:
    """Return ``read(index)`` and the index, or the next one whose sample can be read, with a warning for each other.

    Raises:
        UserError: 10 samples in a row cannot be read.
    """
    for index in ((index + skip) % count for skip in range(SKIPS)):
        try:
            return index, read(index)
        except UnreadableError as e:
            _logger.warning(f'{e}; the next sample is taken with its own label and row')
    raise UserError(f'dataset must have readable images, got {SKIPS} in a row that cannot be read')
