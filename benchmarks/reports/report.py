"""The tables of the results files, in Markdown: printed, and in the READMEs. ``python -m benchmarks.reports.report``

Knows the harness, and by benchmarks.speed what the front page shows.
"""
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence

from docs.generated_block import rewrite_block

from ..harness.measure import ROOT, check_results

__all__ = ['table', 'report']

RESULTS = ROOT / 'benchmarks' / 'results'
README = ROOT / 'benchmarks' / 'README.md'
BEGIN, END = '<!-- results: begin; python -m benchmarks.reports.report writes what follows -->', '<!-- results: end -->'


def _number(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _cells(row: Dict[str, Any]) -> Dict[str, str]:
    cells = {'case': row['name']}
    cells |= {title: _number(value) for title, value in row['details'].items()}
    cells |= {'median (ms)': f'{1000 * row["median_s"]:.4g}', 'spread': f'{row["spread"]:.0%}'}
    c = row['comparison']
    if c is not None:
        cells['compared with'] = c['reference']
        cells[f'ratio of {c["of"]}'] = f'{c["ratio"]:.3f} ({c["q1"]:.3f} to {c["q3"]:.3f})'
        cells['of medians'] = f'{c["ratio_of_medians"]:.3f}'
        if c['bound'] is not None:
            cells['bound'] = f'{"<=" if c["of"] == "seconds" else ">="} {_number(c["bound"])}'
            cells['verdict'] = 'holds' if c['passed'] else 'BROKEN'
    return cells


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """Rows as Markdown tables, one a group, aligned so that a terminal shows them as well."""
    tables = []
    for group in dict.fromkeys(row['group'] for row in rows):
        lines = [_cells(row) for row in rows if row['group'] == group]
        by_length = sorted(lines, key=len, reverse=True)  # the fullest line has the titles in their order
        titles = list(dict.fromkeys(title for line in by_length for title in line))
        grid = [titles] + [[line.get(title, '') for title in titles] for line in lines]
        widths = [max(map(len, column)) for column in zip(*grid)]
        grid.insert(1, ['-' * width for width in widths])
        tables.append(f'**{group}**\n\n' + '\n'.join(
            '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in grid))
    return '\n\n'.join(tables)


def report(paths: Sequence[Path]) -> str:
    """Results files as Markdown: question, where it ran, tables.

    Raises:
        ValueError: A file breaks the schema; the message names it.
    """
    parts: List[str] = []
    for path in paths:
        try:
            results = json.loads(path.read_text())
            check_results(results)
        except ValueError as e:
            raise ValueError(f'{path.name}: {e}') from e
        env = results['environment']
        state = {True: ', with changes', False: '', None: ''}[env['dirty']]
        parts += [
            f'### {results["question"]}',
            f'`{results["command"]}`: {env["date"]}, commit {(env["commit"] or "unknown")[:12]}{state}; '
            f'timm_assemble {env["timm_assemble"]}, timm {env["timm"]}, torch {env["torch"]}, Python {env["python"]}; '
            f'{env["cpu"]}; device {env["device"]}, threads {env["threads"]}, {env["clock"]}.',
            table(results['rows']),
        ]
    return '\n\n'.join(parts)


def main() -> int:
    """Print the report and write it and the front page's figures; 2 and one line where that cannot be."""
    from . import speed  # here, since the benchmarks' command lines, which it knows, take their table from this file
    try:
        block = report(sorted(RESULTS.glob('*.json')))
        page = rewrite_block(README.read_text(), BEGIN, END, block)
        front = rewrite_block(
            speed.README.read_text(), speed.BEGIN, speed.END, speed.speed_block(RESULTS / 'throughput.json'))
        README.write_text(page)
        speed.README.write_text(front)
    except (OSError, ValueError) as e:
        print(f'python -m benchmarks.reports.report: error: {e}', file=sys.stderr)
        return 2
    print(block)
    return 0


if __name__ == '__main__':
    sys.exit(main())
