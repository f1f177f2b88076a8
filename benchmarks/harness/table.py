"""Results as Markdown: tables, paired ratios, and where a measurement comes from."""
from typing import Any, Dict, Sequence

from docs.generated_block import markdown_table

__all__ = ['provenance', 'quartiles', 'table']


def provenance(results: Dict[str, Any]) -> str:
    """Return command, date, commit, versions and machine, in one sentence."""
    env = results['environment']
    state = ', with uncommitted changes' if env['dirty'] else ''
    return (
        f'`{results["command"]}` on {env["date"][:10]}, commit {(env["commit"] or "unknown")[:12]}{state}; '
        f'torch {env["torch"]}, timm {env["timm"]}; '
        f'{env["cpu"]}, device {env["device"]}, threads {env["threads"]}, {env["clock"]}.')


def quartiles(comparison: Dict[str, Any], digits: int = 3, unit: str = '') -> str:
    """Format a paired ratio and its unit, with the quartiles in brackets."""
    ratio, q1, q3 = (f'{comparison[key]:.{digits}f}' for key in ('ratio', 'q1', 'q3'))
    return f'{ratio}{unit} ({q1} to {q3})'


def _number(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _cells(row: Dict[str, Any]) -> Dict[str, str]:
    cells = {'case': row['name']}
    cells |= {title: _number(value) for title, value in row['details'].items()}
    cells |= {'median (ms)': f'{1000 * row["median_s"]:.4g}', 'spread': f'{row["spread"]:.0%}'}
    c = row['comparison']
    if c is not None:
        cells |= {'compared with': c['reference'], f'ratio of {c["of"]}': quartiles(c),
                  'of medians': f'{c["ratio_of_medians"]:.3f}'}
        if c['bound'] is not None:
            cells['bound'] = f'{"<=" if c["of"] == "seconds" else ">="} {_number(c["bound"])}'
            cells['verdict'] = 'holds' if c['passed'] else 'BROKEN'
    return cells


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """Return one Markdown table per group."""
    tables = []
    for group in dict.fromkeys(row['group'] for row in rows):
        lines = [_cells(row) for row in rows if row['group'] == group]
        by_length = sorted(lines, key=len, reverse=True)  # the fullest line has the titles in their order
        titles = list(dict.fromkeys(title for line in by_length for title in line))
        cells = [[line.get(title, '') for title in titles] for line in lines]
        tables.append(f'**{group}**\n\n{markdown_table(titles, cells)}')
    return '\n\n'.join(tables)
