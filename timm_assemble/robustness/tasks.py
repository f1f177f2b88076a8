"""What is measured: errors, agreement on shifted crops, flips along sequences, and images of no class.

A task knows where its metrics are in a model's report: nothing else asks what kind it is.
"""
from abc import abstractmethod
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Optional, Sequence, Tuple

import numpy as np
import torch
from PIL import Image

from ..data.images import EXTENSIONS, FileList, list_images, read_image
from ..errors import UserError
from ..evaluation.engine import Batch, Records, Task
from ..evaluation.models import FromPixels, EvaluatedModel, compute_outputs
from .corruptions import Corruption, corrupt, image_seed, warm_up
from .metrics import compares_with_first, count_flips
from .protocols import Steps, read_frames, resize_short_side, two_crops
from .statistics import Drawn, calibrate, detect, image_scores
from .test_sets import ANY, LabelMap, LabelSpace, real_labels

__all__ = [
    'Classifier', 'CleanTask', 'Corruption', 'CorruptionTask', 'ErrorTask', 'FlipTask', 'ForeignTask', 'Metrics',
    'RobustnessTask', 'ShiftTask', 'OtherSetTask', 'compute_logits', 'error_records']

Metrics = Dict[str, Any]  # numbers, or arrays with one for each resample


@dataclass(frozen=True, kw_only=True)
class Classifier(EvaluatedModel):
    """A model under test; ``label_map`` finds its classes of the folders of a task."""

    label_map: Callable[['RobustnessTask'], Optional[LabelMap]] = lambda task: None


def compute_logits(classify: FromPixels, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of images as float32; OutputError if they are not (N, C) or not finite."""
    return compute_outputs(classify, images, 'logits', 'classes')


def _lookup(label_map: LabelMap) -> torch.Tensor:
    """Return (folders, M) right classes, filled up with -1."""
    most = max(map(len, label_map.targets))
    return torch.tensor([[*targets, *[-1] * (most - len(targets))] for targets in label_map.targets])


@torch.inference_mode()
def error_records(
        classify: FromPixels, images: torch.Tensor, folders: torch.Tensor, label_map: Optional[LabelMap],
        keep_logits: bool = False,
) -> Records:
    """Classify (N, 3, H, W) images in (N,) folders.

    Args:
        label_map: The model's classes of the folders, and those among which it predicts. Without targets no prediction
            is right; without a map a folder's number is its class.
        keep_logits: Return the logits, too.

    Returns:
        Of each image ``label`` (its class, the first if there are more, -1 for none), ``top5`` (the predicted classes),
        ``confidence`` (the largest probability), ``energy`` (log-sum-exp of the logits), ``hit1`` and ``hit5``
        (whether a right class is predicted first, or among five), and with right classes ``nll`` and ``brier``.
    """
    logits = compute_logits(classify, images)
    mask = label_map.mask if label_map else None
    if mask is not None:
        logits = logits[:, torch.tensor(mask, device=logits.device)]
    top = logits.topk(min(5, logits.shape[1])).indices.cpu()  # fewer for fewer classes
    result = dict(confidence=logits.softmax(1).amax(1), energy=logits.logsumexp(1))
    if mask is not None:
        top = torch.tensor(mask)[top]
    if label_map is None:
        targets = folders[:, None].cpu()
        if len(targets) and int(targets.max()) >= logits.shape[1]:
            raise UserError(f'classes must be below {logits.shape[1]}, as many as logits, got {int(targets.max())}')
    elif label_map.targets:
        targets = _lookup(label_map)[folders.cpu()]
    else:
        targets = torch.full((len(top), 1), -1)
    hits = (top[:, :, None] == targets[:, None, :]).any(2)
    result.update(label=targets[:, 0].int(), top5=top.int(), hit1=hits[:, 0], hit5=hits.any(1))
    if label_map is None or label_map.targets:
        columns = targets
        if mask is not None:
            of_class = torch.full((max(*mask, int(targets.max())) + 2,), -1)  # the last is that of -1
            of_class[list(mask)] = torch.arange(len(mask))
            columns = of_class[targets]
        result.update(image_scores(logits, columns))
    if keep_logits:
        result.update(logits=logits, column=columns[:, 0])
    return {name: value.cpu().numpy() for name, value in result.items()}


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class RobustnessTask(Task):
    """A measurement on one folder: a corruption at a severity, a perturbation, clean images or a test set."""

    name: str  # corruption, perturbation, test set or 'clean'
    folder: Path
    items: int
    data: str  # fingerprint of the file list
    names: str
    classes: Tuple[str, ...]  # of the folder
    steps: Steps
    parameter: str = field(kw_only=True)  # of the user's, for messages
    severity: int = field(default=0, kw_only=True)  # 0 where there is none
    label_space: LabelSpace = field(default=ANY, kw_only=True)
    only: Optional[Tuple[str, ...]] = field(default=None, kw_only=True)  # classes, None for all
    labels: Optional[Path] = field(default=None, kw_only=True)  # ReaL's, if they decide instead of the folders

    group: ClassVar[str]  # in keys of predictions and lines of the CSV
    section: ClassVar[str]  # of a report
    extensions: ClassVar[Sequence[str]] = EXTENSIONS
    labelled: ClassVar[bool] = True  # whether the model must have the folders' classes
    tested: ClassVar[bool] = False  # whether hits of two models are compared
    by_class: ClassVar[bool] = False  # whether results have accuracy by class, and a reliability diagram
    packages: ClassVar[Tuple[str, ...]] = ()  # whose versions results have
    NOT_IN_IDENTITY: ClassVar[Tuple[str, ...]] = (
        'folder', 'items', 'names', 'classes', 'parameter', 'label_space', 'only', 'labels')

    @classmethod
    def of_files(cls, name: str, files: FileList, *args: Any, **kwargs: Any) -> Any:
        """Make the task of a file list; ``args`` begin with ``steps``."""
        return cls(name, files.folder, len(files.files), files.fingerprint, files.names, files.classes, *args, **kwargs)

    @property
    def title(self) -> str:  # type: ignore[override]
        """Name and severity, for messages."""
        return f'{self.name}/{self.severity}' if self.severity else self.name

    @property
    def key(self) -> str:
        """Name of its arrays in files of predictions."""
        return '/'.join([self.group, self.name, *([str(self.severity)] if self.severity else [])])

    @property
    def place(self) -> Tuple[str, ...]:
        """Keys of its metrics in a model's report."""
        return self.section, self.name

    def put(self, report: Dict[str, Any], metrics: Metrics) -> None:
        """Put metrics into their place."""
        *above, key = self.place
        for name in above:
            report = report.setdefault(name, {})
        report[key] = metrics

    @property
    def source(self) -> str:
        """Name of its images in the results' ``data``."""
        return self.name

    def identity(self, model: Classifier) -> Dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.NOT_IN_IDENTITY}
        label_map = self.label_map(model)
        return dict(own, group=self.group, border=self.label_space.border,
                    label_map=label_map and [label_map.targets, label_map.mask])

    def label_map(self, model: Classifier) -> Optional[LabelMap]:
        """Return the model's classes of the folders; None where the task needs none."""
        return model.label_map(self) if self.labelled else None

    def list_files(self) -> FileList:
        listed = list_images(self.folder, self.parameter, only=self.only, extensions=self.extensions)
        if self.labels:
            listed, _ = real_labels(self.labels, listed)
        if listed.fingerprint != self.data:
            raise UserError(f'{self.parameter} must not change during the run, but {self.folder} did')
        return listed

    @abstractmethod
    def metrics(self, records: Records, weights: Any, reference: Any = None) -> Metrics:
        """Return the metrics of (B, files) resampled files, of which ``weights`` says how often each is drawn.

        Args:
            records: Of the files.
            weights: Once each for the files themselves.
            reference: For images of no class: records and weights of the clean ones.
        """


@dataclass(frozen=True, eq=False)
class ErrorTask(RobustnessTask):
    """Errors and calibration."""

    calibrated: bool = field(default=False, kw_only=True)  # fit a temperature on every second image
    shuffle: Optional[int] = field(default=None, kw_only=True)  # seed of the order of measuring; None: that of the list
    tested: ClassVar[bool] = True
    NOT_IN_IDENTITY: ClassVar[Tuple[str, ...]] = (*RobustnessTask.NOT_IN_IDENTITY, 'calibrated')

    @property
    def needs(self) -> Tuple[str, ...]:  # type: ignore[override]
        return ('hit1', 'hit5', 'confidence', 'nll', 'brier', *(('calibrated_nll',) if self.calibrated else ()))

    def load(self, path: Path) -> Image.Image:
        image, border = read_image(path), self.label_space.border
        if border:
            image = image.crop((border, border, image.width - border, image.height - border))
        return self.steps.resize_and_crop(image, path)

    def finish(self, loaded: Image.Image, name: str) -> List[Image.Image]:
        return [self.steps.resize_to_input(loaded)]

    def measure(self, model: Classifier, batch: Batch) -> Records:
        return error_records(model.compute, batch.images, batch.classes, self.label_map(model), self.calibrated)

    @property
    def numbers(self) -> Sequence[int]:
        if self.shuffle is None:
            return super().numbers
        return np.random.RandomState(self.shuffle).permutation(self.items).tolist()

    def complete(self, records: Records) -> Records:
        order = np.argsort(records['item'])
        records = {name: values[order] for name, values in records.items()}
        return calibrate(records) if self.calibrated else records

    def metrics(self, records: Records, weights: Any, reference: Any = None) -> Metrics:
        return Drawn(records, weights).metrics()


@dataclass(frozen=True, eq=False)
class CleanTask(ErrorTask):
    """Clean images."""

    group: ClassVar[str] = 'clean'
    by_class: ClassVar[bool] = True

    @property
    def place(self) -> Tuple[str, ...]:
        return ('clean',)


@dataclass(frozen=True, eq=False)
class OtherSetTask(ErrorTask):
    """Other images of the models' classes, or the clean ones of a masked set's classes, ``NAME-clean``."""

    group: ClassVar[str] = 'test_set'
    section: ClassVar[str] = 'test_sets'
    by_class: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class CorruptionTask(ErrorTask):
    """Images with a corruption at a severity, read, or generated on the fly from clean images."""

    corruption: Optional[Corruption] = None
    libraries: Optional[Dict[str, str]] = None
    group: ClassVar[str] = 'corruption'

    @property
    def place(self) -> Tuple[str, ...]:
        return 'corruptions', self.name, 'severities', str(self.severity)

    @property
    def source(self) -> str:
        return 'corruption' if self.corruption is None else 'clean'

    def prepare(self) -> None:
        if self.corruption is not None:
            warm_up(self.corruption.name, self.corruption.severity)

    def finish(self, loaded: Image.Image, name: str) -> List[Image.Image]:
        if self.corruption is not None:
            kind, severity, seed = self.corruption
            pixels = corrupt(np.asarray(loaded), kind, severity, image_seed(seed, kind, severity, name))
            loaded = Image.fromarray(pixels)
        return [self.steps.resize_to_input(loaded)]


@dataclass(frozen=True, eq=False)
class ForeignTask(ErrorTask):
    """Images of none of the models' classes, which are told from clean ones."""

    group: ClassVar[str] = 'ood'
    section: ClassVar[str] = 'ood'
    tested: ClassVar[bool] = False
    needs = ('confidence', 'energy')

    def metrics(self, records: Records, weights: Any, reference: Any = None) -> Metrics:
        clean, clean_weights = reference
        return dict(images=weights.sum(1), **detect(clean, records, clean_weights, weights))


@dataclass(frozen=True, eq=False)
class ShiftTask(RobustnessTask):
    """Shift consistency: equal predictions on shifted crops (Zhang, ICML 2019).

    The crops have the model's input size and are cut last, so ``shift`` counts pixels of the input.
    """

    shift: int
    seed: int
    group: ClassVar[str] = 'shift'
    images_per_item: ClassVar[int] = 2
    labelled: ClassVar[bool] = False
    needs = ('first', 'second')

    @property
    def title(self) -> str:  # type: ignore[override]
        return f'shift {super().title}'

    @property
    def place(self) -> Tuple[str, ...]:
        return ('shift',)

    def load(self, path: Path) -> Image.Image:
        image, (resize, crop, size) = read_image(path), self.steps
        return resize_short_side(image, max(1, round((resize or min(image.size)) * max(size) / crop)))

    def finish(self, loaded: Image.Image, name: str) -> List[np.ndarray]:
        return two_crops(np.asarray(loaded), self.steps.size, self.shift,
                         image_seed(self.seed, 'shift', self.shift, name))

    def measure(self, model: Classifier, batch: Batch) -> Records:
        predicted = compute_logits(model.compute, batch.images).argmax(1).cpu()
        first, second = predicted.view(-1, 2).unbind(1)
        return dict(first=first.int().numpy(), second=second.int().numpy())

    def metrics(self, records: Records, weights: Any, reference: Any = None) -> Metrics:
        drawn = Drawn(records, weights)
        return dict(pixels=self.shift, images=drawn.images,
                    consistency=100 * drawn.mean(records['first'] == records['second']))


@dataclass(frozen=True, eq=False)
class FlipTask(RobustnessTask):
    """Flips along sequences, of 31 frames like most of ImageNet-P's or others."""

    group: ClassVar[str] = 'perturbation'
    section: ClassVar[str] = 'perturbations'
    images_per_item: ClassVar[int] = 31
    extensions: ClassVar[Sequence[str]] = ('.mp4',)
    labelled: ClassVar[bool] = False
    packages: ClassVar[Tuple[str, ...]] = ('av',)
    needs = ('frames', 'flips', 'pairs')

    @property
    def source(self) -> str:
        return 'perturbation'

    def load(self, path: Path) -> List[Image.Image]:
        return [self.steps.resize_to_input(self.steps.resize_and_crop(frame, path)) for frame in read_frames(path)]

    def measure(self, model: Classifier, batch: Batch) -> Records:
        predicted = compute_logits(model.compute, batch.images).argmax(1).cpu().split(list(batch.counts))
        flips = [count_flips(frames.tolist(), compares_with_first(self.name)) for frames in predicted]
        return dict(frames=np.array(batch.counts), flips=np.array(flips), pairs=np.array(batch.counts) - 1)

    def metrics(self, records: Records, weights: Any, reference: Any = None) -> Metrics:
        flips, pairs = weights @ records['flips'], weights @ records['pairs']
        return dict(sequences=weights.sum(1), flips=flips, pairs=pairs, flip_rate=100 * flips / pairs)
