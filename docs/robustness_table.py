"""Make the tables of docs/robustness.md from results of `timm-assemble robustness`, one file a seed of the training.

``python -m docs.robustness_table`` prints them, ``--write`` puts them there. Knows the form of the results.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from docs.generated_block import rewrite_block

__all__ = ['PAGE', 'RESULTS', 'tables']

PAGE = Path(__file__).parent / 'robustness.md'
RESULTS = Path(__file__).parent / 'robustness'
BEGIN, END = '<!-- robustness:begin -->', '<!-- robustness:end -->'
FIGURES: Dict[str, Callable[[Dict[str, Any]], Optional[float]]] = {
    'clean top-1': lambda m: 100 - m['clean']['top1_error'],
    'clean ECE': lambda m: m['clean']['ece'],
    'mean error': lambda m: m['mean_error'],
    'mean ECE': lambda m: m['mean_ece'],
    'mCE': lambda m: m['mce'],
    'relative mCE': lambda m: m['relative_mce'],
    'consistency': lambda m: m['shift']['clean']['consistency'],
}


def _cell(values: Sequence[Optional[float]]) -> str:
    """Mean over the seeds, and lowest and highest."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return '-'
    return f'{sum(known) / len(known):.1f} ({min(known):.1f} to {max(known):.1f})'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    grid = [[*head], *([*row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid)]
    grid.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(cell.ljust(w) for cell, w in zip(line, widths)) + ' |' for line in grid)


def tables(paths: Sequence[Path]) -> str:
    """Two tables in Markdown: figures a model, and CE a corruption and a model.

    Raises:
        ValueError: The files are not of the same models and protocol, or lack what the tables show.
    """
    results = [json.loads(path.read_text(encoding='utf-8')) for path in paths]
    alike = [[r['protocol'], r['data'], r['versions'], [model['label'] for model in r['models']]] for r in results]
    if not alike or any(other != alike[0] for other in alike):
        raise ValueError(f'results must be of one protocol, data and versions, of the same models, and at least one, '
                         f'got {len(results)}')
    if any(not model['clean'] or not model['shift'] or not model['shift']['clean']
           for r in results for model in r['models']):
        raise ValueError('results must have clean pictures and shifts of them')
    seeds = [{model['label']: model for model in r['models']} for r in results]
    rows = [[f'`{model["architecture"]}`', *(_cell([call(s[label]) for s in seeds]) for call in FIGURES.values())]
            for label, model in seeds[0].items()]
    names = results[0]['protocol']['corruptions']
    by_corruption: List[List[str]] = []
    for name in names:
        line = [name]
        for label in seeds[0]:
            entries = [s[label]['corruptions'][name] for s in seeds]
            errors = sum(e['mean_error'] for e in entries) / len(entries)
            ces = [e['ce'] for e in entries]
            line.append(f'{errors:.1f}; {_cell(ces)}')
        by_corruption.append(line)
    protocol, versions = results[0]['protocol'], results[0]['versions']
    clean = results[0]['data']['clean']
    said = (f'Protocol `{protocol["name"]}`: {protocol["text"]}. {clean["items"]} pictures of {clean["classes"]} '
            f'classes, {len(results)} trainings of each model; {", ".join(f"{k} {v}" for k, v in versions.items())}.')
    return '\n\n'.join([
        said, _table(['model', *FIGURES], rows),
        'Mean error in percent; CE in percent of the baseline trained with the same seed:',
        _table(['corruption', *(f'`{model["architecture"]}`' for model in seeds[0].values())], by_corruption)])


def main(argv: Optional[List[str]] = None) -> int:
    """Print the tables or write them; 2 and one line where that cannot be."""
    parser = argparse.ArgumentParser(prog='python -m docs.robustness_table')
    parser.add_argument('--write', action='store_true', help=f'put the tables into {PAGE.name}')
    args = parser.parse_args(argv)
    try:
        block = tables(sorted(RESULTS.glob('*.json')))
        if args.write:
            PAGE.write_text(rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, block), encoding='utf-8')
        else:
            print(block)
    except (OSError, ValueError) as e:
        print(f'python -m docs.robustness_table: error: {e}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
