"""Top-1 and top-5 accuracy of a timm model on a folder of images, at the model's test size and crop."""
from pathlib import Path
from typing import Any, NamedTuple, Tuple

import torch
from timm.data import ImageNetInfo
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError
from ..runtime.device import find_device
from .classes import ClassMap, Mapped
from .images import FileList, UnreadableError, list_images, read_image
from .official_steps import replace_evaluation
from .preprocessing import Preprocessing

__all__ = ['Accuracy', 'measure_accuracy']


class Accuracy(NamedTuple):
    """Accuracy in percent with its protocol.

    Attributes:
        top1: Top-1 accuracy.
        top5: Top-5 accuracy.
        images: Number of images that could be read.
        preprocessing: The model's.
        classes: What decided the class of each folder.
        imagenet: Whether every folder is named by a synset of ImageNet-1k.
        unreadable: The images that could not be read, with the reasons.
        official: Whether the transform was the official one instead of timm's.
    """

    top1: float
    top5: float
    images: int
    preprocessing: Preprocessing
    classes: str = ''
    imagenet: bool = False
    unreadable: Tuple[str, ...] = ()
    official: bool = False

    @property
    def protocol(self) -> str:
        """Number of images, height x width, crop, interpolation, transform and what the classes are from."""
        transform = 'the official' if self.official else "timm's"
        return f'{self.images} images at {self.preprocessing.text}, {transform} transform, classes by {self.classes}'

    def __str__(self) -> str:
        return f'top-1 {self.top1:.2f} %, top-5 {self.top5:.2f} % on {self.protocol}'


class _Files(Dataset):
    """Images and classes of a list of files; the error in place of an image that cannot be read."""

    def __init__(self, files: FileList, mapped: Mapped, preprocessing: Preprocessing, official: bool) -> None:
        self.files, self.mapped, self.mode = files, mapped, preprocessing.image_mode
        self.transform = preprocessing.transform() if not official else replace_evaluation(
            preprocessing.size, preprocessing.crop_pct, preprocessing.mean, preprocessing.std)

    def __len__(self) -> int:
        return len(self.files.files)

    def __getitem__(self, index: int) -> Any:
        name, number = self.files.files[index]
        try:
            image = self.transform(read_image(self.files.folder / name, self.mode))
        except UnreadableError as e:
            return e
        return image, self.mapped.indices[self.files.classes[number]]


@torch.inference_mode()
def measure_accuracy(
        model: Any, folder: Path, parameter: str = 'folder', batch_size: int = 50, official: bool = False,
        workers: int = 0) -> Accuracy:
    """Compute the accuracy over all images of a folder, at the model's test size and crop.

    Args:
        model: A timm model. It is put into eval mode and runs on a GPU if there is one, in the end on a CPU.
        folder: Folder with one folder per class, named as :class:`.ClassMap` says.
        parameter: Name of ``folder`` in errors.
        batch_size: Images per batch.
        official: Whether images go through the official transform instead of timm's.
        workers: Processes that read images.

    Raises:
        UserError: ``folder`` has no images that can be read, or its folders are not the model's classes.
    """
    files, preprocessing, device = list_images(folder, parameter), Preprocessing.of_model(model), find_device()
    mapped = ClassMap.of_model(model).find(files.classes, parameter)
    model = model.to(device).eval()
    hits, count, unreadable = torch.zeros(2, dtype=torch.long), 0, []
    for batch in DataLoader(
            _Files(files, mapped, preprocessing, official), batch_size, collate_fn=list, num_workers=workers):
        unreadable += [str(sample) for sample in batch if isinstance(sample, UnreadableError)]
        readable = [sample for sample in batch if not isinstance(sample, UnreadableError)]
        if readable:
            images, labels = (torch.stack([*map(torch.as_tensor, part)]).to(device) for part in zip(*readable))
            top = model(images).topk(min(5, model.num_classes)).indices == labels[:, None]
            hits += torch.stack((top[:, 0].sum(), top.sum())).cpu()
            count += len(readable)
    model.to('cpu')
    if not count:
        raise UserError(f'{parameter} must have images that can be read, got {len(unreadable)} that cannot: '
                        f'{unreadable[0]}')
    top1, top5 = (100 * hits / count).tolist()
    imagenet = {*files.classes} <= {*ImageNetInfo('imagenet-1k').label_names()}
    return Accuracy(top1, top5, count, preprocessing, mapped.by, imagenet, tuple(unreadable), official)
