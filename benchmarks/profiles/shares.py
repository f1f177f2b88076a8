"""What parts of a profile there are, by the names of operations, and their shares as a table.

Knows nothing but what it is given.
"""
from typing import Mapping, Sequence

__all__ = ['Parts', 'part_of', 'shares_table']

Parts = Mapping[str, Sequence[str]]  # by part, what the names of its operations contain; the first that fits counts


def part_of(name: str, parts: Parts, rest: str) -> str:
    """The part that an operation of this name belongs to; ``rest`` if to none."""
    return next((part for part, names in parts.items() if any(n in name for n in names)), rest)


def shares_table(of: str, columns: Mapping[str, Mapping[str, float]], digits: int) -> str:
    """Markdown: each part's percentage of its column's sum.

    Args:
        of: What the whole is, for the title.
        columns: Times by part, of the same parts each, by title.
        digits: After the point.
    """
    lines = [f'| share of a {of} (%) | ' + ' | '.join(columns) + ' |', '|---|' + '--:|' * len(columns)]
    for part in next(iter(columns.values())):
        shares = [100 * parts[part] / sum(parts.values()) for parts in columns.values()]
        lines.append(f'| {part} | ' + ' | '.join(f'{share:.{digits}f}' for share in shares) + ' |')
    return '\n'.join(lines)
