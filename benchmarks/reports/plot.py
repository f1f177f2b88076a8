"""Published top-1 over measured images a second, a panel for each form. ``python -m benchmarks.reports.plot``

Reads results/throughput.json and writes throughput.png beside it. Knows matplotlib, what is published, and the speeds.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..harness.measure import check_results
from ..harness.networks import OURS, Setting
from .published import published
from .report import RESULTS
from .speed import Speed, read_speeds, where

__all__ = ['draw', 'description', 'label_points']

KINDS = {  # marker, face and edge of what the legend says
    'ours: top-1 of the paper, speed measured here': dict(marker='*', s=150, facecolor='#d1495b', edgecolor='#d1495b'),
    "timm's: top-1 published by timm, ImageNet-1k alone": dict(
        marker='o', s=32, facecolor='#30638e', edgecolor='#30638e'),
    'the same network, trained with more data': dict(marker='o', s=32, facecolor='white', edgecolor='#30638e'),
}
MINE, PLAIN, EXTRA = KINDS
# where a name may stand beside its point, in points of print: nearest first
PLACES = [(dx, dy) for far in (1, 1.8, 2.6, 3.6, 5) for dx, dy in (
    (8 * far, 0), (-8 * far, 0), (0, 9 * far), (0, -9 * far), (7 * far, 7 * far), (-7 * far, 7 * far),
    (7 * far, -7 * far), (-7 * far, -7 * far))]


def description(results: Dict[str, Any]) -> str:
    """Written into the picture's file, so that it can be held against the results."""
    return where(results)


def _points(speeds: Sequence[Speed]) -> List[Tuple[float, float, str, str]]:
    """Images a second, top-1, kind and name of every point; the name only once a network."""
    points = []
    for speed in speeds:
        entries = published(speed.name)
        plain = [p for p in entries if not p.extra_data][:1]
        extra = [p for p in entries if p.extra_data][:1]
        kind = MINE if speed.name in OURS else PLAIN
        points += [(speed.images_s, p.top1, kind, speed.name) for p in plain]
        points += [(speed.images_s, p.top1, EXTRA, '' if plain else speed.name) for p in extra]
    return points


def label_points(axes: Any, points: Sequence[Tuple[float, float, str]]) -> List[Any]:
    """Write each point's name beside it, where it covers neither point nor name and stays within the axes.

    Args:
        axes: With limits and everything else set.
        points: Position and name; of an empty name only the place is kept free.

    Returns:
        The texts.
    """
    from matplotlib.transforms import Bbox
    figure = axes.figure
    renderer = figure.canvas.get_renderer()
    frame, scale = axes.get_window_extent(renderer), figure.dpi / 72
    taken = []
    for x, y, _ in points:
        px, py = axes.transData.transform((x, y))
        taken.append(Bbox.from_extents(px - 5 * scale, py - 5 * scale, px + 5 * scale, py + 5 * scale))
    texts = []
    for x, y, name in sorted(points, key=lambda point: point[0]):
        if not name:
            continue
        chosen: Any = None
        for dx, dy in PLACES:
            text = axes.annotate(
                name, (x, y), (dx, dy), textcoords='offset points', fontsize=7,
                color='#d1495b' if name in OURS else '#333333',
                ha='left' if dx > 0 else 'right' if dx < 0 else 'center',
                va='bottom' if dy > 0 else 'top' if dy < 0 else 'center')
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                chosen = text
                taken.append(box)
                if max(abs(dx), abs(dy)) > 10:  # too far to be taken for this point's without a line
                    line = dict(arrowstyle='-', color='#999999', linewidth=0.5, shrinkA=0, shrinkB=3)
                    axes.annotate('', (x, y), (dx, dy), textcoords='offset points', arrowprops=line)
                break
            text.remove()
        if chosen is None:
            raise ValueError(f'no room for the name {name!r}: the figure must be larger.')
        texts.append(chosen)
    return texts


def draw(results: Dict[str, Any], path: Path) -> Any:
    """Draw the results of benchmarks.throughput.

    Args:
        results: As read from its file.
        path: The picture, of the type its name says.

    Returns:
        The figure, closed.

    Raises:
        ValueError: No inference in the results, or no published figure of any network in them.
    """
    import matplotlib
    matplotlib.use('agg')
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    by_setting: Dict[Setting, List[Speed]] = {}
    for speed in read_speeds(results):
        by_setting.setdefault(speed.setting, []).append(speed)
    panels = {setting: _points(speeds) for setting, speeds in by_setting.items()}
    if not any(panels.values()):
        raise ValueError('nothing to draw: the results need --modes inference and networks with a published top-1')
    lines = (len(panels) + 1) // 2
    figure, grid = pyplot.subplots(
        lines, min(2, len(panels)), figsize=(6.4 * min(2, len(panels)), 4.6 * lines + 0.8), dpi=110, squeeze=False,
        sharey=True)
    for axes in grid.flat[len(panels):]:
        axes.remove()
    for axes, (setting, points) in zip(grid.flat, panels.items()):
        axes.set_xscale('log')
        for kind, style in KINDS.items():
            xs, ys = ([p[i] for p in points if p[2] == kind] for i in (0, 1))
            axes.scatter(xs, ys, label=kind, linewidth=1.2, zorder=3, **style)
        for x in {p[0] for p in points if p[2] == EXTRA}:
            ys = [p[1] for p in points if p[0] == x]
            axes.plot([x, x], [min(ys), max(ys)], color='#30638e', linewidth=0.7, linestyle=':', zorder=2)
        axes.set_title(f'{setting.form}, {setting.dtype}', fontsize=10)
        axes.set_xlabel(f'images a second, batch size {setting.batch_size}', fontsize=9)
        axes.set_ylabel('published top-1 on ImageNet-1k (%)', fontsize=9)
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(color='#e5e5e5', linewidth=0.6)
        axes.tick_params(labelsize=8, labelleft=True)
        axes.spines[['top', 'right']].set_visible(False)
        axes.margins(x=0.16, y=0.08)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='lower center', ncols=1 if len(panels) == 1 else 3, fontsize=8, frameon=False)
    env = results['environment']
    figure.suptitle(f'{env["cpu"]}, device {env["device"]}, threads {env["threads"]}; {env["date"][:10]}', fontsize=9)
    figure.tight_layout(rect=(0, 0.09 if len(panels) == 1 else 0.04, 1, 1))
    figure.canvas.draw()
    for axes, points in zip(grid.flat, panels.values()):
        label_points(axes, [(x, y, name) for x, y, _, name in points])
    figure.savefig(path, metadata={'Description': description(results)} if path.suffix == '.png' else None)
    pyplot.close(figure)
    return figure


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Draw; 2 and one line where that cannot be."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.reports.plot', description='Plot top-1.')
    parser.add_argument('--results', type=Path, default=RESULTS / 'throughput.json', help='(%(default)s)')
    parser.add_argument('--output', type=Path, help='picture (beside the results, throughput.png)')
    args = parser.parse_args(argv)
    try:
        results = json.loads(args.results.read_text())
        check_results(results)
        draw(results, args.output or args.results.with_suffix('.png'))
    except (OSError, ValueError, ImportError) as e:
        print(f'python -m benchmarks.reports.plot: error: {e}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
