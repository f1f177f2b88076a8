"""Progress in images, and the time that is left.

Tasks differ in cost: one corruption takes two hundred times another one's time. What is left is predicted from three
measured rates, not from the images alone: reading, finishing in units of each corruption's known cost, and classifying.
"""
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from tqdm import tqdm

from ..evaluation.image_files import Batch
from .datasets.corruptions import MILLISECONDS
from .tasks.measurements import ErrorTask
from .tasks.task import Task

__all__ = ['Progress', 'image_bar']

RESIZE = 0.5  # what finishing a file takes without a corruption, in the same unit


def image_bar(disable: bool) -> Any:
    """Return the bar; its text says what is measured and what is left."""
    return tqdm(total=0, unit='image', disable=disable, dynamic_ncols=True,
                bar_format='{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} images [{elapsed}<{postfix}]')


def _cost(task: Task) -> float:
    """Return the cost of finishing a file, in milliseconds of some machine."""
    return RESIZE + (MILLISECONDS[task.corruption.name] if isinstance(task, ErrorTask) and task.corruption else 0)


@dataclass
class Progress:
    """Images done and to do, by task, and what they took.

    Args:
        workers: Processes that read files; without, reading and classifying take turns.
        bar: A tqdm bar.
        clock: Returns seconds.
    """

    workers: int = 0
    bar: Any = None
    clock: Callable[[], float] = time.perf_counter

    def start(self, work: Sequence[Tuple[Task, int, int]]) -> None:
        """Begin; ``work`` has each task with its numbers of models, all and those that are still to run."""
        self.left: Dict[Task, int] = {}
        self.models = {task: waiting for task, _, waiting in work}
        self.started = self.clock()
        self.read = self.finish = self.classify = 0.0  # seconds
        self.files = self.cost = self.images = self.done_seconds = 0.0
        self.done: Dict[Task, int] = {}
        if self.bar is not None:
            self.bar.reset(total=sum(task.items * task.images_per_item * models for task, models, _ in work))
            self.bar.update(sum(task.items * task.images_per_item * (models - waiting)
                                for task, models, waiting in work))
        for task, _, waiting in work:
            if waiting:
                self.left[task] = task.items
                self.done[task] = 0

    def update(self, task: Task, batch: Batch, seconds: float, text: str = '') -> None:
        """Count a batch that all models have classified in ``seconds``."""
        files = len(batch.items) + len(batch.unreadable)
        self.left[task] -= files
        self.done[task] += files
        self.read += batch.seconds[0]
        self.finish += batch.seconds[1]
        self.files += len(batch.items)
        self.cost += len(batch.items) * _cost(task)
        self.classify += seconds
        self.images += len(batch.images) * self.models[task]
        if self.bar is not None:
            left = self.seconds_left()
            self.bar.set_postfix_str(f'{tqdm.format_interval(left)} left, {text}' if left is not None else text,
                                     refresh=False)
            self.bar.update(files * task.images_per_item * self.models[task])

    def _predict(self, files: Dict[Task, int]) -> float:
        """Return the predicted seconds of so many files of each task."""
        total = 0.0
        for task, count in files.items():
            load = self.read / self.files + _cost(task) * self.finish / self.cost
            run = self.models[task] * task.images_per_item * self.classify / max(1, self.images)
            total += count * (max(load / self.workers, run) if self.workers else load + run)
        return total

    def seconds_left(self) -> Optional[float]:
        """Return the predicted seconds of what is left; None before the first batch."""
        if not self.files:
            return None
        predicted = self._predict(self.done)  # what the rates do not explain slows all tasks alike
        factor = (self.clock() - self.started) / predicted if predicted else 1.0
        return self._predict(self.left) * factor
