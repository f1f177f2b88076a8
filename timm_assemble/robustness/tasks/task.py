"""Tasks, the units of work, and the models they measure."""
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterable, Optional, Sequence

from ..datasets.files import IMAGES, FileDataset, FileList, list_files
from ..datasets.protocols import Preprocessing
from .classify import Classify

__all__ = ['Classifier', 'Task']


@dataclass(frozen=True)
class Classifier:
    """A model under test."""

    label: str
    classify: Classify
    identity: Dict[str, Any]  # distinguishes its predictions from those of all other models
    class_map: Optional[Sequence[int]] = None  # its class of each folder; None where they are the same or not needed
    details: Dict[str, Any] = field(default_factory=dict)  # what the results say of it


@dataclass(frozen=True)
class Task(ABC):
    """A measurement on one folder: a corruption at a severity, a perturbation, or clean images."""

    group: str  # 'clean', 'corruption', 'perturbation' or 'shift'
    name: str  # corruption, perturbation or 'clean'
    severity: int  # 0 where there is none
    folder: Path
    items: int  # number of files; their list is not kept, because 75 of 50,000 names would fill the memory
    data: str  # fingerprint of the file list
    preprocessing: Preprocessing
    images_per_item: ClassVar[int] = 1  # that the model gets
    extensions: ClassVar[Sequence[str]] = IMAGES

    @classmethod
    def of_files(cls, files: FileList, *args: Any, group: str, name: str, severity: int = 0, **kwargs: Any) -> Any:
        """Make the task of a file list; ``args`` begin with ``preprocessing``."""
        return cls(group, name, severity, files.folder, len(files.files), files.fingerprint, *args, **kwargs)

    @property
    def title(self) -> str:
        """Name and severity, for messages."""
        name = f'shift {self.name}' if self.group == 'shift' else self.name
        return f'{name}/{self.severity}' if self.severity else name

    @property
    def identity(self) -> Dict[str, Any]:
        """What decides the metrics of a model: all but the folder's path."""
        return {key: value for key, value in asdict(self).items() if key not in ('folder', 'items')}

    def dataset(self) -> FileDataset:
        """Return the pixels and classes of the files."""
        return FileDataset(list_files(self.folder, self.extensions), self.load, self.finish)

    @abstractmethod
    def load(self, path: Path) -> Any:
        """Read a file."""

    def finish(self, loaded: Any, name: str) -> Sequence[Any]:
        """Return what the model gets from what :meth:`load` returned, (S, S, 3) each."""
        return loaded

    @abstractmethod
    def measure(self, model: Classifier, batches: Iterable[Any]) -> Dict[str, Any]:
        """Return the metrics of a model, from batches of the dataset."""
