"""Run the cells that are not done yet, each kept as soon as it is. Knows cells and batches, and no kind of either.

In a job of several processes (torchrun) each takes every so-manieth cell; they meet in the store's folder, which all of
them must see.
"""
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Set

import torch
from torch import distributed

from .datasets.images import Batch, Unreadable, batches
from .tasks.cache import Cell, CellStore, Subject, identity_of

__all__ = ['Failure', 'Job', 'Loading', 'run_cells']

HELD_AT_MOST = 1 << 30  # bytes of pixels kept for the next model, so that small data are made once for all models


class Loading(NamedTuple):
    """How pictures come to the device; none of it changes a figure but for the rounding of another batch size."""

    batch_size: int
    workers: int
    device: torch.device


class Failure(NamedTuple):
    """A cell that could not be measured, and the files for which."""

    cell: str
    files: List[Unreadable]


class Job(NamedTuple):
    """This process among those that share the work."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> 'Job':
        """As torchrun has it, joined with the others; one process alone without torchrun."""
        world = int(os.environ.get('WORLD_SIZE', 1))
        if world == 1:
            return cls()
        # waiting lasts as long as another's last cells do
        distributed.init_process_group('gloo', timeout=timedelta(days=7))
        return cls(int(os.environ['RANK']), world)

    def gather(self, failures: List[Failure]) -> List[Failure]:
        """Wait until all are done; gives the failures of all."""
        if self.world == 1:
            return failures
        gathered: List[Any] = [None] * self.world
        distributed.all_gather_object(gathered, failures)
        distributed.destroy_process_group()
        return [failure for part in gathered for failure in part]


def _own(batch: Batch) -> Batch:
    """Out of the memory shared with a worker, where each tensor that is kept holds an open file."""
    return batch._replace(images=batch.images.clone(), classes=batch.classes.clone())


def _to_device(made: Iterator[Batch], device: torch.device, unreadable: List[Unreadable]) -> Iterator[Batch]:
    for batch in made:
        unreadable.extend(batch.unreadable)
        if len(batch.images):
            yield batch._replace(images=batch.images.to(device, non_blocking=True))


def run_cells(
        cells: Sequence[Cell],
        subjects: Sequence[Subject],
        store: CellStore,
        loading: Loading,
        precision: str = 'float32',
        job: Job = Job(),  # noqa: B008  a tuple
        progress: Optional[Any] = None,
) -> List[Failure]:
    """Measure what the store does not have yet.

    A file that cannot be read counts neither as right nor as wrong: its cell is not kept, the others are measured.

    Args:
        cells: What to measure.
        subjects: The models.
        store: Keeps each (model, cell) once it is done, so that a kill loses the one in hand.
        loading: Batches, workers, device.
        precision: Of the models' arithmetic, part of the identity.
        job: Which share of the cells is this process's.
        progress: Given the title of each (model, cell) that begins, and told ``update`` at its end, as a tqdm bar.

    Returns:
        The cells that could not be measured.

    Raises:
        ValueError: A model gives what are no logits, or needs more memory than there is; it is named.
    """
    failures: List[Failure] = []
    broken: Set[Path] = set()  # folders with files that no other cell could read either
    for cell in cells[job.rank::job.world]:
        waiting = [s for s in subjects if store.get(identity_of(cell, s, precision)) is None]
        if progress is not None:
            progress.update(len(subjects) - len(waiting))
        held: Optional[List[Batch]] = None
        for i, subject in enumerate(waiting):
            if cell.folder in broken:
                break
            if progress is not None:
                progress.set_postfix_str(f'{subject.label} {cell.title}')
            start = time.perf_counter()
            if held is None:
                made = batches(cell.dataset(), cell.items_per_batch(loading.batch_size), loading.workers,
                               loading.device.type == 'cuda')
                if i + 1 < len(waiting) and cell.items * cell.item_bytes <= HELD_AT_MOST:
                    held = [_own(batch) for batch in made] if loading.workers else [*made]
            unreadable: List[Unreadable] = []
            try:
                figures = cell.measure(
                    subject, _to_device(made if held is None else iter(held), loading.device, unreadable))
            except ValueError as e:
                if not unreadable:
                    raise ValueError(f'{subject.label} on {cell.title}: {e}') from e
            except torch.cuda.OutOfMemoryError as e:
                raise ValueError(f'{subject.label} on {cell.title}: {loading.device} has too little memory for '
                                 f'--batch-size {loading.batch_size}; what is finished is kept') from e
            if unreadable:
                failures.append(Failure(cell.title, unreadable))
                broken.add(cell.folder)
                break
            store.put(identity_of(cell, subject, precision), figures, time.perf_counter() - start)
            if progress is not None:
                progress.update(1)
    return job.gather(failures)
