"""Run the tasks that are not cached yet, each cached as soon as it is finished.

Under torchrun each rank takes every ``world_size``-th task. The ranks share the cache's folder.
"""
import time
from pathlib import Path
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set

import torch
from tqdm import tqdm

from ..utils.distributed import Ranks
from .datasets.files import Batch, Unreadable, batches
from .tasks.cache import TaskCache
from .tasks.task import Classifier, Task

__all__ = ['Loading', 'run_tasks']

MAX_HELD_BYTES = 1 << 30  # pixels kept for the next models, so that small data are read and corrupted once


class Loading(NamedTuple):
    """How images come to the device; of metrics it changes only the rounding."""

    batch_size: int
    workers: int
    device: torch.device


def _passes(task: Task, count: int, loading: Loading) -> Iterator[Iterable[Batch]]:
    """Yield the batches of a task ``count`` times, from memory where they fit."""
    def load() -> Iterator[Batch]:
        return batches(task.dataset(), max(1, loading.batch_size // task.images_per_item), loading.workers,
                       loading.device.type == 'cuda')
    if count > 1 and task.items * task.images_per_item * 3 * task.preprocessing.size ** 2 <= MAX_HELD_BYTES:
        # a worker's batch is in shared memory, which holds a file open
        yield from [[b._replace(images=b.images.clone(), classes=b.classes.clone()) for b in load()]] * count
    else:
        for _ in range(count):
            yield load()


def _to_device(loaded: Iterable[Batch], device: torch.device, unreadable: List[Unreadable]) -> Iterator[Batch]:
    for batch in loaded:
        unreadable.extend(batch.unreadable)
        if len(batch.images):
            yield batch._replace(images=batch.images.to(device, non_blocking=True))


def run_tasks(
        tasks: Sequence[Task],
        models: Sequence[Classifier],
        cache: TaskCache,
        loading: Loading,
        ranks: Optional[Ranks] = None,
        progress: Optional[Any] = None,
) -> List[Unreadable]:
    """Measure what is not cached yet, and cache it, so that a kill loses only the current result.

    An unreadable file counts neither as right nor as wrong: the tasks of its folder are skipped, and the files of all
    ranks are returned. ``progress`` is a tqdm bar of (model, task) pairs.
    """
    ranks = ranks or Ranks()
    bar = tqdm(disable=True) if progress is None else progress
    failed: List[Unreadable] = []
    broken: Set[Path] = set()
    for task in ranks.own(tasks):
        waiting = [model for model in models if cache.get(task, model) is None]
        bar.update(len(models) - len(waiting))
        if task.folder in broken:
            continue
        passes = _passes(task, len(waiting), loading)
        for model in waiting:
            bar.set_postfix_str(f'{model.label} {task.title}')
            start = time.perf_counter()
            unreadable: List[Unreadable] = []
            try:
                metrics = task.measure(model, _to_device(next(passes), loading.device, unreadable))
            except ValueError as e:
                if not unreadable:
                    raise ValueError(f'models must fit the images; {model.label} on {task.title}: {e}') from e
            except torch.cuda.OutOfMemoryError as e:
                raise ValueError(
                    f'batch_size must be below {loading.batch_size}: {loading.device} has too little memory for '
                    f'{model.label} on {task.title}; what is finished is cached') from e
            if unreadable:
                failed += unreadable
                broken.add(task.folder)
                break
            cache.put(task, model, metrics, time.perf_counter() - start)
            bar.update(1)
    return ranks.gather(failed)
