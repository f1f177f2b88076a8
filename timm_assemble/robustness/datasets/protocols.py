"""Protocols: which corruptions, and how an image becomes the model's input.

Two mean corruption errors compare only under one protocol: corruptions, sizes and images differ between protocols.
"""
from typing import Dict, NamedTuple, Tuple

from PIL import Image
from torchvision.transforms import functional as vision  # type: ignore[import-untyped]

from ...errors import UserError
from ..metrics import COMMON, EXTRA

__all__ = ['PROTOCOLS', 'Preprocessing', 'Protocol', 'resize_short_side']


class Protocol(NamedTuple):
    """Corruptions, and the short side and center crop at which they are applied."""

    name: str
    corruptions: Tuple[str, ...]
    resize: int
    crop: int


# Mintun, Kirillov and Xie, "On Interaction Between Augmentations and Corruptions in Natural Corruption Robustness"
C_BAR = ('blue_noise_sample', 'brownish_noise', 'caustic_refraction', 'checkerboard_cutout', 'cocentric_sine_waves',
         'inverse_sparkles', 'perlin_noise', 'plasma_noise', 'single_frequency_greyscale', 'sparkles')
# Kar et al., "3D Common Corruptions and Data Augmentation", CVPR 2022: the 12 published for ImageNet
THREE_D = ('near_focus', 'far_focus', 'fog_3d', 'flash', 'color_quant', 'low_light', 'xy_motion_blur', 'z_motion_blur',
           'iso_noise', 'bit_error', 'h265_abr', 'h265_crf')

PROTOCOLS: Dict[str, Protocol] = {
    'imagenet-c': Protocol('imagenet-c', COMMON, 256, 224),  # Hendrycks and Dietterich, ICLR 2019
    'assemble': Protocol('assemble', COMMON + EXTRA, 292, 256),  # arXiv 2001.06268, its official code
    'imagenet-c-bar': Protocol('imagenet-c-bar', C_BAR, 256, 224),
    'imagenet-3dcc': Protocol('imagenet-3dcc', THREE_D, 256, 224),
}


def resize_short_side(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to ``side``, the other in proportion, rounded down."""
    return vision.resize(image, side, vision.InterpolationMode.BILINEAR)


class Preprocessing(NamedTuple):
    """Steps from an image file to the model's input.

    Short side to ``resize`` (0: not resized), center crop of ``crop``, the corruption if it is generated on the fly,
    then ``size`` if that differs from ``crop``. All resizing is bilinear.
    """

    resize: int
    crop: int
    size: int

    def resize_and_crop(self, image: Image.Image) -> Image.Image:
        """Apply the steps before the corruption."""
        if self.resize:
            image = resize_short_side(image, self.resize)
        if min(image.size) < self.crop:  # black padding would be measured as a corruption
            raise UserError(f'image must be at least {self.crop} x {self.crop}, as the protocol crops it, '
                             f'got {image.width} x {image.height}')
        return vision.center_crop(image, self.crop)

    def resize_to_input(self, image: Image.Image) -> Image.Image:
        """Apply the steps after the corruption."""
        return image if self.size == self.crop else image.resize((self.size,) * 2, Image.Resampling.BILINEAR)

    def describe(self, generated: bool = False) -> str:
        """Return the steps in words."""
        return (f'{f"short side to {self.resize}" if self.resize else "no resize"}, center crop {self.crop}'
                f'{", corrupted there" if generated else ""}'
                f'{f", then resized to {self.size}" if self.size != self.crop else ""}, Pillow\'s bilinear')
