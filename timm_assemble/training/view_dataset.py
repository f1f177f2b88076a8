"""Stored views in training: every epoch replays one view of each image, with the teacher's row of exactly that view."""
import logging
import math
from typing import Any, Iterator, List, Tuple

import numpy as np
import torch
from timm.data.mixup import mixup_target
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Sampler
from torchvision.transforms import Compose  # type: ignore[import-untyped]

from ..data.samples import next_readable
from ..errors import UserError, check
from .distillation import pack_targets
from .teacher_mixup import TeacherDataset
from .view_store import TeacherViews
from .view_mixing import make_view
from .view_transform import checksum, pixel_versions, split_transform

__all__ = ['RepeatedViews', 'ViewDataset']

_logger = logging.getLogger(__name__)


class ViewDataset(TeacherDataset):
    """A data set of stored views; targets carry the teacher's probabilities of the view, packed as float32.

    In epoch e each image has view e mod V of its own, shuffled order. Worker processes see the epoch that
    :meth:`set_epoch` sets, persistent ones too. The view is drawn under its stored seed; the generators
    of Python, numpy and torch are left as they were. What follows the conversion to a tensor, such as random erasing,
    is neither seeded nor seen by the teacher.

    Views of mixed images come mixed, with targets ``[y_1 .. y_C, p_1 .. p_C]`` as after :class:`.TeacherMixup`: nothing
    mixes them again.

    A view whose pixels have another checksum than the teacher's view, such as that of a file that changed, gets its
    label in place of the teacher's row, and a warning.

    Args:
        dataset: Map-style data set of ``(image, label)``, not yet transformed. Its transform is set afterwards, as
            timm's ``create_loader`` does, to a ``Compose`` that converts the image to a tensor.
        views: The store.
        temperature: Temperature of the softmax, positive.
        seed: Seed of the views' order.
        repeats: Different views of an image in one epoch, for :class:`RepeatedViews`.
        standardized: As in :class:`TeacherDataset`.
        smoothing: Label smoothing of mixed images, from 0 to 1; others have it from the loss.

    Raises:
        UserError: The temperature is not positive, ``smoothing`` is out of range, or a transform is set that is not
            such a ``Compose``.
    """

    def __init__(
            self, dataset: Any, views: TeacherViews, temperature: float = 1.0, seed: int = 0, repeats: int = 1,
            standardized: bool = False, smoothing: float = 0.0,
    ) -> None:
        super().__init__(dataset, views, temperature, standardized)
        check(0 <= smoothing <= 1, 'smoothing', smoothing, 'from 0 to 1')
        self.seed, self.repeats, self.smoothing = seed, repeats, smoothing
        self._split: Tuple[Compose, Compose] = (Compose([]), Compose([]))
        self._epoch = torch.full((), -1).share_memory_()  # persistent workers read what set_epoch writes

    @property
    def transform(self) -> Compose:
        return Compose([step for part in self._split for step in part.transforms])

    @transform.setter
    def transform(self, transform: Any) -> None:
        self._split = split_transform(transform)
        self.dataset.transform = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, 0 or more, before its first batch; timm's train.py calls this."""
        self._epoch.fill_(epoch)

    def view(self, index: int, repeat: int = 0) -> int:
        """Return the view of an image in this epoch.

        Raises:
            UserError: The epoch is not set.
        """
        epoch, views = int(self._epoch), self.store.views
        if epoch < 0:
            raise UserError('epoch must be set with set_epoch(epoch) before each epoch')
        order = np.random.default_rng((self.seed, index)).permutation(views)
        return int(order[(epoch * self.repeats + repeat) % views])

    def _replay(self, key: int) -> Tuple[Any, torch.Tensor, int, int, bool]:
        """Return a view, its label, image and number, and whether it has the pixels that the teacher saw.

        The label is a class, or of mixed images class weights.
        """
        repeat, index = divmod(key, len(self))

        def read(index: int) -> List[Any]:
            return [self.dataset[source] for source in self.store.sources(index, self.view(index, repeat))]
        index, samples = next_readable(read, index, len(self))
        view = self.view(index, repeat)
        seed, expected = self.store.replay(index, view)
        image, weight = make_view(self._split[0], self.store.mixing, [image for image, _ in samples], seed)
        labels = torch.tensor([int(label) for _, label in samples])
        if self.store.mixing is None:
            return image, labels[0], index, view, checksum(image) == expected
        weights = mixup_target(labels, self.store.num_classes, weight, self.smoothing)[0]
        return image, weights, index, view, checksum(image) == expected

    def __getitem__(self, key: int) -> Tuple[Any, torch.Tensor]:
        image, label, index, view, equal = self._replay(key)
        if equal:
            row = self.store.probabilities(index, view, self.temperature, self.standardized)
        else:
            names = ' mixed with '.join(map(self.dataset.name, self.store.sources(index, view)))
            _logger.warning(f'{names}: view {view} has other pixels than the teacher saw; trained on its label alone')
            row = label if label.ndim else one_hot(label, self.store.num_classes)
        return self._split[1](image), pack_targets(label, row)

    def check_replay(self, samples: int = 16, workers: int = 1) -> None:
        """Check that some views have the pixels that the teacher saw.

        Args:
            samples: Number of images, evenly spaced.
            workers: 1 or more to read them in one worker, 0 in this process: an archive that is open in this process
                cannot be read by workers that are forked later.

        Raises:
            UserError: They do not; the message names the first, and packages whose versions differ.
        """
        keys = np.linspace(0, len(self) - 1, min(samples, len(self))).astype(int).tolist()
        epoch = int(self._epoch)
        self.set_epoch(0)
        replayed: Any = _Replayed(self)
        loader = DataLoader(replayed, sampler=keys, batch_size=None, num_workers=min(workers, 1))
        different: List[int] = [key for key, equal in zip(keys, loader) if not equal]
        self.set_epoch(epoch)
        if different:
            now, then = pixel_versions(), self.store.info.versions
            versions = [f'{name} {then[name]} instead of {now[name]}' for name in now if then.get(name) != now[name]]
            raise UserError(f'dataset must give the pixels that the teacher saw, got others for {len(different)} of '
                             f'{len(keys)} images, such as {self.dataset.name(different[0])}'
                             + (f'; {self.store.path} was written with {", ".join(versions)}' if versions else ''))


class _Replayed:
    """Whether each view has the pixels that the teacher saw."""

    def __init__(self, dataset: ViewDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int) -> bool:
        return self.dataset._replay(key)[-1]


class RepeatedViews(Sampler):
    """A sampler of repeated augmentation whose repeats of an image get different views.

    It adds the number of samples times the number of the repeat to each index, from which :class:`ViewDataset` tells
    the repeat.

    Args:
        sampler: timm's ``RepeatAugSampler``.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        repeats, size = self.sampler.num_repeats, len(self.sampler.dataset)
        for i, index in enumerate(self.sampler):
            position = (self.sampler.rank + i * self.sampler.num_replicas) % math.ceil(repeats * size)
            first = math.ceil(position // repeats * repeats)  # position of the image's first repeat
            yield index + size * (position - first)
