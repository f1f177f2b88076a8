"""Figures of results: written atomically, with labels that the installed fonts can draw."""
import functools
from pathlib import Path
from typing import Any, List

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
def _fonts() -> List[Any]:
    """Return the name and the characters of the default font, then those of all other installed ones."""
    from matplotlib import font_manager, ft2font

    default = font_manager.findfont(font_manager.FontProperties())
    found = {}
    for entry in sorted(font_manager.fontManager.ttflist, key=lambda f: (f.fname != default, f.name)):
        if entry.name not in found and (entry.fname == default or entry.style == 'normal'):
            found[entry.name] = frozenset(ft2font.FT2Font(entry.fname).get_charmap())
    return [*found.items()]


def drawable(text: str, limit: int = 60) -> str:
    """Return a label as the fonts can draw it, cut in the middle.

    A font that has its characters, such as Chinese ones, is used beside the default one; characters that no installed
    font has become escapes.
    """
    if len(text) > limit:
        text = f'{text[:(limit - 1) // 2]}…{text[-(limit // 2):]}'
    for character in {c for c in text if ord(c) > 126}:
        name = next((name for name, has in _fonts() if ord(character) in has), None)
        if name is None:
            text = text.replace(character, character.encode('ascii', 'backslashreplace').decode())
        elif name not in (_fonts()[0][0], *pyplot().rcParams['font.family']):
            pyplot().rcParams['font.family'] = [*pyplot().rcParams['font.family'], name]
    return text.replace('$', r'\$')


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG and close it; return its path."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    pyplot().close(figure)
    return path
