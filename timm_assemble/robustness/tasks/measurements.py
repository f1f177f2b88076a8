"""What tasks measure: errors, agreement on shifted crops, flips along sequences."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, List, Optional

import numpy as np
from PIL import Image

from ...errors import UserError
from ...evaluation.image_files import Batch, FileDataset, read_image
from ..datasets.corruptions import Corruption, corrupt, image_seed, warm_up
from ..datasets.images import read_frames, two_crops
from ..datasets.protocols import resize_short_side
from ..metrics import compares_with_first, count_flips, top5_distances
from . import classify
from .calibration import calibrate
from .task import Classifier, Records, Task

__all__ = ['ErrorTask', 'FlipTask', 'ShiftTask']


@dataclass(frozen=True, eq=False)
class ErrorTask(Task):
    """Errors and calibration, on images or corruptions generated of them."""

    corruption: Optional[Corruption] = None
    libraries: Optional[Dict[str, str]] = None
    calibrated: bool = field(default=False, kw_only=True)  # fit a temperature on every second image

    @property
    def needs(self) -> Any:  # type: ignore[override]
        return ('temperature',) if self.calibrated else ()

    @property
    def identity(self) -> Dict[str, Any]:
        return {key: value for key, value in super().identity.items() if key != 'calibrated'}

    def dataset(self) -> FileDataset:
        if self.corruption is not None:
            warm_up(self.corruption.name, self.corruption.severity)
        return super().dataset()

    def load(self, path: Path) -> Image.Image:
        image = read_image(path)
        if self.label_space.folders == 'objectnet':  # its images have a red border, against training on them
            image = image.crop((2, 2, image.width - 2, image.height - 2))
        return self.preprocessing.resize_and_crop(image)

    def finish(self, loaded: Image.Image, name: str) -> List[Image.Image]:
        if self.corruption is not None:
            kind, severity, seed = self.corruption
            pixels = corrupt(np.asarray(loaded), kind, severity, image_seed(seed, kind, severity, name))
            loaded = Image.fromarray(pixels)
        return [self.preprocessing.resize_to_input(loaded)]

    def measure(self, model: Classifier, batch: Batch) -> Records:
        return classify.error_records(
            model.classify, batch.images, batch.classes, self.label_map(model), self.calibrated)

    def complete(self, records: Records) -> Records:
        return calibrate(records) if self.calibrated else records

    def metrics(self, records: Records) -> Dict[str, Any]:
        return classify.error_metrics(records)

    def sums(self, records: Records) -> np.ndarray:
        return classify.error_sums(records)

    def metrics_of_sums(self, sums: np.ndarray) -> Dict[str, Any]:
        return classify.metrics_of_error_sums(sums)


@dataclass(frozen=True, eq=False)
class ShiftTask(Task):
    """Shift consistency: equal predictions on shifted crops (Zhang, ICML 2019).

    The crops have the model's input size and are cut last, so ``shift`` counts pixels of the input.
    """

    shift: int
    seed: int
    images_per_item = 2
    labelled: ClassVar[bool] = False

    def load(self, path: Path) -> Image.Image:
        image = read_image(path)
        resize, crop, size = self.preprocessing
        return resize_short_side(image, max(1, round((resize or min(image.size)) * size / crop)))

    def finish(self, loaded: Image.Image, name: str) -> List[np.ndarray]:
        seed = image_seed(self.seed, 'shift', self.shift, name)
        return two_crops(np.asarray(loaded), self.preprocessing.size, self.shift, seed)

    def measure(self, model: Classifier, batch: Batch) -> Records:
        first, second = classify.predict(model.classify, batch.images)[:, 0].view(-1, 2).unbind(1)
        return dict(first=first.int().numpy(), second=second.int().numpy())

    def metrics(self, records: Records) -> Dict[str, Any]:
        return dict(images=len(records['first']), same=int((records['first'] == records['second']).sum()))

    def sums(self, records: Records) -> np.ndarray:
        return np.stack([np.ones(len(records['first'])), records['first'] == records['second']], 1)

    def metrics_of_sums(self, sums: np.ndarray) -> Dict[str, Any]:
        return dict(zip(('images', 'same'), sums.tolist()))


class FlipTask(Task):
    """Flips and top-5 distances along sequences, of 31 frames like most of ImageNet-P's or others."""

    images_per_item = 31
    extensions = ('.mp4',)
    labelled: ClassVar[bool] = False
    COUNTS = ('sequences', 'flips', 'pairs', 'top5_distance')

    def load(self, path: Path) -> List[Image.Image]:
        steps = self.preprocessing
        frames = [steps.resize_to_input(steps.resize_and_crop(frame)) for frame in read_frames(path)]
        if len(frames) < 2:
            raise UserError(f'frames must be 2 or more, got {len(frames)}')
        return frames

    def measure(self, model: Classifier, batch: Batch) -> Records:
        rows, with_first = [], compares_with_first(self.name)
        top = classify.predict(model.classify, batch.images)
        for frames in top.split(list(batch.counts)):
            flips, pairs = count_flips(frames[:, 0].tolist(), with_first)
            rows.append((len(frames), flips, pairs, sum(top5_distances(frames.numpy(), with_first))))
        columns = np.array(rows, dtype=np.int64).reshape(-1, 4)
        names = ('frames', 'flips', 'pairs', 'top5_distance')
        return dict(zip(names, columns.T), frame_top5=top.int().numpy())

    def metrics(self, records: Records) -> Dict[str, Any]:
        return dict(sequences=len(records['pairs']), **{name: int(records[name].sum()) for name in self.COUNTS[1:]})

    def sums(self, records: Records) -> np.ndarray:
        return np.stack([np.ones(len(records['pairs'])), *(records[name] for name in self.COUNTS[1:])], 1)

    def metrics_of_sums(self, sums: np.ndarray) -> Dict[str, Any]:
        return dict(zip(self.COUNTS, sums.tolist()))
