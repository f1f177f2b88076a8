"""Views of an image: random transforms that a seed repeats, their checksum, and their description."""
import random
import zlib
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import Compose  # type: ignore[import-untyped]

from ..data.official_steps import OFFICIAL, POLICIES, replace_training, timm_arguments
from ..data.preprocessing import size_of
from ..errors import UserError

__all__ = [
    'TRANSFORM_ARGUMENTS', 'checksum', 'describe_transform', 'make_view_transform', 'pixel_versions',
    'seeded_generators', 'split_transform', 'view_seed',
]

# Arguments of timm's create_transform that decide the pixels of a training image, before normalization.
TRANSFORM_ARGUMENTS = (
    'input_size', 'no_aug', 'train_crop_mode', 'scale', 'ratio', 'hflip', 'vflip', 'color_jitter', 'color_jitter_prob',
    'grayscale_prob', 'gaussian_blur_prob', 'auto_augment', 'interpolation', 'mean')
TO_TENSOR = ('MaybeToTensor', 'MaybePILToTensor', 'ToNumpy', 'ToTensor', 'PILToTensor')  # of timm and torchvision


def view_seed(seed: int, index: int, view: int, attempt: int = 0) -> int:
    """Return the seed of one view of one image, 32 bits that depend on all numbers."""
    return int(np.random.SeedSequence((seed, index, view)).generate_state(attempt + 1)[attempt])


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch's CPU inside the block, and restore their states after it.

    The three get different seeds: numpy's and torch's generators would draw the same numbers from the same one.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for_python, for_numpy, for_torch = np.random.SeedSequence(seed).generate_state(3)
    random.seed(int(for_python))
    np.random.seed(for_numpy)
    torch.default_generator.manual_seed(int(for_torch))  # torch.manual_seed would also seed CUDA
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def checksum(image: Image.Image) -> int:
    """Return the CRC-32 of an image's pixels."""
    return zlib.crc32(np.ascontiguousarray(image).data)


def split_transform(transform: Any) -> Tuple[Compose, Compose]:
    """Split a transform where it converts the image to a tensor.

    Returns:
        What decides the view's pixels, and the conversion with what follows: normalization, random erasing.

    Raises:
        UserError: The transform is not a ``Compose`` with a conversion, such as timm's for augmentation splits.
    """
    steps = getattr(transform, 'transforms', ())
    for i, step in enumerate(steps):
        if type(step).__name__ in TO_TENSOR:
            return Compose(steps[:i]), Compose(steps[i:])
    raise UserError(f'transform must be a Compose that converts an image to a tensor, got {transform!r}')


def describe_transform(input_img_mode: Optional[str] = None, **arguments: Any) -> Dict[str, Any]:
    """Describe what decides the pixels of a training image; equal descriptions give equal views.

    Args:
        input_img_mode: Mode that images are converted to, such as ``'RGB'``.
        **arguments: Arguments of timm's ``create_transform`` or ``create_loader``, among ``TRANSFORM_ARGUMENTS``;
            the others have timm's defaults.

    Returns:
        The arguments as JSON stores them, and ``input_img_mode``. ``mean`` is kept as far as it decides pixels: the
        fill color of ``auto_augment``, in 0 to 255.

    Raises:
        TypeError: An argument is not one of ``TRANSFORM_ARGUMENTS``.
    """
    unknown = sorted({*arguments} - {*TRANSFORM_ARGUMENTS})
    if unknown:
        raise TypeError(f'transform must have arguments among {", ".join(TRANSFORM_ARGUMENTS)}, got {unknown[0]!r}')
    defaults = signature(create_transform).parameters
    values = {name: arguments.get(name, defaults[name].default) for name in TRANSFORM_ARGUMENTS}
    size = values['input_size']
    if isinstance(size, int) or len(size) == 2:  # as in timm, without channels
        values['input_size'] = [1 if input_img_mode == 'L' else 3, *size_of(size)]
    if values['train_crop_mode'] == OFFICIAL:
        values.update(scale=None, ratio=None)  # its own
    if not values['train_crop_mode'] and not values['scale']:  # as timm fills these in
        values['scale'] = (0.08, 1.0)
    if not values['train_crop_mode'] and not values['ratio']:
        values['ratio'] = (3 / 4, 4 / 3)
    for name in ('grayscale_prob', 'gaussian_blur_prob', 'auto_augment', 'train_crop_mode'):
        values[name] = values[name] or None
    mean = values.pop('mean')
    filled = values['auto_augment'] and values['auto_augment'] not in POLICIES
    values['fill'] = [min(255, round(255 * x)) for x in mean] if filled else None
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {**values, 'input_img_mode': input_img_mode}


def make_view_transform(description: Dict[str, Any]) -> Compose:
    """Build the transform of :func:`describe_transform`, from an image to the image that becomes a tensor."""
    arguments: Dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in description.items() if name in TRANSFORM_ARGUMENTS}
    mean = [x / 255 for x in description['fill'] or [0] * description['input_size'][0]]
    known = timm_arguments(arguments)
    transform = create_transform(is_training=True, use_prefetcher=True, mean=tuple(mean), **known)
    return split_transform(replace_training(transform, arguments['input_size'], arguments))[0]


def pixel_versions() -> Dict[str, str]:
    """Return the versions of the packages that decide the pixels of a view."""
    return {name: version(name) for name in ('timm', 'torchvision', 'torch', 'numpy', 'pillow')}
