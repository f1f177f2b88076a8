"""How an image becomes a model's input: size, crop, interpolation, mean and standard deviation, as timm has them."""
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Tuple, Union

import torch
from timm.data import create_transform, resolve_data_config

from ..errors import UserError, check

__all__ = ['Preprocessing', 'input_channels', 'normalize', 'size_of', 'size_text']

Size = Tuple[int, int]  # height and width


def size_of(value: Union[int, Sequence[int]], parameter: str = 'input_size') -> Size:
    """Return height and width, given as one number for both or as two."""
    sides = [*(value if isinstance(value, Iterable) else [value])]
    if len(sides) == 1:
        sides *= 2
    check(len(sides) == 2 and all(isinstance(n, Integral) and n is not True and n > 0 for n in sides), parameter, value,
          'height and width, or one number for both, positive integers')
    return int(sides[0]), int(sides[1])


def size_text(size: Sequence[int]) -> str:
    """Return ``HEIGHT x WIDTH``."""
    return ' x '.join(map(str, size[-2:]))


def normalize(images: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    r"""Return ``(x - 255 mean) / (255 std)`` of uint8 images ``(..., C, H, W)``, as timm's loader computes it.

    Args:
        images: uint8 ``(..., C, H, W)``.
        mean: ``(C, 1, 1)``, of images from 0 to 1.
        std: The same of the standard deviation.
    """
    return (images.float() - 255 * mean) / (255 * std)


@dataclass(frozen=True)
class Preprocessing:
    """A model's evaluation transform and input.

    Attributes:
        input_size: Channels, height and width.
        mean: Of each channel, for images from 0 to 1.
        std: The same of the standard deviation.
        interpolation: timm's name of it.
        crop_pct: Fraction of the resized image that is cropped.
        crop_mode: timm's name of the crop.
    """

    input_size: Tuple[int, int, int]
    mean: Tuple[float, ...] = (0.0,) * 3
    std: Tuple[float, ...] = (1.0,) * 3
    interpolation: str = 'bilinear'
    crop_pct: float = 0.875
    crop_mode: str = 'center'

    @classmethod
    def of_model(cls, model: Any, **overrides: Any) -> 'Preprocessing':
        """Return the evaluation transform of a timm model, at its test size.

        Args:
            model: A model with timm's ``pretrained_cfg``.
            overrides: Arguments of timm's ``resolve_data_config`` that replace the model's own.

        Raises:
            UserError: ``mean`` or ``std`` have neither one value nor one for each channel.
        """
        given = {key: value for key, value in overrides.items() if value is not None}
        config = resolve_data_config(
            {key: value for key, value in given.items() if key not in ('mean', 'std')}, model=model, use_test_size=True)
        channels = getattr(model, 'in_chans', None) or config['input_size'][0]
        for key in ('mean', 'std'):
            if len(given.get(key) or (0,)) not in (1, channels):
                raise UserError(f'{key} must have one value or {channels}, got {len(given[key])}')
        config = resolve_data_config({'in_chans': channels, **given}, model=model, use_test_size=True)
        adapted = {**config, **input_channels(config, channels)}
        return cls(tuple(adapted['input_size']), tuple(adapted['mean']), tuple(adapted['std']),
                   config['interpolation'], config['crop_pct'], config['crop_mode'])

    @property
    def channels(self) -> int:
        return self.input_size[0]

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.input_size[1], self.input_size[2]

    @property
    def image_mode(self) -> str:
        """Return Pillow's mode of the images; one channel is gray, as in train.py."""
        return 'L' if self.channels == 1 else 'RGB'

    def with_size(self, size: Optional[Size] = None, crop_pct: Optional[float] = None) -> 'Preprocessing':
        """Return the same of another size or crop; None keeps it."""
        return replace(self, input_size=(self.channels, *(size or self.size)), crop_pct=crop_pct or self.crop_pct)

    def transform(self, normalized: bool = True) -> Any:
        """Return timm's transform from an image to a float tensor ``(C, H, W)``, or to uint8 pixels as an array.

        Args:
            normalized: Whether to return the model's input; else pixels, which :func:`normalize` takes.
        """
        return create_transform(
            self.input_size, interpolation=self.interpolation, mean=self.mean, std=self.std, crop_pct=self.crop_pct,
            crop_mode=self.crop_mode, use_prefetcher=not normalized)

    def statistics(self, device: Optional[torch.device] = None) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation as tensors ``(C, 1, 1)``."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.std))
        return mean, std

    def to_dict(self) -> Dict[str, Any]:
        """Return JSON values."""
        return {key: [*value] if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def text(self) -> str:
        """Size, crop and interpolation in words."""
        return f'{size_text(self.input_size)}, crop {self.crop_pct:.4g}, {self.interpolation}'


def input_channels(cfg: Mapping[str, Any], channels: int) -> Dict[str, Any]:
    """Return an overlay of a pretrained configuration for a number of input channels.

    Args:
        cfg: Configuration with ``input_size``, ``mean`` and ``std``. A mean or std of another number of channels is
            replaced by its average, as in timm's loaders.
        channels: Input channels of the model.

    Returns:
        ``mean``, ``std``, ``input_size``, ``test_input_size`` if ``cfg`` has it, and for other than 1 or 3 channels
        ``first_conv=None``: timm 1.0.29 would reinitialise the first layer instead of loading it.
    """
    entries: Dict[str, Any] = {
        key: tuple(cfg[key]) if len(cfg[key]) == channels else (sum(cfg[key]) / len(cfg[key]),) * channels
        for key in ('mean', 'std')}
    for key in ('input_size', 'test_input_size'):
        if cfg.get(key):
            entries[key] = (channels, *cfg[key][1:])
    if channels not in (1, 3):
        entries.update(first_conv=None)
    return entries
