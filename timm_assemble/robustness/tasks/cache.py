"""The cache of finished tasks: one file for each model and task.

A result is cached under all that decides it, so that the cache never returns the records of other weights, images or
protocols.
"""
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...errors import UserError
from ...evaluation.cache import DAMAGED, read_cached, write_cached
from ...evaluation.image_files import Unreadable
from .task import Classifier, Records, Task

__all__ = ['CachedResult', 'TaskCache']


class CachedResult(NamedTuple):
    """A task with a model's records and metrics, and the seconds and package versions of the measurement."""

    task: Task
    metrics: Dict[str, Any]
    seconds: float
    versions: Dict[str, str]
    records: Records
    unreadable: Tuple[Unreadable, ...]


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

    def get(self, task: Task, model: Classifier) -> Optional[CachedResult]:
        """Return the result of a task, or None."""
        try:
            cached = read_cached(self.folder, self.identity(task, model))
            if cached is None or any(name not in cached[0] for name in task.needs):
                return None
            records, about = cached
            unreadable = tuple(Unreadable(task.folder / name, item, reason)
                               for name, item, reason in about['unreadable'])
            # metrics here, and not by the reader: wrong arrays count as a damaged file
            metrics = task.metrics(records) if len(records['item']) else {}
            return CachedResult(task, metrics, about['seconds'], about['versions'], records, unreadable)
        except DAMAGED:
            return None

    def put(
            self, task: Task, model: Classifier, records: Records, unreadable: Sequence[Unreadable], seconds: float,
    ) -> None:
        """Store the result of a task."""
        about = dict(
            seconds=seconds, versions=self.versions,
            unreadable=[(file.path.relative_to(task.folder).as_posix(), file.item, file.reason) for file in unreadable])
        write_cached(self.folder, self.identity(task, model), records, about)

    def collect(self, tasks: Sequence[Task], model: Classifier) -> List[CachedResult]:
        """Return the results of all tasks; ValueError if one is missing."""
        results = []
        for task in tasks:
            result = self.get(task, model)
            if result is None:
                raise UserError(f'output must be one folder for all ranks; {self.folder} lacks {task.title} of '
                                 f'{model.label}')
            results.append(result)
        return results
