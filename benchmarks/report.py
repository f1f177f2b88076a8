"""The tables: results files to Markdown, and into the README between two markers. ``python -m benchmarks.report``

Knows the harness.
"""
from typing import Any, Dict, Sequence

from .harness import ROOT

__all__ = ['table', 'report', 'rewrite']

README = ROOT / 'benchmarks' / 'README.md'
BEGIN, END = '<!-- results: begin, written by python -m benchmarks.report -->', '<!-- results: end -->'


def _cell(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _line(row: Dict[str, Any]) -> Dict[str, str]:
    cells = {'case': row['name'], **{title: _cell(value) for title, value in row['details'].items()}}
    cells |= {'median (ms)': f'{1000 * row["median_s"]:.1f}', 'spread': f'{row["spread"]:.0%}'}
    c = row['comparison']
    if c is not None:
        cells |= {
            'over': c['reference'],
            'ratio': f'{c["ratio"]:.3f} ({c["q1"]:.3f} to {c["q3"]:.3f})',
            'of medians': f'{c["ratio_of_medians"]:.3f}',
        }
        if c['bound'] is not None:
            cells['bound'] = ('<= ' if c['of'] == 'seconds' else '>= ') + _cell(c['bound'])
            cells['verdict'] = 'holds' if c['passed'] else 'BROKEN'
    return cells


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """Markdown tables of rows, one a group, aligned so that they can be read in a terminal too."""
    parts = []
    for group in dict.fromkeys(row['group'] for row in rows):
        lines = [_line(row) for row in rows if row['group'] == group]
        titles = sorted({title: None for line in lines for title in line}, key=_place)
        cells = [titles] + [[line.get(title, '') for title in titles] for line in lines]
        widths = [max(map(len, column)) for column in zip(*cells)]
        cells.insert(1, ['-' * width for width in widths])
        parts.append(f'{group}\n\n' + '\n'.join(
            '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in cells))
    return '\n\n'.join(parts)


def _place(title: str) -> int:
    return 0
