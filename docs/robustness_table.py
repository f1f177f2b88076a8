"""Make the tables of docs/robustness.md from one results.json per training seed.

``python -m docs.robustness_table`` prints them, ``--write`` replaces them in the page.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import List, Optional, Sequence

from docs.generated_block import markdown_table, rewrite_block
from timm_assemble.robustness.report import headlines

__all__ = ['PAGE', 'RESULTS', 'tables']

PAGE = Path(__file__).parent / 'robustness.md'
RESULTS = Path(__file__).parent / 'robustness'
BEGIN, END = '<!-- robustness:begin -->', '<!-- robustness:end -->'
METRICS = {'clean top-1': 'top1', 'clean ECE': 'ece', 'mean error': 'mean_error', 'mean ECE': 'mean_ece', 'mCE': 'mce',
           'relative mCE': 'relative_mce', 'consistency': 'consistency'}


def _mean_and_range(values: Sequence[Optional[float]]) -> str:
    """Return the mean over the seeds, and lowest and highest."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return '-'
    return f'{sum(known) / len(known):.1f} ({min(known):.1f} to {max(known):.1f})'


def tables(paths: Sequence[Path]) -> str:
    """Return two Markdown tables: metrics by model, CE by corruption and model.

    Raises:
        ValueError: The files differ in models or protocol, or lack what the tables show.
    """
    results = [json.loads(path.read_text(encoding='utf-8')) for path in paths]
    alike = [[r['protocol'], r['data'], r['versions'], [model['label'] for model in r['models']]] for r in results]
    if not alike or any(other != alike[0] for other in alike):
        raise ValueError('results must be at least one, of one protocol, data and versions, of the same models')
    by_model = [*zip(*(r['models'] for r in results))]  # for each model, its report of each seed
    if any(not report['clean'] or not (report['shift'] or {}).get('clean') for seeds in by_model for report in seeds):
        raise ValueError('results must have clean images and shifts of them')
    names = [f'`{seeds[0]["architecture"]}`' for seeds in by_model]
    rows = [[name, *(_mean_and_range([headlines(report)[key] for report in seeds]) for key in METRICS.values())]
            for name, seeds in zip(names, by_model)]
    by_corruption: List[List[str]] = []
    for corruption in results[0]['protocol']['corruptions']:
        by_corruption.append([corruption])
        for seeds in by_model:
            entries = [report['corruptions'][corruption] for report in seeds]
            error = sum(entry['mean_error'] for entry in entries) / len(entries)
            by_corruption[-1].append(f'{error:.1f}; {_mean_and_range([entry["ce"] for entry in entries])}')
    protocol, clean = results[0]['protocol'], results[0]['data']['clean']
    versions = ', '.join(f'{name} {version}' for name, version in results[0]['versions'].items())
    return '\n\n'.join([
        f'Protocol `{protocol["name"]}`: {protocol["text"]}. {clean["items"]} images of {clean["classes"]} classes, '
        f'{len(results)} trainings of each model; {versions}.',
        markdown_table(['model', *METRICS], rows),
        'Mean error in percent; CE in percent of the baseline trained with the same seed:',
        markdown_table(['corruption', *names], by_corruption)])


def main(argv: Optional[List[str]] = None) -> int:
    """Print or write the tables; an error is one line and status 2."""
    parser = argparse.ArgumentParser(prog='python -m docs.robustness_table')
    parser.add_argument('--write', action='store_true', help=f'replace the tables in {PAGE.name}')
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
