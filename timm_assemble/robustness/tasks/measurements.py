"""What tasks measure: errors, agreement on shifted crops, flips along sequences.

Trees are ``corruption/severity/class/*.JPEG``, as in ImageNet-C, and ``perturbation/class/*.mp4``, as in ImageNet-P.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

import numpy as np
from PIL import Image

from ..datasets.corruptions import Corruption, corrupt, image_seed, library_versions, warm_up
from ..datasets.files import FileDataset, FileList, list_files
from ..datasets.images import read_frames, read_image, two_crops
from ..datasets.protocols import Preprocessing, resize_short_side
from ..metrics import ALEXNET_FLIP_RATE, SEVERITIES, compares_with_first, count_flips
from .classify import measure_errors, predict
from .task import Classifier, Task

__all__ = ['ErrorTask', 'FlipTask', 'ShiftTask', 'generated_tasks', 'imagenet_c_tasks', 'imagenet_p_tasks']


@dataclass(frozen=True)
class ErrorTask(Task):
    """Errors and calibration, on images or corruptions generated of them."""

    corruption: Optional[Corruption] = None
    libraries: Optional[Dict[str, str]] = None

    def dataset(self) -> FileDataset:
        if self.corruption is not None:
            warm_up(self.corruption.name, self.corruption.severity)
        return super().dataset()

    def load(self, path: Path) -> Image.Image:
        return self.preprocessing.resize_and_crop(read_image(path))

    def finish(self, loaded: Image.Image, name: str) -> List[Image.Image]:
        if self.corruption is not None:
            kind, severity, seed = self.corruption
            pixels = corrupt(np.asarray(loaded), kind, severity, image_seed(seed, kind, severity, name))
            loaded = Image.fromarray(pixels)
        return [self.preprocessing.resize_to_input(loaded)]

    def measure(self, model: Classifier, batches: Iterable[Any]) -> Dict[str, Any]:
        return measure_errors(model.classify, batches, model.class_map)


def generated_tasks(
        files: FileList, preprocessing: Preprocessing, corruptions: Sequence[str], seed: int,
) -> List[ErrorTask]:
    """Return one task for each corruption and severity, generated on the fly."""
    libraries = library_versions()
    return [ErrorTask.of_files(files, preprocessing, Corruption(name, severity, seed), libraries,
                               group='corruption', name=name, severity=severity)
            for name in corruptions for severity in SEVERITIES]


def _list(values: Sequence[str]) -> str:
    return ', '.join(values[:5]) + (f' and {len(values) - 5} more' if len(values) > 5 else '')


def imagenet_c_tasks(root: Path, preprocessing: Preprocessing, corruptions: Sequence[str]) -> List[ErrorTask]:
    """Check a tree of images and return one task for each corruption and severity.

    One ValueError names all folders that are missing, or all that differ in classes or number of images.
    """
    if not root.is_dir():
        raise ValueError(f'imagenet_c must be a folder with one folder per corruption, got {root}')
    wanted = [(name, severity) for name in corruptions for severity in SEVERITIES]
    absent = [name for name in corruptions if not (root / name).is_dir()]
    missing = absent + [f'{name}/{severity}' for name, severity in wanted
                        if name not in absent and not (root / name / str(severity)).is_dir()]
    if missing:
        raise ValueError(f'imagenet_c must have {len(corruptions)} corruptions with severities 1 to 5, {root} lacks '
                         f'{_list(missing)}; `corruptions` names those to measure, without an mCE')
    tasks: List[ErrorTask] = []
    unlike = []
    for name, severity in wanted:
        files = list_files(root / name / str(severity), parameter='imagenet_c')
        tasks.append(ErrorTask.of_files(files, preprocessing, group='corruption', name=name, severity=severity))
        if len(tasks) == 1:
            classes = files.classes
        if tasks[-1].items != tasks[0].items or files.classes != classes:
            unlike.append(f'{tasks[-1].title} has {tasks[-1].items} of {len(files.classes)}')
    if unlike:
        raise ValueError(f'imagenet_c must have the same classes and number of images in all folders of {root}: '
                         f'{tasks[0].title} has {tasks[0].items} images of {len(classes)} classes, {_list(unlike)}')
    return tasks


@dataclass(frozen=True)
class ShiftTask(Task):
    """Shift consistency: equal predictions on shifted crops (Zhang, ICML 2019).

    The crops have the model's input size and are cut last, so ``shift`` counts pixels of the input.
    """

    shift: int
    seed: int
    images_per_item = 2

    def load(self, path: Path) -> Image.Image:
        image = read_image(path)
        resize, crop, size = self.preprocessing
        return resize_short_side(image, max(1, round((resize or min(image.size)) * size / crop)))

    def finish(self, loaded: Image.Image, name: str) -> List[np.ndarray]:
        seed = image_seed(self.seed, 'shift', self.shift, name)
        return two_crops(np.asarray(loaded), self.preprocessing.size, self.shift, seed)

    def measure(self, model: Classifier, batches: Iterable[Any]) -> Dict[str, Any]:
        images = same = 0
        for batch in batches:
            first, second = predict(model.classify, batch.images).view(-1, 2).unbind(1)
            images, same = images + len(first), same + int((first == second).sum())
        return dict(images=images, same=same)


class FlipTask(Task):
    """Flips along sequences, of 31 frames like most of ImageNet-P's or others."""

    images_per_item = 31
    extensions = ('.mp4',)

    def load(self, path: Path) -> List[Image.Image]:
        steps = self.preprocessing
        frames = [steps.resize_to_input(steps.resize_and_crop(frame)) for frame in read_frames(path)]
        if len(frames) < 2:
            raise ValueError(f'frames must be 2 or more, got {len(frames)}')
        return frames

    def measure(self, model: Classifier, batches: Iterable[Any]) -> Dict[str, Any]:
        sequences = flips = pairs = 0
        for batch in batches:
            for classes in predict(model.classify, batch.images).split(list(batch.counts)):
                changed, of = count_flips(classes.tolist(), compares_with_first(self.name))
                sequences, flips, pairs = sequences + 1, flips + changed, pairs + of
        return dict(sequences=sequences, flips=flips, pairs=pairs)


def imagenet_p_tasks(root: Path, preprocessing: Preprocessing) -> List[FlipTask]:
    """Check a tree of videos and return one task for each perturbation.

    One ValueError names all folders that are missing, or their numbers of videos if these differ.
    """
    perturbations = [*ALEXNET_FLIP_RATE]
    missing = [name for name in perturbations if not (root / name).is_dir()]
    if missing:
        raise ValueError(f'imagenet_p must be a folder with the {len(perturbations)} perturbations '
                         f'{", ".join(perturbations)}; {root} lacks {", ".join(missing)}')
    tasks = [FlipTask.of_files(list_files(root / name, FlipTask.extensions, 'imagenet_p'), preprocessing,
                               group='perturbation', name=name) for name in perturbations]
    if len({task.items for task in tasks}) > 1:
        raise ValueError(f'imagenet_p must have the same number of videos in all perturbations of {root}: '
                         f'{", ".join(f"{task.name} has {task.items}" for task in tasks)}')
    return tasks
