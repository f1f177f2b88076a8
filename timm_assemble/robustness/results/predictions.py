"""Predictions of every image, in one .npz file for each model."""
from pathlib import Path
from typing import Dict, Sequence

import numpy as np

from ...evaluation.cache import write_arrays
from ..tasks.cache import CachedResult

__all__ = ['write_predictions']


def write_predictions(path: Path, results: Sequence[CachedResult]) -> None:
    """Write the records of a model's tasks as arrays ``GROUP/NAME/SEVERITY/RECORD``.

    Only corruptions have a severity. ``file`` numbers the rows of ``files/LIST``, the names of the files relative to
    their folder; ``list`` says which.
    """
    arrays: Dict[str, np.ndarray] = {}
    lists: Dict[str, str] = {}
    for task, _, _, _, records, _ in results:
        if task.names not in lists:
            lists[task.names] = f'files/{len(lists)}'
            arrays[lists[task.names]] = np.array([name for name, _ in task.list_files().files])
        key = '/'.join([task.group, task.name, *([str(task.severity)] if task.severity else [])])
        arrays[f'{key}/list'] = np.array(lists[task.names])
        for name, values in records.items():
            arrays[f'{key}/{"file" if name == "item" else name}'] = values
    write_arrays(path, arrays)
