"""Plot accuracy over the number of stored views. ``python -m benchmarks.reports.kd_plot``

Reads results/kd_accuracy.json and writes kd_accuracy.png beside it.
"""
import argparse
import re
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from timm_assemble.runtime.atomic import atomic_file

from ..harness.measure import RESULTS, read_results
from .report import provenance

__all__ = ['draw']

LEVELS = {  # cases drawn as horizontal lines
    'no distillation': '#555555', 'stored logits': '#edae49', 'teacher in each step, rows mixed': '#66a182',
    'teacher in each step, on mixed images': '#30638e'}
TOP1, ERROR = 'top-1 on crops (%)', 'standard error'


def draw(results: Dict[str, Any], path: Path) -> Any:
    """Draw the results of benchmarks.kd_accuracy.

    Args:
        results: Contents of the results file.
        path: Image file. A PNG has the provenance of the results as its description.

    Returns:
        The figure, closed.

    Raises:
        ValueError: The results lack a case.
    """
    import matplotlib
    matplotlib.use('agg')
    from matplotlib import pyplot
    rows = {row['name']: row['details'] for row in results['rows'] if TOP1 in row['details']}
    views = {int(found[1]): rows[name] for name in rows if (found := re.fullmatch(r'(\d+) stored views?', name))}
    missing = [name for name in LEVELS if name not in rows]
    if missing or not views:
        raise ValueError(f'results need the cases {", ".join(missing) or "with stored views"}')
    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), dpi=110)
    xs = sorted(views)
    levels, text = sorted(LEVELS.items(), key=lambda level: rows[level[0]][TOP1]), float('-inf')
    gap = 0.035 * (max(row[TOP1] for row in rows.values()) - min(row[TOP1] for row in rows.values()))
    for name, color in levels:
        top1, error = rows[name][TOP1], rows[name][ERROR]
        text = max(top1, text + gap)  # so that names do not overlap
        axes.axhline(top1, color=color, linewidth=1.3)
        axes.axhspan(top1 - error, top1 + error, color=color, alpha=0.13, linewidth=0)
        axes.annotate(name, (1, text), (5, 0), xycoords=('axes fraction', 'data'), textcoords='offset points',
                      color=color, fontsize=8, va='center')
    axes.errorbar(xs, [views[x][TOP1] for x in xs], [views[x][ERROR] for x in xs], color='#d1495b', marker='o',
                  capsize=4, linewidth=1.4, zorder=3)
    axes.annotate('stored views', (xs[0], views[xs[0]][TOP1]), (10, 0), textcoords='offset points',
                  color='#d1495b', fontsize=8, va='center')
    axes.set_xscale('log')
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.minorticks_off()
    axes.set_xlabel('stored views per image, V', fontsize=9)
    axes.set_ylabel(f'{TOP1}, mean and standard error', fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color='#e5e5e5', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, bbox_inches='tight',
                       metadata={'Description': provenance(results)} if path.suffix == '.png' else None)
    pyplot.close(figure)
    return figure


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Draw the plot; return 2 with one line if it cannot be drawn."""
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.reports.kd_plot', description='Plot accuracy over the number of stored views.')
    parser.add_argument('--results', type=Path, default=RESULTS / 'kd_accuracy.json', help='(%(default)s)')
    parser.add_argument('--output', type=Path, help='image file (kd_accuracy.png beside the results)')
    args = parser.parse_args(argv)
    try:
        draw(read_results(args.results), args.output or args.results.with_suffix('.png'))
    except (OSError, ValueError, ImportError) as e:
        print(f'python -m benchmarks.reports.kd_plot: error: {e}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
