"""Figures of results: written atomically, with labels that the default font can draw."""
import functools
from pathlib import Path
from typing import Any, FrozenSet

from ..runtime.atomic import atomic_file

__all__ = ['drawable', 'pyplot', 'save']


@functools.cache
def pyplot() -> Any:
    """Return matplotlib's pyplot, which draws without a display."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot

    return matplotlib.pyplot


@functools.cache
def _characters() -> FrozenSet[int]:
    """Return the characters of the default font."""
    from matplotlib import font_manager, ft2font

    return frozenset(ft2font.FT2Font(font_manager.findfont(font_manager.FontProperties())).get_charmap())


def drawable(text: str, limit: int = 60) -> str:
    """Return a label as the default font can draw it, cut in the middle; other characters become escapes."""
    if len(text) > limit:
        text = f'{text[:(limit - 1) // 2]}…{text[-(limit // 2):]}'
    text = ''.join(c if ord(c) in _characters() else c.encode('ascii', 'backslashreplace').decode() for c in text)
    return text.replace('$', r'\$')


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG and close it; return its path."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot().close(figure)
    return path
