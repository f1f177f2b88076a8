"""The official data pipeline as arguments of timm's ``create_transform`` and ``create_loader``.

For training ``auto_augment='official'`` or ``'official-good'`` and ``train_crop_mode='official'``, for evaluation
``interpolation='official'``. timm builds a transform from arguments that it knows, and its steps are replaced.
"""
import functools
from typing import Any, Dict, Mapping, Sequence

import torch
from timm.data.auto_augment import AutoAugment as TimmAutoAugment
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import Compose, Normalize  # type: ignore[import-untyped]

from ..errors import UserError, check
from .official import AutoAugment, evaluation_pixels, training_crop

__all__ = ['OFFICIAL', 'POLICIES', 'has_official_steps', 'replace_evaluation', 'replace_training', 'timm_arguments']

OFFICIAL = 'official'
POLICIES = {'official': 'imagenet', 'official-good': 'good'}  # from auto_augment to the official policy


def has_official_steps(arguments: Mapping[str, Any]) -> bool:
    """Return whether arguments of timm ask for a step of the official pipeline."""
    return (arguments.get('auto_augment') in POLICIES
            or OFFICIAL in (arguments.get('train_crop_mode'), arguments.get('interpolation')))


def timm_arguments(arguments: Mapping[str, Any]) -> Dict[str, Any]:
    """Return arguments with which timm builds the steps that the functions below replace.

    Raises:
        UserError: ``auto_augment`` begins with ``official`` and is not one of ``POLICIES``.
    """
    policy, known = arguments.get('auto_augment'), dict(arguments)
    check(policy in POLICIES or not str(policy).startswith(OFFICIAL), 'aa', policy, f'one of {", ".join(POLICIES)}')
    if policy in POLICIES:
        known['auto_augment'] = 'original'
    if arguments.get('train_crop_mode') == OFFICIAL:
        known.update(train_crop_mode='rrc', scale=None, ratio=None, hflip=0.0)  # the official crop flips
    if arguments.get('interpolation') == OFFICIAL:
        known['interpolation'] = 'bilinear'
    return known


def replace_training(transform: Any, size: Sequence[int], arguments: Mapping[str, Any]) -> Any:
    """Return a training transform with the official crop and AutoAugment where ``arguments`` ask for them.

    Args:
        transform: What timm builds from :func:`timm_arguments`; without augmentation nothing is replaced.
        size: Height and width of the images, at the end.
        arguments: As given to :func:`timm_arguments`.
    """
    steps = []
    for step in transform.transforms:
        if isinstance(step, TimmAutoAugment) and arguments.get('auto_augment') in POLICIES:
            step = AutoAugment(POLICIES[arguments['auto_augment']])
        elif isinstance(step, RandomResizedCropAndInterpolation) and arguments.get('train_crop_mode') == OFFICIAL:
            step = training_crop((size[-2], size[-1]), arguments.get('hflip', 0.5))
        steps.append(step)
    return Compose(steps)


def replace_evaluation(
        size: Sequence[int], crop_pct: float = 0.875, mean: Sequence[float] = (), std: Sequence[float] = (),
) -> Compose:
    """Return the official evaluation: float pixels from 0 to 255, or normalized ones if ``mean`` is given.

    Args:
        size: Height and width of the crop, at the end; equal.
        crop_pct: The short side is the crop's over this, truncated.
        mean, std: Of each channel, for images from 0 to 1.

    Raises:
        UserError: The crop is not square.
    """
    side = size[-1]
    if size[-2] != side:
        raise UserError(f'interpolation must not be {OFFICIAL} for images that are not square, got {tuple(size)}')
    steps = [functools.partial(evaluation_pixels, side=side, short=int(side / crop_pct))]
    if mean:
        steps.append(Normalize(255 * torch.tensor(mean), 255 * torch.tensor(std)))
    return Compose(steps)
