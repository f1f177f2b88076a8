"""Protocols: which corruptions, and how a file becomes the model's input.

Two mean corruption errors compare only under one protocol: corruptions, sizes and images differ between protocols.
"""
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
from PIL import Image
from torchvision.transforms import functional as vision  # type: ignore[import-untyped]

from ..data.images import UnreadableError, check_file
from ..data.preprocessing import size_text
from ..errors import error_line
from .metrics import ALEXNET_3DCC_ERROR, COMMON, EXTRA

__all__ = ['PROTOCOLS', 'Protocol', 'Steps', 'read_frames', 'resize_short_side', 'two_crops']


class Protocol(NamedTuple):
    """Corruptions, and the short side and center crop at which they are applied.

    ``folders`` protocols have corruptions of their own, which are read and not generated.
    """

    name: str
    corruptions: Tuple[str, ...]
    resize: int
    crop: int
    folders: bool = False


# Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption Robustness"
C_BAR = ('blue_noise_sample', 'brownish_noise', 'caustic_refraction', 'checkerboard_cutout', 'cocentric_sine_waves',
         'inverse_sparkles', 'perlin_noise', 'plasma_noise', 'single_frequency_greyscale', 'sparkles')

PROTOCOLS: Dict[str, Protocol] = {
    'imagenet-c': Protocol('imagenet-c', COMMON, 256, 224),  # Hendrycks and Dietterich, ICLR 2019
    'assemble': Protocol('assemble', COMMON + EXTRA, 292, 256),  # arXiv 2001.06268, its official code
    'imagenet-c-bar': Protocol('imagenet-c-bar', C_BAR, 256, 224, folders=True),
    # Kar et al., CVPR 2022: the 12 published for ImageNet
    'imagenet-3dcc': Protocol('imagenet-3dcc', tuple(ALEXNET_3DCC_ERROR), 256, 224, folders=True),
}


def resize_short_side(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to ``side``, the other in proportion, rounded down."""
    return vision.resize(image, side, vision.InterpolationMode.BILINEAR)


class Steps(NamedTuple):
    """Steps from an image file to the model's input.

    Short side to ``resize`` (0: not resized), center crop of ``crop``, the corruption if it is generated on the fly,
    then to ``size``, height and width, if that differs. All resizing is bilinear.
    """

    resize: int
    crop: int
    size: Tuple[int, int]

    @property
    def resizes(self) -> bool:
        """Whether the crop is resized."""
        return self.size != (self.crop, self.crop)

    def resize_and_crop(self, image: Image.Image, path: Path) -> Image.Image:
        """Apply the steps before the corruption."""
        if self.resize:
            image = resize_short_side(image, self.resize)
        if min(image.size) < self.crop:  # black padding would be measured as a corruption
            raise UnreadableError(path, f'image must be at least {self.crop} x {self.crop}, as the protocol crops it, '
                                        f'got {image.height} x {image.width}')
        return vision.center_crop(image, self.crop)

    def resize_to_input(self, image: Image.Image) -> Image.Image:
        """Apply the steps after the corruption."""
        return image.resize(self.size[::-1], Image.Resampling.BILINEAR) if self.resizes else image

    def describe(self, generated: bool = False) -> str:
        """Return the steps in words."""
        return (f'{f"short side to {self.resize}" if self.resize else "no resize"}, center crop {self.crop}'
                f'{", corrupted there" if generated else ""}'
                f'{f", then resized to {size_text(self.size)}" if self.resizes else ""}, bilinear')


def two_crops(image: np.ndarray, size: Tuple[int, int], shift: int, seed: int) -> List[np.ndarray]:
    """Return two random crops, drawn from the ``(shift + 1)^2`` positions around the center.

    Images smaller than ``size + shift`` are padded by reflection.
    """
    height, width = size
    missing = [max(0, side + shift - has) for side, has in zip(size, image.shape)]
    image = np.pad(image, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode='reflect')
    corner = [(has - side - shift) // 2 for side, has in zip(size, image.shape)]
    positions = np.random.RandomState(seed).randint(0, shift + 1, size=(2, 2)) + corner
    return [image[top:top + height, left:left + width] for top, left in positions]


def read_frames(path: Path) -> List[Any]:
    """Decode all frames as RGB in the order of presentation, not of storage.

    Raises:
        UnreadableError: It is no whole video of 2 frames or more.
    """
    import av

    try:
        check_file(path)
        with av.open(str(path)) as video:
            frames = [frame.to_image() for frame in video.decode(video=0)]
            declared = video.streams.video[0].frames  # 0 where the file does not say
    except (OSError, ValueError, av.FFmpegError, IndexError) as e:  # IndexError: a file with sound only
        raise UnreadableError(path, f'not a video: {error_line(e)}') from e
    if len(frames) < declared:  # a truncated video is decoded without an error
        raise UnreadableError(path, f'it declares {declared} frames, and {len(frames)} can be read')
    if len(frames) < 2:
        raise UnreadableError(path, f'frames must be 2 or more, got {len(frames)}')
    return frames
