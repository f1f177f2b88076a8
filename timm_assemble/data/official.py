"""The official data pipeline: what the TensorFlow 1 code does to an image before the network sees it.

Images are 8-bit RGB, of Pillow or as arrays ``(H, W, 3)``. Random numbers are drawn from Python's ``random``.
"""
import functools
import random
from typing import Any, Callable, Optional, Tuple, Union

import numpy as np
import torch
from PIL import Image

from ..errors import check
from .official_autoaugment import AutoAugment
from .preprocessing import Size, size_of

__all__ = [
    'AutoAugment', 'evaluation_pixels', 'evaluation_size', 'evaluation_transform', 'resize', 'sample_crop',
    'training_crop',
]

MEAN = (123.68, 116.78, 103.94)  # of each channel; the official code does not divide by a standard deviation
AREA, RATIO, COVERED, ATTEMPTS = (0.05, 1.0), (0.75, 1.33), 0.1, 100  # of training crops

Pixels = Union[Image.Image, np.ndarray]


def _neighbors(length: int, new: int, start: int, count: int) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return each new position's two neighbors along an axis, and the second's weight."""
    source = torch.arange(start, start + count, dtype=torch.float32) * (torch.tensor(float(length)) / new)
    low = source.long()
    return low, (low + 1).clamp(max=length - 1), source - low


def _by_channel(columns: torch.Tensor, channels: int) -> torch.Tensor:
    return (columns[:, None] * channels + torch.arange(channels)).flatten()


def resize(pixels: np.ndarray, size: Size, window: Optional[Tuple[int, int, int, int]] = None) -> torch.Tensor:
    """Resize as TensorFlow 1's bilinear resize: no half-pixel shift, no antialiasing, no rounding.

    Args:
        pixels: uint8 ``(H, W, C)``.
        size: New height and width.
        window: Top, left, height and width of the part of the new image to return; all of it if None.

    Returns:
        float32 ``(h, w, C)``, 0 to 255.
    """
    top, left, height, width = window or (0, 0, *size)
    channels = pixels.shape[2]
    above, below, y = _neighbors(pixels.shape[0], size[0], top, height)
    before, after, x = _neighbors(pixels.shape[1], size[1], left, width)
    first, last = int(above[0]), int(below[-1])
    rows = torch.from_numpy(np.array(pixels[first:last + 1])).flatten(1).float()  # 2-D: several times as fast
    start = rows.index_select(1, _by_channel(before, channels))
    end = rows.index_select(1, _by_channel(after, channels))
    rows = end.sub_(start).mul_(x.repeat_interleave(channels)).add_(start)
    start, end = rows.index_select(0, above - first), rows.index_select(0, below - first)
    return end.sub_(start).mul_(y[:, None]).add_(start).view(height, width, channels)


def evaluation_size(height: int, width: int, short: int) -> Size:
    """Return height and width of an image that is resized to a short side; float32, truncated."""
    scale = np.float32(short) / np.float32(min(height, width))
    return int(np.float32(height) * scale), int(np.float32(width) * scale)


def evaluation_pixels(image: Pixels, side: int, short: int) -> torch.Tensor:
    """Return the central crop of an image that is resized to a short side: float32 ``(3, side, side)``, 0 to 255."""
    pixels = np.asarray(image)
    height, width = size = evaluation_size(pixels.shape[0], pixels.shape[1], short)
    window = ((height - side) // 2, (width - side) // 2, side, side)
    return resize(pixels, size, window).permute(2, 0, 1).contiguous()


def _evaluate(image: Pixels, side: int, short: int) -> torch.Tensor:
    return evaluation_pixels(image, side, short) - torch.tensor(MEAN)[:, None, None]


def evaluation_transform(size: int, crop_type: int = 0) -> Callable[[Pixels], torch.Tensor]:
    """Return the transform that the published top-1 was measured with.

    Args:
        size: Side of the central crop: 256 for the paper's networks of rows E9 to E12, else 224.
        crop_type: 1 for Assemble-ResNet-152, whose short side is ``size + 1``; 0 for ``int(size / 0.875)``.

    Returns:
        A function from an image to the network's input, float32 ``(3, size, size)``: 0 to 255 minus the means.

    Departures:
        Pillow decodes JPEG files with the accurate cosine transform. TensorFlow's default is the fast one, whose pixels
        are 1 of 255 apart on average.
    """
    check(isinstance(size, int) and size > 0, 'size', size, 'a positive integer')
    check(crop_type in (0, 1), 'crop_type', crop_type, '0 or 1')
    return functools.partial(_evaluate, side=size, short=size + 1 if crop_type else int(size / 0.875))


def sample_crop(height: int, width: int) -> Tuple[int, int, int, int]:
    """Draw a training crop: top, left, height and width.

    Each attempt draws an aspect ratio from 0.75 to 1.33, then a height among those that give 5 % to 100 % of the area
    and fit into the image. Crops below 10 % of the area are rejected: at 375 x 500 the mean area is 0.39. After 100
    attempts it is the whole image. As in TensorFlow's ``sample_distorted_bounding_box``, the last position is never
    drawn.
    """
    area = height * width
    for _ in range(ATTEMPTS):
        ratio = random.uniform(*RATIO)
        lowest, highest = (round((share * area / ratio) ** 0.5) for share in AREA)
        highest = min(highest, height, int((width + 0.5) / ratio))
        crop_height = random.randint(min(lowest, highest), highest)
        crop_width = round(crop_height * ratio)
        if crop_width <= width and crop_height * crop_width >= COVERED * area:
            top, left = (random.randrange(room) if room else 0 for room in (height - crop_height, width - crop_width))
            return top, left, crop_height, crop_width
    return 0, 0, height, width


def _crop(image: Pixels, size: Size, hflip: float) -> Any:
    if isinstance(image, np.ndarray):
        return np.array(_crop(Image.fromarray(image), size, hflip))
    top, left, height, width = sample_crop(image.height, image.width)
    pixels = np.asarray(image.crop((left, top, left + width, top + height)))
    if random.random() < hflip:  # before the resize, which is not symmetric
        pixels = pixels[:, ::-1]
    return Image.fromarray(resize(pixels, size).to(torch.uint8).numpy())


def training_crop(size: Union[int, Size], hflip: float = 0.5) -> Callable[[Pixels], Any]:
    """Return the random crop of training: crop, flip, resize and truncation to 8 bits.

    Args:
        size: Height and width of the result, or one number for both.
        hflip: Probability of the flip.

    Returns:
        A function from an image to an image of the same kind, which :class:`AutoAugment` takes.

    Departures:
        Without AutoAugment the official code keeps the fractions of gray levels. timm's loader takes 8 bits.
    """
    return functools.partial(_crop, size=size_of(size, 'size'), hflip=hflip)
