"""Run the tasks that are not cached yet, each cached as soon as it is finished.

Under torchrun each rank takes every ``world_size``-th task. The ranks share the cache's folder.
"""
import time
from pathlib import Path
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set

import torch

from ..utils.distributed import Ranks
from .datasets.files import Batch, Unreadable, batches
from .tasks.cache import TaskCache
from .tasks.task import Classifier, Task

__all__ = ['Failure', 'Loading', 'run_tasks']

MAX_HELD_BYTES = 1 << 30  # pixels kept for the next models, so that small data are read and corrupted once


class Loading(NamedTuple):
    """How images come to the device; of metrics it changes only the rounding."""

    batch_size: int
    workers: int
    device: torch.device


class Failure(NamedTuple):
    """A task that could not be measured, and its unreadable files."""

    task: str
    files: List[Unreadable]


def _unshared(batch: Batch) -> Batch:
    """Copy a batch out of a worker's shared memory, which holds a file open."""
    return batch._replace(images=batch.images.clone(), classes=batch.classes.clone())


def _passes(task: Task, count: int, loading: Loading) -> Iterator[Iterable[Batch]]:
    """Yield the batches of a task ``count`` times, from memory where they fit."""
    def load() -> Iterator[Batch]:
        return batches(task.dataset(), task.items_per_batch(loading.batch_size), loading.workers,
                       loading.device.type == 'cuda')
    if count > 1 and task.items * task.item_bytes <= MAX_HELD_BYTES:
        held = [_unshared(batch) for batch in load()] if loading.workers else [*load()]
        yield from [held] * count
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
) -> List[Failure]:
    """Measure what is not cached yet.

    An unreadable file counts neither as right nor as wrong: its task is skipped, the others are measured.

    Each result is cached once it is finished, so that a kill loses only the current one. ``progress`` is a tqdm bar of
    (model, task) pairs.

    Returns:
        The tasks of all ranks that could not be measured.

    Raises:
        ValueError: A model returns wrong logits or needs too much memory; the message names it.
    """
    failures: List[Failure] = []
    broken: Set[Path] = set()  # folders with unreadable files, which no other task could read either
    for task in ranks.own(tasks) if ranks else tasks:
        waiting = [model for model in models if cache.get(task, model) is None]
        if progress is not None:
            progress.update(len(models) - len(waiting))
        if task.folder in broken:
            continue
        passes = _passes(task, len(waiting), loading)
        for model in waiting:
            if progress is not None:
                progress.set_postfix_str(f'{model.label} {task.title}')
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
                failures.append(Failure(task.title, unreadable))
                broken.add(task.folder)
                break
            cache.put(task, model, metrics, time.perf_counter() - start)
            if progress is not None:
                progress.update(1)
    return ranks.gather(failures) if ranks else failures
