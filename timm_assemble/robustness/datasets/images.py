"""Pixels of files: images, clean, corrupted or shifted, and sequences."""
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

import numpy as np
from PIL import Image

from .corruptions import Corruption, corrupt, image_seed
from .files import FileDataset
from .protocols import resize_short_side

__all__ = ['VIDEOS', 'ImageDataset', 'PerturbationDataset', 'ShiftDataset', 'read_frames', 'read_image', 'two_crops']

VIDEOS = ('.mp4',)


def read_image(path: Path) -> Image.Image:
    """Decode an image as RGB, as it is stored: the EXIF rotation is not applied."""
    with Image.open(path) as image:
        return image.convert('RGB')


@dataclass
class ImageDataset(FileDataset):
    """Images, with one corruption each if it is given: (1, 3, S, S) per file."""

    corruption: Optional[Corruption] = None

    def load(self, path: Path) -> Image.Image:
        return self.preprocessing.resize_and_crop(read_image(path))

    def finish(self, loaded: Image.Image, name: str) -> List[Image.Image]:
        if self.corruption is not None:
            kind, severity, seed = self.corruption
            pixels = corrupt(np.asarray(loaded), kind, severity, image_seed(seed, kind, severity, name))
            loaded = Image.fromarray(pixels)
        return [self.preprocessing.resize_to_input(loaded)]


def two_crops(image: np.ndarray, size: int, shift: int, seed: int) -> List[np.ndarray]:
    """Return two random crops, at most ``shift`` pixels apart along each axis.

    Each position is drawn from the ``(shift + 1)^2`` around the center. Images smaller than ``size + shift`` are padded
    by reflection.
    """
    missing = [max(0, size + shift - side) for side in image.shape[:2]]
    image = np.pad(image, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode='reflect')
    corner = [(side - size - shift) // 2 for side in image.shape[:2]]
    positions = np.random.RandomState(seed).randint(0, shift + 1, size=(2, 2)) + corner
    return [image[top:top + size, left:left + size] for top, left in positions]


@dataclass
class ShiftDataset(FileDataset):
    """Images as pairs of shifted crops: (2, 3, S, S) per file.

    The crops have the model's input size and are cut last, so ``shift`` counts pixels of the input.
    """

    shift: int
    seed: int

    def load(self, path: Path) -> Image.Image:
        image = read_image(path)
        resize, crop, size = self.preprocessing
        return resize_short_side(image, max(1, round((resize or min(image.size)) * size / crop)))

    def finish(self, loaded: Image.Image, name: str) -> List[np.ndarray]:
        seed = image_seed(self.seed, 'shift', self.shift, name)
        return two_crops(np.asarray(loaded), self.preprocessing.size, self.shift, seed)


def read_frames(path: Path) -> List[Image.Image]:
    """Decode all frames as RGB in the order of presentation, not of storage.

    Raises:
        OSError: It is not a video, or has fewer frames than it declares: a truncated one is decoded without an error.
    """
    import av

    try:
        with av.open(str(path)) as video:
            frames = [frame.to_image() for frame in video.decode(video=0)]
            declared = video.streams.video[0].frames  # 0 where the file does not say
    except (av.FFmpegError, IndexError, UnicodeDecodeError) as e:  # IndexError: a file with sound only
        raise OSError(f'not a video: {e}') from e
    if len(frames) < declared:
        raise OSError(f'it declares {declared} frames, and {len(frames)} can be read')
    return frames


class PerturbationDataset(FileDataset):
    """Videos of an image perturbed more in each frame: (frames, 3, S, S) per file."""

    def load(self, path: Path) -> List[Image.Image]:
        steps = self.preprocessing
        frames = [steps.resize_to_input(steps.resize_and_crop(frame)) for frame in read_frames(path)]
        if len(frames) < 2:
            raise ValueError(f'frames must be 2 or more, got {len(frames)}')
        return frames
