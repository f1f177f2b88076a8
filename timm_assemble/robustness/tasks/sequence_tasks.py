"""Tasks of perturbation sequences: ``perturbation/class/*.mp4``, as in ImageNet-P."""
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence

from ..datasets.files import list_files
from ..datasets.protocols import Preprocessing
from ..datasets.sequences import VIDEOS, PerturbationDataset
from ..metrics import ALEXNET_FLIP_RATE, compares_with_first, count_flips
from .classify import predict
from .task import Classifier, Task

__all__ = ['PERTURBATIONS', 'FlipTask', 'imagenet_p_tasks']

PERTURBATIONS = tuple(ALEXNET_FLIP_RATE)


class FlipTask(Task):
    """Flips of the prediction along sequences; most of ImageNet-P's have 31 frames, other lengths work too."""

    images_per_item = 31

    def dataset(self) -> PerturbationDataset:
        return PerturbationDataset(list_files(self.folder, VIDEOS), self.preprocessing)

    def measure(self, model: Classifier, batches: Iterable[Any]) -> Dict[str, Any]:
        sequences = flips = pairs = 0
        for batch in batches:
            for classes in predict(model.classify, batch.images).split(list(batch.counts)):
                changed, of = count_flips(classes.tolist(), compares_with_first(self.name))
                sequences, flips, pairs = sequences + 1, flips + changed, pairs + of
        return dict(sequences=sequences, flips=flips, pairs=pairs)


def imagenet_p_tasks(
        root: Path, preprocessing: Preprocessing, perturbations: Sequence[str] = PERTURBATIONS,
) -> List[FlipTask]:
    """Return one task for each perturbation of a tree of videos, all of which is checked first.

    Args:
        root: Folder with one folder per perturbation, which has one folder per class.
        preprocessing: From frames to the model's input; ImageNet-P's frames are not resized before the crop.
        perturbations: Names of those to measure.

    Raises:
        ValueError: Folders are missing, or differ in their number of videos; one message names all of them.
    """
    missing = [name for name in perturbations if not (root / name).is_dir()]
    if missing:
        raise ValueError(f'imagenet_p must be a folder with the {len(perturbations)} perturbations '
                         f'{", ".join(perturbations)}; {root} lacks {", ".join(missing)}')
    lists = {name: list_files(root / name, VIDEOS, 'imagenet_p') for name in perturbations}
    counts = {name: len(files.files) for name, files in lists.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f'imagenet_p must have the same number of videos in all perturbations of {root}: '
                         f'{", ".join(f"{name} has {count}" for name, count in counts.items())}')
    return [FlipTask.of_files(files, preprocessing, group='perturbation', name=name) for name, files in lists.items()]
