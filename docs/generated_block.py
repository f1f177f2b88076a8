"""Generated parts of Markdown pages: blocks between markers, and tables."""
from typing import Collection, Sequence

from tabulate import tabulate

__all__ = ['markdown_table', 'rewrite_block']


def rewrite_block(text: str, name: str, block: str) -> str:
    """Replace what stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.

    Raises:
        ValueError: The page does not have each marker once, in order.
    """
    begin, end = f'<!-- {name}:begin -->', f'<!-- {name}:end -->'
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or begin in rest or end in before + after:
        raise ValueError(f'text must have the markers {begin!r} and {end!r} once, in this order')
    return f'{before}{begin}\n\n{block}\n\n{end}{after}'


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """Return a Markdown table; ``numbers`` are the titles of columns aligned to the right."""
    return tabulate(rows, titles, 'pipe', disable_numparse=True,
                    colalign=['right' if title in numbers else 'left' for title in titles])
