"""Put the tables of benchmark results into docs/training.md: ``python -m docs.training_tables``."""
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence

from benchmarks.harness.measure import ROOT
from benchmarks.reports.report import RESULTS
from docs.generated_block import rewrite_block

PAGE = ROOT / 'docs' / 'training.md'
TOP1, SHARE = 'top-1 on crops (%)', "share of the online teacher's gain (%)"  # columns of benchmarks.kd_accuracy


def _rows(name: str, folder: Path = RESULTS) -> List[Dict[str, Any]]:
    return json.loads((folder / f'{name}.json').read_text())['rows']


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    grid = [titles, ['---'] * len(titles), *lines]
    return '\n'.join(f'| {" | ".join(line)} |' for line in grid)


def top_k() -> str:
    """Return one line per k and one column of losses per teacher."""
    groups: Dict[str, List[Dict[str, Any]]] = {}
    for row in _rows('top_k'):
        groups.setdefault(row['group'].split(';')[0], []).append(row)
    lines = [
        [rows[0]['name'], f'{rows[0]["details"]["MB for ImageNet-1k"]:.0f}',
         *(f'{row["details"]["loss of a student"]:.3f}' for row in rows)] for rows in zip(*groups.values())]
    losses = [f'loss: {group[0].lower()}{group[1:]}' for group in groups]
    return _table(['stored', 'MB for ImageNet-1k', *losses], lines)


def kd_accuracy() -> str:
    """Return one line per kind of distillation: accuracy, gain, share of the online teacher's gain, and time."""
    lines = []
    for row in _rows('kd_accuracy'):
        d, c = row['details'], row['comparison']
        if TOP1 not in d:
            continue  # timings of other groups
        pairs = [(d.get(value), d.get(error)) for value, error in (
            (TOP1, 'standard error'), ('gain', 'standard error of the gain'),
            (SHARE, 'standard error of the share'))]
        cells = [f'{value:.{digits}f} ± {error:.{digits}f}' if error is not None else ''
                 for (value, error), digits in zip(pairs, (1, 1, 0))]
        lines.append([row['name'], *cells, f'{c["ratio"]:.2f}' if c else '1'])
    return _table(
        ['distillation', 'top-1 (%)', 'gain', "share of the online teacher's gain (%)", 'time of an epoch'], lines)


def kd_step() -> str:
    """Return one line per kind of distillation: time relative to none, median and quartiles of the rounds."""
    lines = []
    for row in _rows('kd_step'):
        c = row['comparison']
        lines.append([row['name'], f'{c["ratio"]:.3f} ({c["q1"]:.3f} to {c["q3"]:.3f})' if c else '1'])
    return _table(['distillation', 'time of a step'], lines)


def page(text: str) -> str:
    """Return the page with current tables."""
    for name, table in (('top_k', top_k()), ('kd_accuracy', kd_accuracy()), ('kd_step', kd_step())):
        text = rewrite_block(text, f'<!-- {name}: begin -->', f'<!-- {name}: end -->', table)
    return text


if __name__ == '__main__':
    PAGE.write_text(page(PAGE.read_text()))
