"""Image files, with corruptions generated on the fly and as shifted crops."""
from pathlib import Path
from typing import List, Optional

import numpy as np
import torch
from PIL import Image

from .corruptions import Corruption, image_seed
from .files import FileDataset, FileList, to_tensor
from .protocols import Preprocessing, resize_short_side

__all__ = ['ImageDataset', 'ShiftDataset', 'read_image', 'two_crops']


def read_image(path: Path) -> Image.Image:
    """Decode an image as RGB, as it is stored: the EXIF rotation is not applied."""
    with Image.open(path) as image:
        return image.convert('RGB')


class ImageDataset(FileDataset):
    """Images, with one corruption each if it is given: (1, 3, S, S) per file."""

    def __init__(self, files: FileList, preprocessing: Preprocessing, corruption: Optional[Corruption] = None):
        super().__init__(files, preprocessing)
        self.corruption = corruption

    def load(self, path: Path) -> Image.Image:
        return self.preprocessing.resize_and_crop(read_image(path))

    def pixels(self, loaded: Image.Image, name: str) -> torch.Tensor:
        image = loaded if self.corruption is None else self.corruption.apply(loaded, name)
        return to_tensor([self.preprocessing.resize_to_input(image)])


def two_crops(image: np.ndarray, size: int, shift: int, seed: int) -> List[np.ndarray]:
    """Return two random crops of an image, at most ``shift`` pixels apart along each axis.

    Each position is drawn from the ``(shift + 1)^2`` around the center. Images smaller than ``size + shift`` are padded
    by reflection.

    Args:
        image: (H, W, 3).
        size: Side of the crops.
        shift: Pixels, 1 or more.
        seed: Of both positions.
    """
    missing = [max(0, size + shift - side) for side in image.shape[:2]]
    image = np.pad(image, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode='reflect')
    corner = [(side - size - shift) // 2 for side in image.shape[:2]]
    positions = np.random.RandomState(seed).randint(0, shift + 1, size=(2, 2)) + corner
    return [image[top:top + size, left:left + size] for top, left in positions]


class ShiftDataset(FileDataset):
    """Images as pairs of shifted crops: (2, 3, S, S) per file.

    The crops have the model's input size and are cut last, so ``shift`` counts pixels of the input.
    """

    def __init__(self, files: FileList, preprocessing: Preprocessing, shift: int, seed: int):
        super().__init__(files, preprocessing)
        self.shift, self.seed = shift, seed

    def load(self, path: Path) -> Image.Image:
        image = read_image(path)
        resize, crop, size = self.preprocessing
        return resize_short_side(image, max(1, round((resize or min(image.size)) * size / crop)))

    def pixels(self, loaded: Image.Image, name: str) -> torch.Tensor:
        seed = image_seed(self.seed, 'shift', self.shift, name)
        return to_tensor(two_crops(np.asarray(loaded), self.preprocessing.size, self.shift, seed))
