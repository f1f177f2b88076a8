"""Pixels of files: images, clean, corrupted or shifted, and sequences."""
from pathlib import Path
from typing import List

import numpy as np
from PIL import Image

__all__ = ['read_frames', 'read_image', 'two_crops']


def read_image(path: Path) -> Image.Image:
    """Decode an image as RGB with 8 bits, as it is stored: the EXIF rotation is not applied.

    16 bits are scaled to 8: Pillow would cut everything above 255. Other integers and floats have no known range and
    are a ValueError.
    """
    with Image.open(path) as image:
        if image.mode.startswith('I;16') or image.mode == 'I':
            values = np.asarray(image).astype(np.int64)
            if image.mode == 'I' and image.format != 'PNG':  # older Pillow's mode of a PNG with 16 bits
                raise ValueError('it has 32 bits per pixel, whose range is unknown')
            return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert('RGB')
        if image.mode == 'F':
            raise ValueError('it has floats as pixels, whose range is unknown')
        if image.mode == 'P' and 'transparency' in image.info:
            return image.convert('RGBA').convert('RGB')  # the same pixels, without Pillow's warning
        return image.convert('RGB')


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
