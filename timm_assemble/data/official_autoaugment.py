"""The official AutoAugment: policies of ImageNet and of fine-tuning, and their operations."""
import functools
import math
import random
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ..errors import check

__all__ = ['POLICIES', 'AutoAugment', 'apply_operation']

# Sub-policies; of each operation: name, probability and level. What is listed twice is drawn twice as often.
_TEXT = {
    'imagenet': '''
        Posterize 0.4 8, Rotate 0.6 9 | Solarize 0.6 5, AutoContrast 0.6 5 | Equalize 0.8 8, Equalize 0.6 3 |
        Posterize 0.6 7, Posterize 0.6 6 | Equalize 0.4 7, Solarize 0.2 4 | Equalize 0.4 4, Rotate 0.8 8 |
        Solarize 0.6 3, Equalize 0.6 7 | Posterize 0.8 5, Equalize 1.0 2 | Rotate 0.2 3, Solarize 0.6 8 |
        Equalize 0.6 8, Posterize 0.4 6 | Rotate 0.8 8, Color 0.4 0 | Rotate 0.4 9, Equalize 0.6 2 |
        Equalize 0.0 7, Equalize 0.8 8 | Invert 0.6 4, Equalize 1.0 8 | Color 0.6 4, Contrast 1.0 8 |
        Rotate 0.8 8, Color 1.0 2 | Color 0.8 8, Solarize 0.8 7 | Sharpness 0.4 7, Invert 0.6 8 |
        ShearX 0.6 5, Equalize 1.0 9 | Color 0.4 0, Equalize 0.6 3 | Equalize 0.4 7, Solarize 0.2 4 |
        Solarize 0.6 5, AutoContrast 0.6 5 | Invert 0.6 4, Equalize 1.0 8 | Color 0.6 4, Contrast 1.0 8 |
        Equalize 0.8 8, Equalize 0.6 3
    ''',
    'good': '''
        Invert 0.1 7, Contrast 0.2 6 | Rotate 0.7 2, TranslateX 0.3 9 | Sharpness 0.8 1, Sharpness 0.9 3 |
        ShearY 0.5 8, TranslateY 0.7 9 | AutoContrast 0.5 8, Equalize 0.9 2 | Solarize 0.4 5, AutoContrast 0.9 3 |
        TranslateY 0.9 9, TranslateY 0.7 9 | AutoContrast 0.9 2, Solarize 0.8 3 | Equalize 0.8 8, Invert 0.1 3 |
        TranslateY 0.7 9, AutoContrast 0.9 1 | Solarize 0.4 5, AutoContrast 0.0 2 | TranslateY 0.7 9, TranslateY 0.7 9 |
        AutoContrast 0.9 0, Solarize 0.4 3 | Equalize 0.7 5, Invert 0.1 3 | TranslateY 0.7 9, TranslateY 0.7 9 |
        Solarize 0.4 5, AutoContrast 0.9 1 | TranslateY 0.8 9, TranslateY 0.9 9 | AutoContrast 0.8 0, TranslateY 0.7 9 |
        TranslateY 0.2 7, Color 0.9 6 | Equalize 0.7 6, Color 0.4 9 | ShearY 0.2 7, Posterize 0.3 7 |
        Color 0.4 3, Brightness 0.6 7 | Sharpness 0.3 9, Brightness 0.7 9 | Equalize 0.6 5, Equalize 0.5 1 |
        Contrast 0.6 7, Sharpness 0.6 5 | Brightness 0.3 7, AutoContrast 0.5 8 |
        AutoContrast 0.9 4, AutoContrast 0.5 6 | Solarize 0.3 5, Equalize 0.6 5 | TranslateY 0.2 4, Sharpness 0.3 3 |
        Brightness 0.0 8, Color 0.8 8 | Solarize 0.2 6, Color 0.8 6 | Solarize 0.2 6, AutoContrast 0.8 1 |
        Solarize 0.4 1, Equalize 0.6 5 | Brightness 0.0 0, Solarize 0.5 2 | AutoContrast 0.9 5, Brightness 0.5 3 |
        Contrast 0.7 5, Brightness 0.0 2 | Solarize 0.2 8, Solarize 0.1 5 | Contrast 0.5 1, TranslateY 0.2 9 |
        AutoContrast 0.6 5, TranslateY 0.0 9 | AutoContrast 0.9 4, Equalize 0.8 4 | Brightness 0.0 7, Equalize 0.4 7 |
        Solarize 0.2 5, Equalize 0.7 5 | Equalize 0.6 8, Color 0.6 2 | Color 0.3 7, Color 0.2 4 |
        AutoContrast 0.5 2, Solarize 0.7 2 | AutoContrast 0.2 0, Equalize 0.1 0 | ShearY 0.6 5, Equalize 0.6 5 |
        Brightness 0.9 3, AutoContrast 0.4 1 | Equalize 0.8 8, Equalize 0.7 7 | Equalize 0.7 7, Solarize 0.5 0 |
        Equalize 0.8 4, TranslateY 0.8 9 | TranslateY 0.8 9, TranslateY 0.6 9 | TranslateY 0.9 0, TranslateY 0.5 9 |
        AutoContrast 0.5 3, Solarize 0.3 4 | Solarize 0.5 3, Equalize 0.4 4 | Color 0.7 7, TranslateX 0.5 8 |
        Equalize 0.3 7, AutoContrast 0.4 8 | TranslateY 0.4 3, Sharpness 0.2 6 | Brightness 0.9 6, Color 0.2 8 |
        Solarize 0.5 2, Invert 0.0 3 | AutoContrast 0.1 5, Brightness 0.0 0 | Cutout 0.2 4, Equalize 0.1 1 |
        Equalize 0.7 7, AutoContrast 0.6 4 | Color 0.1 8, ShearY 0.2 3 | ShearY 0.4 2, Rotate 0.7 0 |
        ShearY 0.1 3, AutoContrast 0.9 5 | TranslateY 0.3 6, Cutout 0.3 3 | Equalize 0.5 0, Solarize 0.6 6 |
        AutoContrast 0.3 5, Rotate 0.2 7 | Equalize 0.8 2, Invert 0.4 0 | Equalize 0.9 5, Color 0.7 0 |
        Equalize 0.1 1, ShearY 0.1 3 | AutoContrast 0.7 3, Equalize 0.7 0 | Brightness 0.5 1, Contrast 0.1 7 |
        Contrast 0.1 4, Solarize 0.6 5 | Solarize 0.2 3, ShearX 0.0 0 | TranslateX 0.3 0, TranslateX 0.6 0 |
        Equalize 0.5 9, TranslateY 0.6 7 | ShearX 0.1 0, Sharpness 0.5 1 | Equalize 0.8 6, Invert 0.3 6 |
        AutoContrast 0.3 9, Cutout 0.5 3 | ShearX 0.4 4, AutoContrast 0.9 2 | ShearX 0.0 3, Posterize 0.0 3 |
        Solarize 0.4 3, Color 0.2 4 | Equalize 0.1 4, Equalize 0.7 6 | Equalize 0.3 8, AutoContrast 0.4 3 |
        Solarize 0.6 4, AutoContrast 0.7 6 | AutoContrast 0.2 9, Brightness 0.4 8 | Equalize 0.1 0, Equalize 0.0 6 |
        Equalize 0.8 4, Equalize 0.0 4 | Equalize 0.5 5, AutoContrast 0.1 2 | Solarize 0.5 5, AutoContrast 0.9 5 |
        AutoContrast 0.6 1, AutoContrast 0.7 8 | Equalize 0.2 0, AutoContrast 0.1 2 | Equalize 0.6 9, Equalize 0.4 4
    ''',
}
SubPolicy = Tuple[Tuple[str, float, int], ...]
POLICIES: Dict[str, List[SubPolicy]] = {
    policy: [tuple((name, float(chance), int(level)) for name, chance, level in map(str.split, pair.split(',')))
             for pair in text.split('|')]
    for policy, text in _TEXT.items()}

FILL = (128, 128, 128)
GRAY = 255.5 / 255 * np.array((0.2989, 0.587, 0.114))  # TensorFlow multiplies by 255.5 to get 8 bits from floats
SMOOTH = ImageFilter.Kernel((3, 3), (1, 1, 1, 1, 5, 1, 1, 1, 1), 13, -0.5)  # -0.5: truncated instead of rounded


def _rotation(degrees: float, height: int, width: int) -> Tuple[float, ...]:
    """Return the matrix of a rotation around the image's center."""
    angle = np.float32(math.radians(degrees))
    cos, sin, right, bottom = np.cos(angle), np.sin(angle), np.float32(width - 1), np.float32(height - 1)
    x, y = (right - (cos * right - sin * bottom)) / 2, (bottom - (sin * right + cos * bottom)) / 2
    return tuple(map(float, (cos, -sin, x, sin, cos, y)))


# From the level over 10, negated or not, and the height and width, to the 2 x 3 matrix that maps a pixel's x, y, 1 to
# its source.
_MATRICES: Dict[str, Callable[[float, int, int], Tuple[float, ...]]] = {
    'Rotate': lambda level, height, width: _rotation(30 * level, height, width),
    'ShearX': lambda level, height, width: (1, 0.3 * level, 0, 0, 1, 0),
    'ShearY': lambda level, height, width: (1, 0, 0, 0.3 * level, 1, 0),
    'TranslateX': lambda level, height, width: (1, 0, 250 * level, 0, 1, 0),
    'TranslateY': lambda level, height, width: (1, 0, 0, 0, 1, 250 * level),
}


@functools.lru_cache(maxsize=64)  # the policies have 26 for images of one size
def _sources(matrix: Tuple[float, ...], height: int, width: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return each pixel's nearest source, as positions in row-major order, and the pixels without one.

    In float32, halves away from 0, as TensorFlow. Pillow's 16-bit fractions give other neighbors for up to 6 % of the
    pixels, because halves are frequent: ``0.15 y`` has one in every 20 rows.
    """
    a, b, c, d, e, f = map(np.float32, matrix)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    column, row = (np.trunc(source + np.copysign(np.float32(0.5), source)).astype(np.intp)
                   for source in (a * x + b * y + c, d * x + e * y + f))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return np.where(inside, row * width + column, 0).ravel(), np.flatnonzero(~inside)


def _move(image: Image.Image, matrix: Tuple[float, ...]) -> Image.Image:
    sources, outside = _sources(matrix, image.height, image.width)
    pixels = np.frombuffer(image.tobytes('raw', 'RGBX'), np.uint32).take(sources)
    pixels[outside] = np.frombuffer(bytes((*FILL, 0)), np.uint32)
    return Image.frombytes('RGB', image.size, pixels.tobytes(), 'raw', 'RGBX')


def _factor(level: int) -> float:
    return level / 10 * 1.8 + 0.1


def _color(image: Image.Image, factor: float) -> Image.Image:
    return Image.blend(image.convert('L', (*GRAY, -0.5)).convert('RGB'), image, factor)


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    gray = int(min(255, image.width * image.height / 256))  # the official code sums the histogram's counts
    return Image.blend(Image.new('RGB', image.size, (gray,) * 3), image, factor)


def _cutout(image: Image.Image, half: int) -> Image.Image:
    x, y, image = random.randrange(image.width), random.randrange(image.height), image.copy()
    image.paste(FILL, (max(0, x - half), max(0, y - half), min(image.width, x + half), min(image.height, y + half)))
    return image


# From the image and the level.
_OPERATIONS: Dict[str, Callable[[Image.Image, int], Image.Image]] = {
    'AutoContrast': lambda image, level: ImageOps.autocontrast(image),
    'Equalize': lambda image, level: ImageOps.equalize(image),
    'Invert': lambda image, level: ImageOps.invert(image),
    'Posterize': lambda image, level: ImageOps.posterize(image, 4 * level // 10),
    'Solarize': lambda image, level: ImageOps.solarize(image, 256 * level // 10),
    'Color': lambda image, level: _color(image, _factor(level)),
    'Contrast': lambda image, level: _contrast(image, _factor(level)),
    'Brightness': lambda image, level: ImageEnhance.Brightness(image).enhance(_factor(level)),
    'Sharpness': lambda image, level: Image.blend(image.filter(SMOOTH), image, _factor(level)),
    'Cutout': lambda image, level: _cutout(image, 10 * level),
}


def apply_operation(image: Image.Image, name: str, level: int, negative: bool = False) -> Image.Image:
    """Apply an operation to an RGB image.

    Equal to the official code to the bit, except where the order of a float's sum or its precision decides between two
    neighboring gray levels: Sharpness, Color (164 of the 16.7 million colors) and AutoContrast.

    Args:
        image: RGB image.
        name: Operation, such as ``'Rotate'``.
        level: 0 to 10.
        negative: Whether to negate the argument of Rotate, ShearX, ShearY, TranslateX or TranslateY.
    """
    if name in _MATRICES:
        return _move(image, _MATRICES[name]((-level if negative else level) / 10, image.height, image.width))
    return _OPERATIONS[name](image, level)


class AutoAugment:
    """The official AutoAugment: one sub-policy, each of its operations with its probability.

    Args:
        policy: ``'imagenet'`` for training, or ``'good'``, found on CIFAR-10, for fine-tuning.
    """

    def __init__(self, policy: str = 'imagenet') -> None:
        check(policy in POLICIES, 'policy', policy, f'one of {", ".join(POLICIES)}')
        self.policy = policy

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.policy!r})'

    def __call__(self, image: Any) -> Any:
        """Augment an RGB image of Pillow or an array ``(H, W, 3)`` of uint8; the result is of the same kind."""
        augmented = image if isinstance(image, Image.Image) else Image.fromarray(image)
        for name, probability, level in random.choice(POLICIES[self.policy]):
            if random.random() < probability:
                augmented = apply_operation(augmented, name, level, name in _MATRICES and random.random() < 0.5)
        return augmented if isinstance(image, Image.Image) else np.asarray(augmented)
