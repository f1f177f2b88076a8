"""The store of a teacher's logits of the unaugmented images.

A folder ``STORE`` holds

- ``store.json``: what the logits belong to, see :class:`~.store.StoreInfo`, and whether the store is complete;
- ``logits.npy``: float16 ``(N, C)``, row i for sample i of the data set; or with ``top_k``
  ``values.npy`` float16 ``(N, k)``, ``indices.npy`` uint16 (uint32 from 65,537 classes) ``(N, k)`` and ``rest.npy``
  float16 ``(N,)``, the logit of every other class;
- ``checksum.npy``: uint32 ``(N,)``, of the content of each sample's file;
- ``chunks/``, until the store is complete: an empty file for each finished chunk of rows.

The largest logit of each row is subtracted: the softmax does not change, and float16 is finest near 0, where most of
the probability is. A plain ``.npy`` file of shape ``(N, C)`` can be read as well; only N and C can be checked then.
"""
from pathlib import Path
from typing import Any, Optional, Tuple, Union

import torch

from ..errors import UserError
from ..data.fingerprint import SampleFingerprint
from ..data.samples import Samples
from .losses import soften
from .store import (
    StoreInfo, check_content, check_rows, check_samples, expand, open_array, read_complete, store_path,
)

__all__ = ['TeacherLogits']


class TeacherLogits:
    """Rows of a complete store or of a plain ``.npy`` file, memory-mapped. Worker processes can unpickle it.

    Args:
        path: Folder of a store, or a file of shape ``(N, C)`` in float16, float32 or float64.
        check: Whether to check the values of all rows.

    Raises:
        UserError: ``path`` is not a store, or the store is incomplete or damaged, down to its values.
    """

    def __init__(self, path: Union[str, Path], check: bool = True) -> None:
        self.path = store_path(path, 'a store of teacher logits or an .npy file')
        self.info: Optional[StoreInfo] = None
        if self.path.is_dir():
            self.info = read_complete(self.path)
            self._arrays = {name: open_array(self.path / f'{name}.npy', *form)
                            for name, form in self.info.arrays().items()}
            self.count, self.num_classes = self.info.count, self.info.num_classes
        else:
            plain = open_array(self.path)
            if plain.ndim != 2 or plain.dtype.kind != 'f':
                raise UserError(
                    f'{self.path} must hold floats of shape (N, C), got {plain.dtype} of shape {plain.shape}')
            self._arrays = {'logits': plain}
            self.count, self.num_classes = plain.shape
        if check:
            check_rows(self.path, self._arrays, self.num_classes)

    def __reduce__(self) -> Any:
        return type(self), (self.path, False)  # pickle copies a memory map; a worker maps the files itself

    def __len__(self) -> int:
        return self.count

    def logits(self, index: int) -> torch.Tensor:
        """Return the logits of a sample up to a constant, float32 ``(C,)``."""
        row = {name: array[index] for name, array in self._arrays.items()}
        return expand(row, self.num_classes, self.info.top_k if self.info else 0)

    def replay(self, index: int) -> Tuple[int, int]:
        """Return 0, as there is no view to draw, and the checksum of a sample's file; of a folder's store alone."""
        return 0, int(self._arrays['checksum'][index])

    def probabilities(self, index: int, temperature: float = 1.0, standardized: bool = False) -> torch.Tensor:
        """Return the softmax of a sample's logits, or standardized ones, over the temperature, float32 ``(C,)``."""
        return soften(self.logits(index), temperature, standardized)

    def check(self, samples: SampleFingerprint, num_classes: int) -> None:
        """Check that the rows belong to a data set and fit a student.

        Args:
            samples: Fingerprint of the training data set.
            num_classes: Classes of the student.

        Raises:
            UserError: They do not; the message says how they differ.
        """
        plain = StoreInfo({}, {}, {**samples.as_dict(), 'count': self.count}, self.num_classes)
        check_samples(self.path, self.info or plain, samples, num_classes)

    def check_content(self, dataset: Any, rank: int = 0, world_size: int = 1) -> None:
        """Check that the samples have the content that the teacher saw; nothing is known of a plain file.

        Args:
            dataset: Training data set.
            rank, world_size: Which part of the samples to check.

        Raises:
            UserError: They do not; the message names the first one.
        """
        if self.info is not None:
            check_content(Samples(dataset), range(rank, self.count, world_size), self._arrays['checksum'], self.info,
                          'dataset', self.path)
