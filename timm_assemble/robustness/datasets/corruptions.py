"""Corruptions made anew, by the library imagecorruptions-imaug, from a seed of each picture's own.

Knows that library. It has all 19 corruptions, but draws some from NumPy's global state and some from the machine's
entropy, and divides by zero where a spatter happens to have no drop; here a call is repeatable to the bit.
"""
import contextlib
import functools
import hashlib
import io
from importlib import metadata
from typing import Any, Dict

import numpy as np
from PIL import Image

from ..metrics import ALEXNET_ERROR, SEVERITIES

__all__ = ['MIN_SIDE', 'corrupt', 'library_versions', 'picture_seed', 'warm_up']

MIN_SIDE = 32  # below it the library's kernels are larger than the picture
TAKE_A_SEED = ('impulse_noise', 'glass_blur')  # these draw from the machine's entropy unless they are given one
PACKAGES = ('imagecorruptions-imaug', 'numpy', 'scipy', 'scikit-image', 'pillow', 'numba')


@functools.cache
def _functions() -> Dict[str, Any]:
    import cv2
    import imagecorruptions

    cv2.setNumThreads(0)  # its threads do not live on in a loader's forked workers, which then would wait for them
    return imagecorruptions.corruption_dict


def library_versions() -> Dict[str, str]:
    """Versions of all that decides the pixels. OpenCV comes under two names, of which one is installed."""
    import cv2

    return {**{name: metadata.version(name) for name in PACKAGES}, 'opencv': cv2.__version__}


def picture_seed(seed: int, corruption: str, severity: int, name: str) -> int:
    """Seed in 0 .. 2^32 - 1 of one corrupted picture, from the run's seed, what is done, and its name in the folder.

    So neither order nor number of workers matter, nor which other pictures there are.
    """
    text = f'{seed}/{corruption}/{severity}/{name}'
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], 'little')


def corrupt(picture: np.ndarray, corruption: str, severity: int, seed: int) -> np.ndarray:
    """One picture, corrupted.

    Args:
        picture: (H, W, 3), uint8, RGB, sides of 32 or more.
        corruption: One of the 19.
        severity: 1 to 5.
        seed: 0 .. 2^32 - 1; the same gives the same bits. NumPy's global state is left as it was.

    Returns:
        (H, W, 3), uint8: fractions are cut off, as in the published pictures, which were then compressed as JPEG of
        quality 85; these are not.

    Raises:
        ValueError: Another corruption, severity, size or type.
    """
    if corruption not in ALEXNET_ERROR or severity not in SEVERITIES:
        raise ValueError(f'corruption must be one of {[*ALEXNET_ERROR]} and severity 1 to 5, got {corruption!r} and '
                         f'{severity!r}')
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or min(picture.shape[:2]) < MIN_SIDE:
        raise ValueError(f'picture must be uint8 of (H, W, 3) with sides of {MIN_SIDE} or more, got {picture.dtype} of '
                         f'{picture.shape}')
    function = _functions()[corruption]
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        with np.errstate(divide='ignore', invalid='ignore'), contextlib.redirect_stdout(io.StringIO()):
            made = np.asarray(function(
                Image.fromarray(picture), severity, **({'seed': seed} if corruption in TAKE_A_SEED else {})))
    finally:
        np.random.set_state(state)
    if made.dtype != np.uint8:
        made = np.where(np.isfinite(made), made, picture)  # a spatter without drops leaves the picture as it is
    return made.astype(np.uint8)


@functools.cache
def warm_up(corruption: str, severity: int) -> None:
    """Have compiled what the library compiles at the first call, before workers are forked, who would each do it."""
    if corruption == 'glass_blur':
        corrupt(np.zeros((MIN_SIDE, MIN_SIDE, 3), np.uint8), corruption, severity, 0)
