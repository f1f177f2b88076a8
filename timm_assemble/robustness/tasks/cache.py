"""The cache of finished tasks: one file for each model and task.

A result is cached under all that decides it, so that the cache never returns the records of other weights, images or
protocols.
"""
import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ...utils.atomic import atomic_file
from ..datasets.files import Unreadable
from .task import Classifier, Records, Task

__all__ = ['CachedResult', 'TaskCache', 'write_arrays']

DATE = (1980, 1, 1, 0, 0, 0)  # of all entries, so that equal arrays are equal files


class CachedResult(NamedTuple):
    """A task with a model's records and metrics, and the seconds and package versions of the measurement."""

    task: Task
    metrics: Dict[str, Any]
    seconds: float
    versions: Dict[str, str]
    records: Records
    unreadable: Tuple[Unreadable, ...]


def write_arrays(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    """Write an .npz file for ``np.load``, atomically; equal arrays give equal bytes."""
    with atomic_file(path) as temporary:
        with zipfile.ZipFile(temporary, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for name, array in arrays.items():
                entry = zipfile.ZipInfo(f'{name}.npy', DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                with file.open(entry, 'w', force_zip64=True) as part:
                    np.lib.format.write_array(part, np.asarray(array), allow_pickle=False)


def _read_arrays(path: Path) -> Records:
    """Read an .npz file whole: unlike ``np.load``, this checks the checksum of each array."""
    with zipfile.ZipFile(path) as file:
        return {name.removesuffix('.npy'): np.lib.format.read_array(io.BytesIO(file.read(name)), allow_pickle=False)
                for name in file.namelist()}


class TaskCache:
    """Records by model and task, in atomically written files; a damaged file counts as missing.

    The precision of the models' arithmetic is part of a result's identity. The versions of packages are stored beside
    it, because another version seldom changes a metric.
    """

    def __init__(self, folder: Path, precision: str = 'float32', versions: Optional[Dict[str, str]] = None):
        self.folder = folder
        self.precision = precision
        self.versions = versions or {}
        folder.mkdir(parents=True, exist_ok=True)

    def identity(self, task: Task, model: Classifier) -> Any:
        """Return all that decides a result, as JSON has it."""
        label_map = task.label_map(model)
        return json.loads(json.dumps(dict(
            task=task.identity, model=model.identity, precision=self.precision,
            label_map=label_map and label_map._asdict())))

    def _entry(self, task: Task, model: Classifier) -> Tuple[Path, str]:
        """Return the file of a result, and its identity as a text."""
        text = json.dumps(self.identity(task, model), sort_keys=True)
        return self.folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz', text

    def get(self, task: Task, model: Classifier) -> Optional[CachedResult]:
        """Return the result of a task, or None."""
        path, identity = self._entry(task, model)
        try:
            records = _read_arrays(path)
            about = json.loads(str(records.pop('about')))
            if about['identity'] != json.loads(identity) or any(name not in records for name in task.needs):
                return None
            unreadable = tuple(Unreadable(task.folder / name, item, reason)
                               for name, item, reason in about['unreadable'])
            # metrics here, and not by the reader: wrong arrays count as a damaged file
            metrics = task.metrics(records) if len(records['item']) else {}
            return CachedResult(task, metrics, about['seconds'], about['versions'], records, unreadable)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def put(
            self, task: Task, model: Classifier, records: Records, unreadable: Sequence[Unreadable], seconds: float,
    ) -> None:
        """Store the result of a task."""
        path, identity = self._entry(task, model)
        about = dict(
            identity=json.loads(identity), seconds=seconds, versions=self.versions,
            unreadable=[(file.path.relative_to(task.folder).as_posix(), file.item, file.reason) for file in unreadable])
        write_arrays(path, dict(records, about=np.array(json.dumps(about))))

    def collect(self, tasks: Sequence[Task], model: Classifier) -> List[CachedResult]:
        """Return the results of all tasks; ValueError if one is missing."""
        results = []
        for task in tasks:
            result = self.get(task, model)
            if result is None:
                raise ValueError(f'output must be one folder for all ranks; {self.folder} lacks {task.title} of '
                                 f'{model.label}')
            results.append(result)
        return results
