"""The cache of finished tasks: one small file for each model and task.

A result is cached under all that decides it, so that the cache never returns the metrics of other weights, images or
protocols.
"""
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ...utils.atomic import atomic_file
from .task import Classifier, Task

__all__ = ['CachedResult', 'TaskCache']


class CachedResult(NamedTuple):
    """A task with a model's metrics, and the seconds and package versions with which it was measured."""

    task: Task
    metrics: Dict[str, Any]
    seconds: float
    versions: Dict[str, str]


class TaskCache:
    """Metrics by model and task, in atomically written files; a damaged file counts as missing.

    The precision of the models' arithmetic is part of a result's identity. The versions of packages are stored beside
    it, because another version seldom changes a metric.
    """

    def __init__(self, folder: Path, precision: str = 'float32', versions: Optional[Dict[str, str]] = None):
        self.folder = folder
        self.precision = precision
        self.versions = versions or {}
        folder.mkdir(parents=True, exist_ok=True)

    def _entry(self, task: Task, model: Classifier) -> Tuple[Path, Any]:
        """Return the file of a result, and its identity as JSON has it."""
        text = json.dumps(dict(task=task.identity, model=model.identity, precision=self.precision,
                               class_map=model.class_map), sort_keys=True)
        return self.folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.json', json.loads(text)

    def get(self, task: Task, model: Classifier) -> Optional[CachedResult]:
        """Return the result of a task, or None."""
        path, identity = self._entry(task, model)
        try:
            cached = json.loads(path.read_text(encoding='utf-8'))
            valid = cached['identity'] == identity
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return CachedResult(task, cached['metrics'], cached['seconds'], cached['versions']) if valid else None

    def put(self, task: Task, model: Classifier, metrics: Dict[str, Any], seconds: float) -> None:
        """Store the result of a task."""
        path, identity = self._entry(task, model)
        content = dict(identity=identity, metrics=metrics, seconds=seconds, versions=self.versions)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding='utf-8')

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
