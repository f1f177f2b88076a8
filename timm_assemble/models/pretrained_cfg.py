"""What in a model's configuration depends on its number of input channels.

Knows timm's configurations alone.
"""
from typing import Any, Dict, Mapping, Sequence, Tuple

__all__ = ['input_channels']


def _per_channel(values: Sequence[float], channels: int) -> Tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


def input_channels(cfg: Mapping[str, Any], channels: int) -> Dict[str, Any]:
    """Entries of a configuration for a model of so many channels, to be laid over it.

    Args:
        cfg: timm's configuration with ``input_size``, ``mean`` and ``std``. Where these are of another number of
            channels, each becomes its average, as timm's loaders take it.
        channels: Of the model's input.

    Returns:
        ``mean``, ``std``, ``input_size``, ``test_input_size`` if there is one, and ``first_conv``, which is None where
        timm 1.0.29 would take the file's weights of the first layer for those of 3 channels and draw the layer anew.
    """
    entries: Dict[str, Any] = {key: _per_channel(cfg[key], channels) for key in ('mean', 'std')}
    for key in ('input_size', 'test_input_size'):
        if cfg.get(key):
            entries[key] = (channels, *cfg[key][1:])
    if channels not in (1, 3):
        entries.update(first_conv=None)
    return entries
