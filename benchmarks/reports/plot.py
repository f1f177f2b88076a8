"""Plot top-1 over images/s, a panel per form. ``python -m benchmarks.reports.plot``

Reads results/throughput.json and writes throughput.png beside it.
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from timm_assemble.runtime.atomic import atomic_file

from ..harness.measure import RESULTS, read_results
from ..harness.networks import OURS, Setting
from .published import published
from .report import provenance
from .speed import Speed, read_speeds

__all__ = ['draw', 'label_points']

KINDS = {  # by entry of the legend
    'ours: top-1 published by the paper': dict(marker='*', s=150, facecolor='#d1495b', edgecolor='#d1495b'),
    "timm's: top-1 published by timm, ImageNet-1k alone": dict(
        marker='o', s=32, facecolor='#30638e', edgecolor='#30638e'),
    'the same network, trained with more data': dict(marker='o', s=32, facecolor='white', edgecolor='#30638e'),
}
MINE, PLAIN, EXTRA = KINDS
# offsets of a name from its point, in points of print: nearest first
OFFSETS = [(dx, dy) for far in (1, 1.8, 2.6, 3.6, 5) for dx, dy in (
    (8 * far, 0), (-8 * far, 0), (0, 9 * far), (0, -9 * far), (7 * far, 7 * far), (-7 * far, 7 * far),
    (7 * far, -7 * far), (-7 * far, -7 * far))]


def _points(speeds: Sequence[Speed]) -> List[Tuple[float, float, str, str]]:
    """Return images/s, top-1, kind and name of all points; names once per network."""
    points = []
    for speed in speeds:
        entries, images_s = published(speed.name), speed.details['images/s']
        plain = [p for p in entries if not p.extra_data][:1]
        extra = [p for p in entries if p.extra_data][:1]
        kind = MINE if speed.name in OURS else PLAIN
        points += [(images_s, p.top1, kind, speed.name) for p in plain]
        points += [(images_s, p.top1, EXTRA, '' if plain else speed.name) for p in extra]
    return points


def label_points(axes: Any, points: Sequence[Tuple[float, float, str]]) -> List[Any]:
    """Write each point's name beside it, where it covers nothing.

    Args:
        axes: Complete but for the names.
        points: Positions and names; a point without a name is only kept uncovered.

    Returns:
        The texts.

    Raises:
        ValueError: There is no room for a name.
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
        for dx, dy in OFFSETS:
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
                if max(abs(dx), abs(dy)) > 10:  # too far to belong to the point without a line
                    line = dict(arrowstyle='-', color='#999999', linewidth=0.5, shrinkA=0, shrinkB=3)
                    axes.annotate('', (x, y), (dx, dy), textcoords='offset points', arrowprops=line)
                break
            text.remove()
        if chosen is None:
            raise ValueError(f'no room for the name {name!r}: the figure must be larger')
        texts.append(chosen)
    return texts


def draw(results: Dict[str, Any], path: Path) -> Any:
    """Draw the results of benchmarks.throughput.

    Args:
        results: Contents of the results file.
        path: Image file; its suffix decides the format. A PNG has the provenance of the results as its description.

    Returns:
        The figure, closed.

    Raises:
        ValueError: The results have no inference, or no network with a published top-1.
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
        raise ValueError('results need networks with a published top-1')
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
        axes.set_xlabel(f'images/s, batch size {setting.batch_size}', fontsize=9)
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
    with atomic_file(path) as temporary:
        figure.savefig(temporary, metadata={'Description': provenance(results)} if path.suffix == '.png' else None)
    pyplot.close(figure)
    return figure


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Draw the plot; return 2 with one line if it cannot be drawn."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.reports.plot', description='Plot top-1 over images/s.')
    parser.add_argument('--results', type=Path, default=RESULTS / 'throughput.json', help='(%(default)s)')
    parser.add_argument('--output', type=Path, help='image file (throughput.png beside the results)')
    args = parser.parse_args(argv)
    try:
        draw(read_results(args.results), args.output or args.results.with_suffix('.png'))
    except (OSError, ValueError, ImportError) as e:
        print(f'python -m benchmarks.reports.plot: error: {e}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
