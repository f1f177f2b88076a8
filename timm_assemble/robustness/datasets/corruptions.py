"""Corruptions generated on the fly by the library imagecorruptions-imaug, from one seed per image.

The library has all 19 corruptions. It draws some from NumPy's global state and some from the machine's entropy, and
divides by zero where a spatter has no drop; here a call is repeatable to the bit.
"""
import contextlib
import functools
import hashlib
import io
from importlib import metadata
from typing import Any, Dict, NamedTuple

import numpy as np
from PIL import Image

from ..metrics import ALEXNET_ERROR, SEVERITIES

__all__ = ['MIN_SIDE', 'Corruption', 'corrupt', 'image_seed', 'library_versions', 'warm_up']

MIN_SIDE = 32  # below it the library's kernels are larger than the image
TAKE_A_SEED = ('impulse_noise', 'glass_blur')  # these draw from the machine's entropy unless they are given one
PACKAGES = ('imagecorruptions-imaug', 'numpy', 'scipy', 'scikit-image', 'pillow', 'numba')


@functools.cache
def _functions() -> Dict[str, Any]:
    import cv2
    import imagecorruptions

    cv2.setNumThreads(0)  # its threads do not survive the fork of a loader's workers, which would wait for them
    return imagecorruptions.corruption_dict


def library_versions() -> Dict[str, str]:
    """Return the versions of all packages that decide the pixels."""
    import cv2  # installed under one of two package names

    return {**{name: metadata.version(name) for name in PACKAGES}, 'opencv': cv2.__version__}


def image_seed(seed: int, corruption: str, severity: int, name: str) -> int:
    """Return the seed of one corrupted image, from 0 to 2^32 - 1.

    It depends on the run's seed, the corruption, the severity and the file's name within its folder: not on the order,
    the number of workers or the other images.
    """
    text = f'{seed}/{corruption}/{severity}/{name}'
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'little')


def corrupt(image: np.ndarray, corruption: str, severity: int, seed: int) -> np.ndarray:
    """Corrupt one image.

    Args:
        image: (H, W, 3), uint8, RGB, sides of 32 or more.
        corruption: One of the 19.
        severity: 1 to 5.
        seed: 0 to 2^32 - 1; the same seed gives the same bits. NumPy's global state is left as it was.

    Returns:
        (H, W, 3), uint8. Fractions are cut off, as in the published images. Those were compressed as JPEG of quality
        85 afterwards; these are not.

    Raises:
        ValueError: Corruption, severity, size or dtype is another.
    """
    if corruption not in ALEXNET_ERROR:
        raise ValueError(f'corruption must be one of {[*ALEXNET_ERROR]}, got {corruption!r}')
    if severity not in SEVERITIES:
        raise ValueError(f'severity must be from 1 to 5, got {severity!r}')
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < MIN_SIDE:
        raise ValueError(
            f'image must be uint8 of (H, W, 3) with sides of {MIN_SIDE} or more, got {image.dtype} of {image.shape}')
    function = _functions()[corruption]
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        with np.errstate(divide='ignore', invalid='ignore'), contextlib.redirect_stdout(io.StringIO()):
            result = np.asarray(function(
                Image.fromarray(image), severity, **({'seed': seed} if corruption in TAKE_A_SEED else {})))
    finally:
        np.random.set_state(state)
    if result.dtype != np.uint8:
        result = np.where(np.isfinite(result), result, image)  # a spatter without drops leaves the image as it is
    return result.astype(np.uint8)


@functools.cache
def warm_up(corruption: str, severity: int) -> None:
    """Compile what the library compiles at its first call, before every forked worker would do it."""
    if corruption == 'glass_blur':
        corrupt(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8), corruption, severity, 0)


class Corruption(NamedTuple):
    """A corruption to generate; ``seed`` is the run's."""

    name: str
    severity: int
    seed: int

    def apply(self, image: Image.Image, file_name: str) -> Image.Image:
        """Corrupt the image of a file."""
        seed = image_seed(self.seed, self.name, self.severity, file_name)
        return Image.fromarray(corrupt(np.asarray(image), self.name, self.severity, seed))
