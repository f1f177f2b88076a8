"""Entries of a pretrained configuration that depend on the number of input channels."""
from typing import Any, Dict, Mapping

__all__ = ['input_channels']


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
