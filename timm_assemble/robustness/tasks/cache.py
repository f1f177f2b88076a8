"""The cache of finished tasks: one small file for each model and task.

A result is cached under all that decides it, so that the cache never returns the metrics of other weights, images or
protocols.
"""
import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from ...utils.atomic import atomic_file
from .task import Classifier, Task

__all__ = ['CachedResult', 'TaskCache']


class CachedResult(NamedTuple):
    """A task with a model's metrics, and the seconds it took when it was measured."""

    task: Task
    metrics: Dict[str, Any]
    seconds: float


class TaskCache:
    """Metrics by model and task, in atomically written files.

    A damaged file counts as missing.

    Args:
        folder: Created if it does not exist.
        precision: Of the models' arithmetic, part of every result's identity.
        versions: Package to version, stored with each result. They are not part of its identity, because another
            version seldom changes a metric; :meth:`other_versions` reports them.
    """

    def __init__(self, folder: Path, precision: str = 'float32', versions: Optional[Dict[str, str]] = None):
        self.folder = folder
        self.precision = precision
        self.versions = versions or {}
        folder.mkdir(parents=True, exist_ok=True)

    def _identity(self, task: Task, model: Classifier) -> Dict[str, Any]:
        class_map = None if model.class_map is None else [*model.class_map]
        return dict(task=task.identity, model=model.identity, precision=self.precision, class_map=class_map)

    def _path(self, identity: Dict[str, Any]) -> Path:
        text = json.dumps(identity, sort_keys=True)
        return self.folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.json'

    def _read(self, task: Task, model: Classifier) -> Optional[Dict[str, Any]]:
        identity = self._identity(task, model)
        try:
            cached = json.loads(self._path(identity).read_text(encoding='utf-8'))
        except (FileNotFoundError, ValueError):
            return None
        valid = isinstance(cached, dict) and cached.get('identity') == json.loads(json.dumps(identity))
        return cached if valid else None

    def get(self, task: Task, model: Classifier) -> Optional[CachedResult]:
        """Return the result of a task, or None."""
        cached = self._read(task, model)
        return None if cached is None else CachedResult(task, cached['metrics'], cached['seconds'])

    def put(self, task: Task, model: Classifier, metrics: Dict[str, Any], seconds: float) -> None:
        """Store the result of a task."""
        identity = self._identity(task, model)
        content = dict(identity=identity, metrics=metrics, seconds=seconds, versions=self.versions)
        with atomic_file(self._path(identity)) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding='utf-8')

    def collect(self, tasks: Sequence[Task], model: Classifier) -> List[CachedResult]:
        """Return the results of all tasks.

        Raises:
            ValueError: One is missing.
        """
        results = []
        for task in tasks:
            result = self.get(task, model)
            if result is None:
                raise ValueError(f'output must be one folder for all ranks; {self.folder} lacks {task.title} of '
                                 f'{model.label}')
            results.append(result)
        return results

    def other_versions(self, tasks: Sequence[Task], model: Classifier) -> List[str]:
        """Return the package versions of a model's results that differ from today's."""
        cached = (self._read(task, model) or {} for task in tasks)
        return sorted({f'{name} {version}' for result in cached for name, version in result.get('versions', {}).items()
                       if self.versions.get(name, version) != version})
