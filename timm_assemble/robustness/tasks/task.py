"""Tasks, the units of work, and the models they measure."""
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, Optional, Sequence, Tuple

import numpy as np

from ...evaluation.image_files import IMAGES, Batch, FileDataset, FileList, list_files
from ..datasets.protocols import Preprocessing
from ..datasets.test_sets import ANY, LabelMap, LabelSpace
from .classify import Classify

__all__ = ['Classifier', 'Records', 'Task']

Records = Dict[str, np.ndarray]  # one row for each file: 'item' is its number in the file list


@dataclass(frozen=True)
class Classifier:
    """A model under test."""

    label: str
    classify: Classify
    identity: Dict[str, Any]  # distinguishes its predictions from those of all other models
    # from a test set and its folders to the model's classes; None where they are not needed
    label_map: Callable[[LabelSpace, Tuple[str, ...]], Optional[LabelMap]] = lambda space, classes: None
    details: Dict[str, Any] = field(default_factory=dict)  # what the results say of it


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Task(ABC):
    """A measurement on one folder: a corruption at a severity, a perturbation, clean images or a test set."""

    group: str  # 'clean', 'corruption', 'perturbation', 'shift', 'test_set' or 'ood'
    name: str  # corruption, perturbation, test set or 'clean'
    severity: int  # 0 where there is none
    folder: Path
    items: int  # number of files; their list is not kept, because 75 of 50,000 names would fill the memory
    data: str  # fingerprint of the file list
    names: str  # fingerprint of the names: tasks with the same names have the same images
    classes: Tuple[str, ...]  # of the folder
    preprocessing: Preprocessing
    label_space: LabelSpace = field(default=ANY, kw_only=True)  # how the folders' names are classes
    only: Optional[Tuple[str, ...]] = field(default=None, kw_only=True)  # classes, None for all
    images_per_item: ClassVar[int] = 1  # that the model gets
    extensions: ClassVar[Sequence[str]] = IMAGES
    labelled: ClassVar[bool] = True  # whether the model must have the folders' classes
    needs: ClassVar[Tuple[str, ...]] = ()  # records without which a cached result counts as missing

    @classmethod
    def of_files(cls, files: FileList, *args: Any, group: str, name: str, severity: int = 0, **kwargs: Any) -> Any:
        """Make the task of a file list; ``args`` begin with ``preprocessing``."""
        return cls(group, name, severity, files.folder, len(files.files), files.fingerprint, files.names, files.classes,
                   *args, **kwargs)

    @property
    def title(self) -> str:
        """Name and severity, for messages."""
        name = f'shift {self.name}' if self.group == 'shift' else self.name
        return f'{name}/{self.severity}' if self.severity else name

    @property
    def identity(self) -> Dict[str, Any]:
        """What decides the records of a model: all but the folder's path."""
        skipped = ('folder', 'items', 'names', 'classes', 'label_space', 'only')
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in skipped}

    def label_map(self, model: Classifier) -> Optional[LabelMap]:
        """Return the model's classes of the folders; None where the task needs none."""
        return model.label_map(self.label_space, self.classes) if self.labelled else None

    def list_files(self) -> FileList:
        """List the files again."""
        return list_files(self.folder, self.extensions, only=self.only)

    def dataset(self) -> FileDataset:
        """Return the pixels and classes of the files."""
        return FileDataset(self.list_files(), self.load, self.finish)

    @abstractmethod
    def load(self, path: Path) -> Any:
        """Read a file."""

    def finish(self, loaded: Any, name: str) -> Sequence[Any]:
        """Return what the model gets from what :meth:`load` returned, (S, S, 3) each."""
        return loaded

    @abstractmethod
    def measure(self, model: Classifier, batch: Batch) -> Records:
        """Return the records of a model for the files of a batch."""

    def complete(self, records: Records) -> Records:
        """Return the records of all files, with what needs all of them."""
        return records

    @abstractmethod
    def metrics(self, records: Records) -> Dict[str, Any]:
        """Return the metrics of records."""

    @abstractmethod
    def sums(self, records: Records) -> np.ndarray:
        """Return (files, K) values whose sums over files decide the metrics."""

    @abstractmethod
    def metrics_of_sums(self, sums: np.ndarray) -> Dict[str, Any]:
        """Return the metrics from (K,) sums; those of :meth:`metrics` where every file counts once."""
