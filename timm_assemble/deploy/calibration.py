"""Images for quantization: some calibrate, the others are held out for the accuracy gate."""
from pathlib import Path
from typing import Any, Iterable, List, NamedTuple, Sequence, Tuple

import torch

from ..data.images import UnreadableError, list_images, read_image
from ..data.preprocessing import size_of
from ..errors import UserError, check
from ..models.loading import ModelSource

__all__ = ['CalibrationImages', 'MAX_IMAGES', 'MIN_IMAGES', 'load_folder', 'split_images', 'whole_batches']

MAX_IMAGES = 512  # read from a folder or a loader
MIN_IMAGES = 40
MIN_DISTINCT = 10  # with fewer, neither ranges nor agreement say anything about other images
ONE_IN = 4  # images that calibrate; the gate needs more than the ranges of activations do


class CalibrationImages(NamedTuple):
    """Preprocessed images ``(N, C, H, W)``.

    Attributes:
        calibration: Every fourth image, from which the ranges of activations come.
        held_out: The others, on which the quantized model is compared with the model.
    """

    calibration: torch.Tensor
    held_out: torch.Tensor


def split_images(batches: Iterable[Any], size: Sequence[int], max_images: int = MAX_IMAGES) -> CalibrationImages:
    """Read images and split them.

    Args:
        batches: Batches of images as the model takes them, ``(B, C, H, W)``, or tuples that begin with such a batch.
            Reading stops after ``max_images`` images.
        size: ``(C, H, W)`` of all images.
        max_images: Most images to use.

    Raises:
        UserError: Other images, or fewer than 40.
    """
    images: List[torch.Tensor] = []
    for batch in batches:
        x = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not (isinstance(x, torch.Tensor) and x.is_floating_point() and x.shape[1:] == torch.Size(size)):
            got = f'{x.dtype} {tuple(x.shape)}' if isinstance(x, torch.Tensor) else type(x).__name__
            raise UserError(
                f'calibration must yield floating point images of (B, {", ".join(map(str, size))}), got {got}.')
        images += x.detach().float().cpu()
        if len(images) >= max_images:
            break
    images = images[:max_images]
    if len(images) < MIN_IMAGES:
        raise UserError(f'calibration must have at least {MIN_IMAGES} images, got {len(images)}.')
    distinct = len({x.numpy().tobytes() for x in images})
    if distinct < MIN_DISTINCT:
        raise UserError(
            f'calibration must have at least {MIN_DISTINCT} distinct images, got {distinct} of {len(images)}.')
    return CalibrationImages(
        torch.stack(images[::ONE_IN]), torch.stack([x for i, x in enumerate(images) if i % ONE_IN]))


def whole_batches(images: torch.Tensor, batch_size: int) -> Tuple[torch.Tensor, ...]:
    """Split images into batches of one size, for what takes or is compiled for one; the last images are left out."""
    check(batch_size <= len(images), 'batch_size', batch_size, f'at most {len(images)}, a quarter of the images')
    return images[:len(images) // batch_size * batch_size].split(batch_size)


def load_folder(
        root: Path, source: ModelSource, size: Sequence[int], max_images: int = MAX_IMAGES,
) -> Tuple[torch.Tensor, List[str]]:
    """Load images of a folder with the preprocessing of a model's evaluation.

    The choice is deterministic: of the sorted files, in all subfolders, every n-th.

    Args:
        root: Folder, flat or with subfolders such as one folder per class.
        source: The model and its preprocessing.
        size: ``(C, H, W)`` of the result.
        max_images: Most images to load.

    Returns:
        Images ``(N, C, H, W)``, and a line for each file that was skipped because it cannot be read.

    Raises:
        UserError: ``root`` is not a folder, or has fewer than 40 images that can be read.
    """
    files = [name for name, _ in list_images(root, 'calibrate', labelled=False).files]
    chosen = [files[i * len(files) // max_images] for i in range(max_images)] if len(files) > max_images else files
    preprocessing = source.preprocessing.with_size(size_of(size[1:]))
    transform = preprocessing.transform()
    images, skipped = [], []
    for name in chosen:
        try:
            images.append(transform(read_image(root / name, preprocessing.image_mode)))
        except UnreadableError as e:
            skipped.append(f'{e.path}: {e.reason}')
    if len(images) < MIN_IMAGES:
        raise UserError(
            f'calibrate must have at least {MIN_IMAGES} images that can be read, got {len(images)} in {root}')
    return torch.stack(images), skipped
