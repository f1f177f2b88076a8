"""The store of augmented views: a teacher's probabilities of each view, and what repeats the view.

A folder ``STORE`` holds

- ``store.json``: what the views belong to, see :class:`ViewInfo`, and how many are complete;
- ``view-0000.npy``, ``view-0001.npy``, ...: one record per image: ``seed`` and ``checksum`` of the view, uint32, and
  the teacher's logits as in :mod:`.logit_store`, ``values``, ``indices`` and ``rest``, or ``logits`` without ``top_k``;
- ``chunks/``, until the store is complete: an empty file for each finished chunk of a view.

The seed repeats the view, whatever the transform and the mixing draw. It is derived from the store's seed, the image
and the view; where the transform fails with it, it is the next one of that stream. The checksum is of the view's
pixels, because a crop box and a flip would say nothing of colors, interpolation and the decoder of the file.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Tuple, Union

import numpy as np
import torch

from ..data.fingerprint import SampleFingerprint
from ..errors import UserError
from .losses import soften
from .store import (
    StoreInfo, check_rows, check_samples, difference, expand, open_array, read_complete, shrink, store_path,
)
from .view_mixing import Mixing, sources_of

__all__ = ['TeacherViews', 'ViewInfo']


@dataclass(frozen=True)
class ViewInfo(StoreInfo):
    """What the views of a store belong to.

    A run resumes a store, or adds views to it, only if all but ``views`` is equal.

    Attributes:
        transform: Training transform, see :func:`.describe_transform`; of mixed images also ``mixing``, see
            :func:`.describe_mixing`.
        versions: Versions of the packages that decide the pixels.
        seed: Seed from which the views' seeds are derived.
        views: Number of views per image, V.
    """

    CONTENT: ClassVar[str] = 'views'
    UNIT: ClassVar[str] = 'view'
    FORMAT: ClassVar[str] = 'timm_assemble teacher views 2'
    GROWS: ClassVar[Tuple[str, ...]] = ('views',)

    transform: Dict[str, Any] = field(default_factory=dict)
    versions: Dict[str, str] = field(default_factory=dict)
    seed: int = 0
    views: int = 1

    @property
    def num_units(self) -> int:
        return self.views * self.num_chunks

    def keys(self, unit: int) -> List[Tuple[int, int]]:
        """Return what the unit's records are of, as pairs of sample index and view."""
        view, chunk = divmod(unit, self.num_chunks)
        return [(index, view) for index in self.chunk(chunk)]

    def arrays(self) -> Dict[str, Tuple[Tuple[int, ...], Any]]:
        fields = [('seed', np.uint32), ('checksum', np.uint32)]
        record = np.dtype([*fields, *((name, dtype, shape) for name, (shape, dtype) in self.row_fields().items())])
        return {f'view-{view:04}': ((self.count,), record) for view in range(self.views)}

    def pack(
            self, unit: int, logits: torch.Tensor, seeds: torch.Tensor, checksums: torch.Tensor,
    ) -> Dict[str, np.ndarray]:
        name = f'view-{unit // self.num_chunks:04}'
        records = np.zeros(len(logits), self.arrays()[name][1])
        records['seed'], records['checksum'] = seeds.numpy(), checksums.numpy()
        for part, values in shrink(logits, self.top_k).items():
            records[part] = values
        return {name: records}


class TeacherViews:
    """Records of a complete store, memory-mapped. Worker processes can unpickle it.

    Args:
        path: Folder of a store.
        check: Whether to check the values of all records.

    Raises:
        UserError: ``path`` is not a store of views, or the store is incomplete or damaged, down to its values.
    """

    def __init__(self, path: Union[str, Path], check: bool = True) -> None:
        self.path = store_path(path, 'a store of teacher views')
        info: Any = read_complete(self.path, ViewInfo)
        self.info: ViewInfo = info
        self.views, self.count, self.num_classes = info.views, info.count, info.num_classes
        self.mixing = Mixing(info.transform['mixing']) if info.transform.get('mixing') else None
        self._records = [open_array(self.path / f'{name}.npy', shape, dtype)
                         for name, (shape, dtype) in self.info.arrays().items()]
        for view, records in enumerate(self._records if check else ()):
            check_rows(self.path / f'view-{view:04}.npy', records, self.num_classes)

    def __reduce__(self) -> Any:
        return type(self), (self.path, False)

    def __len__(self) -> int:
        return self.count

    def sources(self, index: int, view: int) -> List[int]:
        """Return the images of a view: its own, and the one that is mixed into it, if any."""
        return sources_of(self.mixing, self.info.seed, index, view, self.count)

    def replay(self, index: int, view: int) -> Tuple[int, int]:
        """Return the seed of a view and the checksum of its pixels."""
        record = self._records[view][index]
        return int(record['seed']), int(record['checksum'])

    def probabilities(
            self, index: int, view: int, temperature: float = 1.0, standardized: bool = False) -> torch.Tensor:
        """Return the softmax of a view's logits, or standardized ones, over the temperature, float32 ``(C,)``."""
        logits = expand(self._records[view][index], self.num_classes, self.info.top_k)
        return soften(logits, temperature, standardized)

    def check(self, samples: SampleFingerprint, num_classes: int, transform: Dict[str, Any]) -> None:
        """Check that the views belong to a data set, fit a student, and are those of a training transform.

        Args:
            samples: Fingerprint of the training data set.
            num_classes: Classes of the student.
            transform: Description of the transform, as in :class:`ViewInfo`.

        Raises:
            UserError: They do not; the message says how they differ.
        """
        check_samples(self.path, self.info, samples, num_classes)
        own = self.info.transform
        found = difference(own, {name: transform.get(name) for name in own})
        if found:
            raise UserError(f'transform must be that of {self.path}, `{found[0]}` {found[1]}, got {found[2]}')
