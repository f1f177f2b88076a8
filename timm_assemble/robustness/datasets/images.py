"""Pixels of shifted crops and of sequences."""
from pathlib import Path
from typing import List

import numpy as np
from PIL import Image

__all__ = ['read_frames', 'two_crops']


def two_crops(image: np.ndarray, size: int, shift: int, seed: int) -> List[np.ndarray]:
    """Return two random crops, drawn from the ``(shift + 1)^2`` positions around the center.

    Images smaller than ``size + shift`` are padded by reflection.
    """
    missing = [max(0, size + shift - side) for side in image.shape[:2]]
    image = np.pad(image, [(m // 2, m - m // 2) for m in missing] + [(0, 0)], mode='reflect')
    corner = [(side - size - shift) // 2 for side in image.shape[:2]]
    positions = np.random.RandomState(seed).randint(0, shift + 1, size=(2, 2)) + corner
    return [image[top:top + size, left:left + size] for top, left in positions]


def read_frames(path: Path) -> List[Image.Image]:
    """Decode all frames as RGB in the order of presentation, not of storage; OSError if it is no whole video."""
    import av

    try:
        with av.open(str(path)) as video:
            frames = [frame.to_image() for frame in video.decode(video=0)]
            declared = video.streams.video[0].frames  # 0 where the file does not say
    except (av.FFmpegError, IndexError, UnicodeDecodeError) as e:  # IndexError: a file with sound only
        raise OSError(f'not a video: {e}') from e
    if len(frames) < declared:  # a truncated video is decoded without an error
        raise OSError(f'it declares {declared} frames, and {len(frames)} can be read')
    return frames
