"""Run tasks that are not cached yet, each cached as soon as it is finished.

A task is a measurement of models on some images. Each file is read once for all models, and one loader serves all
tasks, so that short ones cost nothing; no batch crosses a task's end. Thus a kill loses only the current task, and
results depend neither on ranks nor on workers nor on kills. Under torchrun each rank takes every ``world_size``-th
task; the ranks share the cache's folder.
"""
import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ..data.images import FileList, UnreadableError, printable
from ..errors import UserError
from ..runtime.atomic import finish_killed
from ..runtime.ranks import Ranks
from .cache import DAMAGED, read_cached, write_cached
from .models import EvaluatedModel
from .results import UnreadableFile

__all__ = [
    'Batch', 'CachedResult', 'Loading', 'Records', 'Task', 'TaskCache', 'Unreadable',
    'collect_unreadable', 'image_bar', 'keep_items', 'run_tasks']

Records = Dict[str, np.ndarray]  # one row for each file: 'item' is its number in the file list


class Batch(NamedTuple):
    """Images of B files: (N, 3, H, W) uint8 RGB, and (B,) class, image counts and numbers in the file list."""

    images: torch.Tensor
    classes: torch.Tensor
    counts: Tuple[int, ...]
    items: Tuple[int, ...]


class Unreadable(NamedTuple):
    """A file that cannot be read, and why."""

    path: Path
    item: int  # its number in the file list
    reason: str


class Task(ABC):
    """A measurement on images of one folder.

    Attributes:
        title: For messages and the progress bar.
        folder: Folder of the files.
        names: Fingerprint of the files' names: tasks with the same names have the same images.
        items: Number of its files.
        images_per_item: Images that a model gets of a file, about.
        compress: Whether records get smaller by it.
        needs: Records without which a cached result counts as missing.
    """

    title: str
    folder: Path
    names: str
    items: int
    images_per_item: ClassVar[int] = 1
    compress: ClassVar[bool] = True
    needs: Tuple[str, ...] = ()

    @abstractmethod
    def list_files(self) -> FileList:
        """List the files of the folder; lists of many tasks would fill the memory."""

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of the task's files in their list, in the order of measuring; records are in that of the list."""
        return range(self.items)

    def measures(self, model: Any) -> bool:
        """Return whether the task measures a model."""
        return True

    @abstractmethod
    def identity(self, model: Any) -> Dict[str, Any]:
        """Return what decides the records of a model, beside the model: all but the folder's path."""

    def prepare(self) -> None:  # noqa: B027  most tasks have nothing to prepare
        """Do once what each worker would do at its first file."""

    @abstractmethod
    def load(self, path: Path) -> Any:
        """Read a file, or raise UnreadableError."""

    def finish(self, loaded: Any, name: str) -> Sequence[Any]:
        """Return the images that the model gets of what :meth:`load` returned, (H, W, 3) each."""
        return loaded

    @abstractmethod
    def measure(self, model: Any, batch: Batch) -> Records:
        """Return the records of a model for the files of a batch."""

    def complete(self, records: Records) -> Records:
        """Return the records of all files, with what needs all of them."""
        return records


class CachedResult(NamedTuple):
    """A task with a model's records, and the seconds and package versions of the measurement."""

    task: Any
    records: Records
    seconds: float
    versions: Dict[str, str]
    unreadable: Tuple[Unreadable, ...]


class TaskCache:
    """Records by model and task, in atomically written files; a damaged file counts as missing.

    A result is cached under all that decides it, so that the cache never returns the records of other weights, images
    or protocols. The versions of packages are stored beside it, because another version seldom changes a metric.
    """

    def __init__(self, folder: Path, precision: str = 'float32', versions: Optional[Dict[str, str]] = None):
        self.folder, self.precision, self.versions = folder, precision, versions or {}
        folder.mkdir(parents=True, exist_ok=True)
        finish_killed(folder)  # also of a file that is whole, which no one writes again

    def identity(self, task: Task, model: EvaluatedModel) -> Any:
        """Return all that decides a result, as JSON has it."""
        return json.loads(json.dumps(dict(
            task=task.identity(model), model=model.identity, precision=self.precision)))

    def get(self, task: Task, model: EvaluatedModel) -> Optional[CachedResult]:
        """Return the result of a task, or None."""
        try:
            cached = read_cached(self.folder, self.identity(task, model))
            if cached is None:
                return None
            records, about = cached
            unreadable = tuple(Unreadable(task.folder / name, item, reason)
                               for name, item, reason in about['unreadable'])
            read = len(records['item']) if 'item' in records else 0
            if read + len(unreadable) != task.items or (read and any(name not in records for name in task.needs)):
                return None
            return CachedResult(task, records, about['seconds'], about['versions'], unreadable)
        except DAMAGED:
            return None

    def put(
            self, task: Task, model: EvaluatedModel, records: Records, unreadable: Sequence[Unreadable], seconds: float,
    ) -> None:
        """Store the result of a task."""
        about = dict(
            seconds=seconds, versions=self.versions,
            unreadable=[(file.path.relative_to(task.folder).as_posix(), file.item, file.reason) for file in unreadable])
        write_cached(self.folder, self.identity(task, model), records, about, task.compress)

    def expect(self, task: Task, model: EvaluatedModel) -> CachedResult:
        """Return the result of a task; UserError if it is missing."""
        result = self.get(task, model)
        if result is None:
            raise UserError(f'output must be one folder for all ranks; {self.folder} lacks {task.title} of '
                            f'{model.label}')
        return result


class Loading(NamedTuple):
    """How images come to the device; of metrics it changes only the rounding."""

    batch_size: int
    workers: int
    device: torch.device


class _File(NamedTuple):
    task: int
    item: int
    path: Path
    name: str
    label: int


class _Read(NamedTuple):
    task: int
    item: int
    label: int
    pixels: torch.Tensor


@dataclass
class _Files(Dataset):
    """The images of files of all tasks."""

    tasks: Sequence[Task]

    def __getitem__(self, file: _File) -> Union[_Read, Unreadable]:
        task = self.tasks[file.task]
        try:
            loaded = task.load(file.path)
        except UnreadableError as e:
            return Unreadable(file.path, file.item, e.reason)
        pixels = np.stack([np.asarray(image) for image in task.finish(loaded, file.name)])
        return _Read(file.task, file.item, file.label, torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))


def _file_batches(tasks: Sequence[Task], batch_size: int) -> Iterator[List[_File]]:
    """Yield the files of one task after the other; no batch has files of two."""
    for number, task in enumerate(tasks):
        listed, numbers, size = task.list_files(), task.numbers, max(1, batch_size // task.images_per_item)
        for start in range(0, len(numbers), size):
            yield [_File(number, item, listed.folder / listed.files[item][0], *listed.files[item])
                   for item in numbers[start:start + size]]


def _collate(items: Sequence[Any]) -> Tuple[Batch, List[Unreadable]]:
    read = [item for item in items if isinstance(item, _Read)]
    images = torch.cat([item.pixels for item in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    batch = Batch(images, torch.tensor([item.label for item in read], dtype=torch.long),
                  tuple(len(item.pixels) for item in read), tuple(item.item for item in read))
    return batch, [item for item in items if isinstance(item, Unreadable)]


def _load(tasks: Sequence[Task], loading: Loading) -> Iterator[Tuple[Batch, List[Unreadable]]]:
    for task in tasks:
        task.prepare()
    return iter(DataLoader(
        _Files(tasks), batch_sampler=_file_batches(tasks, loading.batch_size),
        num_workers=loading.workers, collate_fn=_collate, pin_memory=loading.device.type == 'cuda'))


@dataclass
class _Run:
    """A task in work."""

    task: Task
    models: Sequence[EvaluatedModel]
    start: float = field(default_factory=time.perf_counter)
    unreadable: List[Unreadable] = field(default_factory=list)
    done: int = 0

    def __post_init__(self) -> None:
        self.parts: Dict[str, List[Records]] = {model.label: [] for model in self.models}
        self.seconds = dict.fromkeys(self.parts, 0.0)

    def measure(self, batch: Batch, device: torch.device, batch_size: int) -> None:
        images = batch.images.to(device, non_blocking=True)
        shared = len(self.models) > 1
        for model in self.models:
            began = time.perf_counter()
            # a function may write into its images, which the next model gets
            own = images.clone() if shared and model.is_callable else images
            try:
                records = self.task.measure(model, batch._replace(images=own))
            except UserError as e:
                raise UserError(f'models must fit the images; {model.label} on {self.task.title}: {e}') from e
            except torch.cuda.OutOfMemoryError as e:
                raise UserError(f'batch_size must be below {batch_size}: {device} has too little memory for '
                                f'{model.label} on {self.task.title}; what is finished is cached') from e
            self.parts[model.label].append(dict(records, item=np.array(batch.items, dtype=np.int32)))
            self.seconds[model.label] += time.perf_counter() - began

    def store(self, cache: TaskCache) -> None:
        shared = (time.perf_counter() - self.start - sum(self.seconds.values())) / len(self.models)
        for model in self.models:
            parts = self.parts[model.label]
            records = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
            cache.put(self.task, model, self.task.complete(records) if parts else records, self.unreadable,
                      shared + self.seconds[model.label])


def image_bar(disable: bool) -> Any:
    """Return a progress bar of images."""
    return tqdm(total=0, unit='image', disable=disable, dynamic_ncols=True)


def _readable(task: Task, path: Path) -> bool:
    try:
        task.load(path)
    except UnreadableError:
        return False
    return True


def _is_cached(cached: Optional[CachedResult]) -> bool:
    """Return whether a result is there, and still lacks only files that cannot be read."""
    return cached is not None and not any(_readable(cached.task, file.path) for file in cached.unreadable)


def run_tasks(
        tasks: Sequence[Any], models: Sequence[Any], cache: TaskCache, loading: Loading, ranks: Optional[Ranks] = None,
        bar: Optional[Any] = None,
) -> None:
    """Measure what is not cached yet, and cache it.

    A file that cannot be read is no error: the cached result names it. It is tried again by the next run.
    """
    bar = image_bar(disable=True) if bar is None else bar
    waiting = []
    bar.reset(total=0)
    for task in (ranks or Ranks()).own(tasks):
        measured = [model for model in models if task.measures(model)]
        missing = [model for model in measured if not _is_cached(cache.get(task, model))]
        bar.total += task.items * task.images_per_item * len(measured)
        bar.update(task.items * task.images_per_item * (len(measured) - len(missing)))
        if missing:
            waiting.append((task, missing))
    if not waiting:
        return
    batches = _load([task for task, _ in waiting], loading)
    for task, missing in waiting:
        run = _Run(task, missing)
        bar.set_postfix_str(f'{task.title} {", ".join(run.parts) if len(missing) < 3 else f"{len(missing)} models"}',
                            refresh=False)
        while run.done < task.items:
            batch, unreadable = next(batches)
            run.unreadable += unreadable
            if len(batch.images):
                run.measure(batch, loading.device, loading.batch_size)
            files = len(batch.items) + len(unreadable)
            run.done += files
            bar.update(files * task.images_per_item * len(missing))
            del batch  # its memory is a file that a worker shares
        run.store(cache)


def keep_items(records: Records, keep: np.ndarray) -> Records:
    """Return the records of some files; ``keep`` says of each row whether."""
    return {name: values[keep] for name, values in records.items()}


def collect_unreadable(results: Sequence[CachedResult]) -> Tuple[Dict[str, Set[int]], List[UnreadableFile]]:
    """Return the numbers of files that one task could not read, by the fingerprint of names, and the files.

    Such a file is left out of all tasks with the same names, for all models.
    """
    items: Dict[str, Set[int]] = {}
    found: Dict[Path, Tuple[str, str]] = {}
    for result in results:
        for file in result.unreadable:
            items.setdefault(result.task.names, set()).add(file.item)
            found.setdefault(file.path, (file.reason, result.task.names))
    titles = {(result.task.names, result.task.title) for result in results}
    return items, [UnreadableFile(printable(path), reason, sum(other == names for other, _ in titles))
                   for path, (reason, names) in sorted(found.items())]
