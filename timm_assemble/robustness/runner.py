"""Run the tasks that are not cached yet, each cached as soon as it is finished.

Each file is read, and corrupted, once for all models. Under torchrun each rank takes every ``world_size``-th task. The
ranks share the cache's folder.
"""
import time
from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np
import torch

from ..errors import UserError
from ..evaluation.image_files import Batch, FileDataset, Unreadable, batches, can_be_read
from ..runtime.ranks import Ranks
from .progress import Progress
from .tasks.cache import CachedResult, TaskCache
from .tasks.task import Classifier, Records, Task

__all__ = ['Loading', 'check_files', 'run_tasks']


class Loading(NamedTuple):
    """How images come to the device; of metrics it changes only the rounding."""

    batch_size: int
    workers: int
    device: torch.device


def _is_cached(cached: Optional[CachedResult]) -> bool:
    """Return whether a result is there, and still lacks only files that cannot be read."""
    return cached is not None and not any(can_be_read(cached.task.load, file.path) for file in cached.unreadable)


def _run(task: Task, models: Sequence[Classifier], cache: TaskCache, loading: Loading, progress: Progress) -> None:
    """Measure models on the files of a task and cache the results."""
    parts: Dict[str, List[Records]] = {model.label: [] for model in models}
    seconds = dict.fromkeys(parts, 0.0)
    unreadable: List[Unreadable] = []
    start = time.perf_counter()
    labels = ', '.join(parts) if len(parts) < 3 else f'{len(parts)} models'
    for batch in batches(task.dataset(), max(1, loading.batch_size // task.images_per_item), loading.workers,
                         loading.device.type == 'cuda'):
        unreadable.extend(batch.unreadable)
        before = sum(seconds.values())
        if len(batch.images):
            moved: Batch = batch._replace(images=batch.images.to(loading.device, non_blocking=True))
            for model in models:
                began = time.perf_counter()
                try:
                    records = task.measure(model, moved)
                except ValueError as e:
                    raise UserError(f'models must fit the images; {model.label} on {task.title}: {e}') from e
                except torch.cuda.OutOfMemoryError as e:
                    raise UserError(
                        f'batch_size must be below {loading.batch_size}: {loading.device} has too little memory for '
                        f'{model.label} on {task.title}; what is finished is cached') from e
                parts[model.label].append(dict(records, item=np.array(batch.items, dtype=np.int32)))
                seconds[model.label] += time.perf_counter() - began
        progress.update(task, batch, sum(seconds.values()) - before, f'{task.title} {labels}')
    if not any(parts.values()):
        raise UserError(f'files of {task.title} cannot be read, none of {task.items}: {unreadable[0].path} '
                         f'({unreadable[0].reason})')
    shared = (time.perf_counter() - start - sum(seconds.values())) / len(models)
    for model in models:
        records = {name: np.concatenate([part[name] for part in parts[model.label]])
                   for name in parts[model.label][0]}
        cache.put(task, model, task.complete(records), unreadable, shared + seconds[model.label])


def run_tasks(
        tasks: Sequence[Task],
        models: Sequence[Classifier],
        cache: TaskCache,
        loading: Loading,
        ranks: Optional[Ranks] = None,
        progress: Optional[Progress] = None,
) -> None:
    """Measure what is not cached yet, and cache it, so that a kill loses only the current task.

    A file that cannot be read is no error: the cached result names it. It is tried again by the next run.
    """
    progress = progress or Progress(loading.workers)
    own = (ranks or Ranks()).own(tasks)
    waiting = {task: [model for model in models if not _is_cached(cache.get(task, model))] for task in own}
    progress.start([(task, len(models), len(waiting[task])) for task in own])
    for task in own:
        if waiting[task]:
            _run(task, waiting[task], cache, loading, progress)


class _Reads(FileDataset):
    """Read files and drop their pixels."""

    def __getitem__(self, index: int):
        item = super().__getitem__(index)
        return item if isinstance(item, Unreadable) else (torch.empty(0, 3, 1, 1, dtype=torch.uint8), *item[1:])


def check_files(tasks: Sequence[Task], loading: Loading, ranks: Optional[Ranks] = None) -> List[Unreadable]:
    """Read all files once and return those that cannot be read, of all ranks."""
    once = {(task.folder, type(task), task.only): task for task in tasks}
    found: List[Unreadable] = []
    ranks = ranks or Ranks()
    for task in ranks.own([*once.values()]):
        data = _Reads(task.list_files(), task.load, lambda loaded, name: [np.zeros((1, 1, 3), np.uint8)])
        for batch in batches(data, loading.batch_size, loading.workers):
            found += batch.unreadable
    return ranks.gather(found)
