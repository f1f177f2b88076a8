"""Files that cannot be read, left out of every condition alike."""
from typing import Any, Dict, List, Sequence, Set, Tuple

import numpy as np

from ...errors import UserError
from .cache import CachedResult
from .task import Classifier, Records

__all__ = ['keep_items', 'leave_out']

Measured = Sequence[Tuple[Classifier, Sequence[CachedResult]]]


def keep_items(records: Records, keep: np.ndarray) -> Records:
    """Return the records of some files; ``keep`` says of each row whether."""
    return {name: values[np.repeat(keep, records['frames'])] if name == 'frame_top5' else values[keep]
            for name, values in records.items()}


def leave_out(measured: Measured) -> Tuple[List[Tuple[Classifier, List[CachedResult]]], List[Dict[str, Any]]]:
    """Leave every file that one task could not read out of all tasks with the same file names, for all models.

    Returns:
        The results of the files that are left, and of each unreadable file its path, the reason, and the number of
        tasks that it is left out of.
    """
    bad: Dict[str, Set[int]] = {}
    files: Dict[str, Tuple[str, str]] = {}  # reason, and fingerprint of the names
    for _, results in measured:
        for result in results:
            for file in result.unreadable:
                bad.setdefault(result.task.names, set()).add(file.item)
                files.setdefault(str(file.path), (file.reason, result.task.names))
    left = []
    for model, results in measured:
        kept = []
        for result in results:
            out = bad.get(result.task.names)
            if out:
                keep = ~np.isin(result.records['item'], [*out])
                if not keep.any():
                    raise UserError(f'files of {result.task.title} cannot be read in one condition or another, none '
                                     f'of {result.task.items} is left')
                records = keep_items(result.records, keep)
                result = result._replace(records=records, metrics=result.task.metrics(records))
            kept.append(result)
        left.append((model, kept))
    tasks = [result.task for result in measured[0][1]]
    return left, [dict(path=path, reason=reason, tasks=sum(task.names == names for task in tasks))
                  for path, (reason, names) in sorted(files.items())]
