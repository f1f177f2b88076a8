"""What a figure was measured on, exactly: which corruptions, and how a picture comes to the model. Knows Pillow alone.

A mean corruption error without its protocol is no number: two are in use, of other corruptions, sizes and pictures.
"""
from typing import Dict, NamedTuple, Optional, Tuple

from PIL import Image

from ..metrics import COMMON, EXTRA

__all__ = ['PROTOCOLS', 'Preparation', 'Protocol', 'centre_crop', 'check_corruptions', 'resize_short_side']


class Protocol(NamedTuple):
    """Corruptions, and the short side and the centre crop, in pixels, at which they are made or were made."""

    name: str
    corruptions: Tuple[str, ...]
    resize: int
    crop: int


PROTOCOLS: Dict[str, Protocol] = {
    'imagenet-c': Protocol('imagenet-c', COMMON, 256, 224),  # Hendrycks and Dietterich, ICLR 2019
    'assemble': Protocol('assemble', COMMON + EXTRA, 292, 256),  # arXiv 2001.06268, its official code
}


def check_corruptions(protocol: Protocol, names: Optional[Tuple[str, ...]]) -> Tuple[str, ...]:
    """The corruptions named, in their usual order, or all of the protocol.

    Raises:
        ValueError: One is none of the 19.
    """
    unknown = [name for name in names or () if name not in COMMON + EXTRA]
    if unknown:
        raise ValueError(f'--corruptions must be one or more of {", ".join(COMMON + EXTRA)}; got {", ".join(unknown)}')
    return tuple(name for name in COMMON + EXTRA if name in (names or protocol.corruptions))


def resize_short_side(picture: Image.Image, side: int) -> Image.Image:
    """Bring the shorter side to ``side`` pixels, bilinear, the longer one in proportion, rounded down."""
    width, height = picture.size
    short = min(width, height)
    if short == side:
        return picture
    return picture.resize((side * width // short, side * height // short), Image.Resampling.BILINEAR)


def centre_crop(picture: Image.Image, side: int) -> Image.Image:
    """A square of ``side`` pixels from the middle; an odd pixel left over goes as torchvision has it, half to even.

    Raises:
        ValueError: The picture is smaller: ones padded with black would be measured as if that were the corruption.
    """
    width, height = picture.size
    if min(width, height) < side:
        raise ValueError(f'it is {width} x {height} pixels, and the protocol takes {side} x {side} from the middle')
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


class Preparation(NamedTuple):
    """From a picture of a folder to the model's pixels: short side to ``resize`` (0: as it is), centre crop of
    ``crop``, here the corruption if it is made anew, then to ``size`` if that is another, all bilinear."""

    resize: int
    crop: int
    size: int

    def before(self, picture: Image.Image) -> Image.Image:
        """Up to the corruption."""
        return centre_crop(resize_short_side(picture, self.resize) if self.resize else picture, self.crop)

    def after(self, picture: Image.Image) -> Image.Image:
        """From the corruption on."""
        return picture if self.size == self.crop else picture.resize((self.size,) * 2, Image.Resampling.BILINEAR)

    def describe(self, generated: bool = False) -> str:
        """In words."""
        return (f'{f"short side to {self.resize}" if self.resize else "no resize"}, centre crop {self.crop}'
                f'{", corrupted there" if generated else ""}'
                f'{f", then resized to {self.size}" if self.size != self.crop else ""}, bilinear')
