"""The user's cache folder of this package."""
import os
from pathlib import Path

__all__ = ['cache_folder']


def cache_folder(*parts: str) -> Path:
    """Return a folder below ``XDG_CACHE_HOME/timm_assemble``, or ``~/.cache/timm_assemble`` where that is unset."""
    base = os.environ.get('XDG_CACHE_HOME')
    return (Path(base) if base else Path.home() / '.cache').joinpath('timm_assemble', *parts)
