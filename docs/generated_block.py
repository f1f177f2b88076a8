"""Generated parts of Markdown pages: blocks between markers, and tables."""
from typing import Collection, Sequence

__all__ = ['markdown_table', 'rewrite_block']


def rewrite_block(text: str, begin: str, end: str, block: str) -> str:
    """Replace what stands between two markers of a page.

    Args:
        text: Page with both markers once, in order.
        begin: Marker before the block.
        end: Marker after it.
        block: New text, with an empty line on both sides.

    Raises:
        ValueError: Not exactly one of each marker, in order.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or begin in rest or end in before + after:
        raise ValueError(f'text must have the markers {begin!r} and {end!r} once, in this order')
    return f'{before}{begin}\n\n{block}\n\n{end}{after}'


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """Return a Markdown table whose columns are as wide as their widest cell.

    Args:
        titles: Of the columns.
        rows: A cell for every title.
        numbers: Titles of the columns aligned to the right.
    """
    grid = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*grid)]
    lines = [[cell.rjust(width) if title in numbers else cell.ljust(width)
              for title, cell, width in zip(titles, line, widths)] for line in grid]
    lines.insert(1, ['-' * (width - 1) + (':' if title in numbers else '-') for title, width in zip(titles, widths)])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
