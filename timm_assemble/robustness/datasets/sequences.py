"""Perturbation sequences: videos of an image that is perturbed a little more in each frame."""
from pathlib import Path
from typing import List

import torch
from PIL import Image

from .files import FileDataset, to_tensor

__all__ = ['VIDEOS', 'PerturbationDataset', 'read_frames']

VIDEOS = ('.mp4',)


def read_frames(path: Path) -> List[Image.Image]:
    """Decode all frames as RGB in the order of presentation, which may differ from the stored one.

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
    """Perturbation sequences: (frames, 3, S, S) per file."""

    def load(self, path: Path) -> List[Image.Image]:
        steps = self.preprocessing
        frames = [steps.resize_to_input(steps.resize_and_crop(frame)) for frame in read_frames(path)]
        if len(frames) < 2:
            raise ValueError(f'frames must be 2 or more, got {len(frames)}')
        return frames

    def pixels(self, loaded: List[Image.Image], name: str) -> torch.Tensor:
        return to_tensor(loaded)
