"""Views of mixed images: by mixup or CutMix, under the view's seed, so that the teacher sees the mixture.

timm mixes what is in a batch. A stored mixture belongs to an image: its partner, the second image, is one of all the
others, by the store's seed, and each view has another one.
"""
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image
from timm.data import FastCollateMixup
from torchvision.transforms.functional import pil_to_tensor, to_pil_image  # type: ignore[import-untyped]

from ..errors import UserError, check, error_line
from .teacher_mixup import mix_with_matrix
from .view_transform import seeded_generators, view_seed

__all__ = ['MIXING_ARGUMENTS', 'Mixing', 'describe_mixing', 'draw_view', 'make_view', 'sources_of']

# train.py's arguments that decide a mixture, with its defaults and the names of timm's Mixup
MIXING_ARGUMENTS: Dict[str, Tuple[Any, str]] = {
    'mixup': (0.0, 'mixup_alpha'), 'cutmix': (0.0, 'cutmix_alpha'), 'cutmix_minmax': (None, 'cutmix_minmax'),
    'mixup_prob': (1.0, 'prob'), 'mixup_switch_prob': (0.5, 'switch_prob')}
ATTEMPTS = 20  # to draw a view


def describe_mixing(**arguments: Any) -> Dict[str, Any]:
    """Return what decides mixtures, as JSON stores it.

    Args:
        **arguments: Of train.py, among ``MIXING_ARGUMENTS``; the others have its defaults.

    Raises:
        UserError: None of ``mixup``, ``cutmix`` and ``cutmix_minmax`` is on, or one is out of its range.
        TypeError: An argument is not one of ``MIXING_ARGUMENTS``.
    """
    unknown = sorted({*arguments} - {*MIXING_ARGUMENTS})
    if unknown:
        raise TypeError(f'mixing must have arguments among {", ".join(MIXING_ARGUMENTS)}, got {unknown[0]!r}')
    values = {name: arguments.get(name, default) for name, (default, _) in MIXING_ARGUMENTS.items()}
    for name in ('mixup', 'cutmix'):
        check(0 <= values[name] < float('inf'), name, values[name], '0 or more')
    check(0 < values['mixup_prob'] <= 1, 'mixup_prob', values['mixup_prob'], 'above 0 and at most 1')
    check(0 <= values['mixup_switch_prob'] <= 1, 'mixup_switch_prob', values['mixup_switch_prob'], 'from 0 to 1')
    bounds = values['cutmix_minmax'] and [float(x) for x in values['cutmix_minmax']]
    check(not bounds or (len(bounds) == 2 and 0 <= bounds[0] < bounds[1] <= 1), 'cutmix_minmax', bounds,
          'two increasing fractions of the sides')
    check(bool(values['mixup'] or values['cutmix'] or bounds), 'mixup', values['mixup'],
          'positive, or `cutmix` or `cutmix_minmax`, for views of mixed images')
    return {**{name: value and float(value) for name, value in values.items() if name != 'cutmix_minmax'},
            'cutmix_minmax': bounds or None}


class Mixing:
    """timm's mixup or CutMix of two views, in uint8.

    Args:
        description: From :func:`describe_mixing`.
    """

    def __init__(self, description: Dict[str, Any]) -> None:
        known = {own: description[name] for name, (_, own) in MIXING_ARGUMENTS.items()}
        self.mixup = FastCollateMixup(mode='half', **known)  # which mixes two images into one

    def __call__(self, views: Sequence[Image.Image]) -> Tuple[Image.Image, float]:
        """Return the mixture of two views, and the weight of the first; draws from numpy's generator."""
        mixed, matrix = mix_with_matrix(self.mixup, [pil_to_tensor(view) for view in views])
        return to_pil_image(mixed[0], views[0].mode), float(matrix[0, 0])


def sources_of(mixing: Optional[Mixing], seed: int, index: int, view: int, count: int) -> List[int]:
    """Return the images of a view: its own, and with ``mixing`` its partner, any other with equal probability."""
    if mixing is None:
        return [index]
    draw = int(np.random.SeedSequence((seed, index, view, 1)).generate_state(1, np.uint64)[0])
    return [index, (index + 1 + draw % (count - 1)) % count]


def make_view(
        transform: Any, mixing: Optional[Mixing], images: Sequence[Image.Image], seed: int,
) -> Tuple[Image.Image, float]:
    """Return the view of a seed, and the weight of the first image in it, 1 without ``mixing``."""
    with seeded_generators(seed):
        views = [transform(image) for image in images]
        return (views[0], 1.0) if mixing is None else mixing(views)


def draw_view(
        transform: Any, mixing: Optional[Mixing], images: Sequence[Image.Image], seed: int, index: int, view: int,
) -> Tuple[Image.Image, int]:
    """Return a view and its seed: the first one of the view's stream with which the transform does not fail.

    timm's policies may posterize to 0 bits, which Pillow 13 rejects.

    Raises:
        UserError: The transform fails with 20 seeds.
    """
    for attempt in range(ATTEMPTS):
        drawn = view_seed(seed, index, view, attempt)
        try:
            return make_view(transform, mixing, images, drawn)[0], drawn
        except ValueError as e:
            error = e
    raise UserError(f'transform must give views, got an error with {ATTEMPTS} seeds for view {view} of sample {index}: '
                    f'{error_line(error)}')
