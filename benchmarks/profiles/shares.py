"""Parts of a profile by the names of operations, and their shares as a table."""
from typing import Mapping, Sequence

__all__ = ['Parts', 'part_of', 'shares_table']

Parts = Mapping[str, Sequence[str]]  # by part, what the names of its operations contain; the first match counts


def part_of(name: str, parts: Parts, rest: str) -> str:
    """Return the part that an operation belongs to, or ``rest``."""
    return next((part for part, names in parts.items() if any(n in name for n in names)), rest)


def shares_table(of: str, columns: Mapping[str, Mapping[str, float]], digits: int) -> str:
    """Return a Markdown table of each part's percentage of its column's sum.

    Args:
        of: Name of the whole, for the title.
        columns: By title, times by part; all of the same parts.
        digits: Number of decimals.
    """
    lines = [f'| share of a {of} (%) | ' + ' | '.join(columns) + ' |', '|---|' + '--:|' * len(columns)]
    for part in next(iter(columns.values())):
        shares = [100 * parts[part] / sum(parts.values()) for parts in columns.values()]
        lines.append(f'| {part} | ' + ' | '.join(f'{share:.{digits}f}' for share in shares) + ' |')
    return '\n'.join(lines)
