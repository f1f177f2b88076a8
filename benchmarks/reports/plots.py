"""The plots of the pages: published top-1 and images/s, and accuracy over the number of stored views."""
import re
from pathlib import Path
from typing import Any, Dict

from timm_assemble.runtime.atomic import atomic_file

from ..harness.networks import OURS
from ..harness.table import provenance
from .published import published
from .speed import read_speeds, top1_of

__all__ = ['plot_kd_accuracy', 'plot_throughput']

RED, BLUE = '#d1495b', '#30638e'
LEVELS = {  # cases drawn as horizontal lines
    'no distillation': '#555555', 'stored logits': '#edae49', 'teacher in each step, rows mixed': '#66a182',
    'teacher in each step, on mixed images': BLUE}
TOP1, ERROR = 'top-1 on crops (%)', 'standard error'


def _axes(width: float, height: float) -> Any:
    import matplotlib
    matplotlib.use('agg')
    from matplotlib import pyplot
    axes = pyplot.subplots(figsize=(width, height), dpi=110, layout='constrained')[1]
    axes.grid(color='#e5e5e5', linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    return axes


def _save(axes: Any, results: Dict[str, Any], path: Path) -> None:
    """Write the figure; a PNG says where its results are from."""
    from matplotlib import pyplot
    with atomic_file(path) as temporary:
        axes.figure.savefig(temporary, metadata={'Description': provenance(results)})
    pyplot.close(axes.figure)


def plot_throughput(results: Dict[str, Any], path: Path) -> Any:
    """Plot images/s of every form, a line for each network in the order of published top-1; return the axes."""
    speeds = [speed for speed in read_speeds(results) if published(speed.name)]
    names = sorted({speed.name for speed in speeds}, key=lambda name: published(name)[0].top1)
    axes = _axes(9, 1.5 + 0.28 * len(names))
    for form, marker in zip(dict.fromkeys(speed.form for speed in speeds), 'osD^v*'):
        found = {speed.name: speed.details['images/s'] for speed in speeds if speed.form == form}
        axes.scatter([*found.values()], [names.index(name) for name in found], marker=marker, s=34, zorder=3,
                     label=form)
    axes.set_xscale('log')
    axes.set_yticks(range(len(names)), [f'{name}  {top1_of(name)}' for name in names])
    for label, name in zip(axes.get_yticklabels(), names):
        label.set_color(RED if name in OURS else '#333333')
    axes.set_xlabel(f'images/s, batch size {speeds[0].setting.batch_size}')
    axes.set_title('Published top-1 on ImageNet-1k (%), ours in red by the paper, the others by timm', fontsize=10)
    axes.legend(loc='upper right', frameon=True)
    _save(axes, results, path)
    return axes


def plot_kd_accuracy(results: Dict[str, Any], path: Path) -> Any:
    """Plot accuracy over the number of stored views; return the axes."""
    rows = {row['name']: row['details'] for row in results['rows'] if TOP1 in row['details']}
    pattern = r'(\d+) stored views? of mixed images'
    views = {int(found[1]): rows[name] for name in rows if (found := re.fullmatch(pattern, name))}
    axes, xs = _axes(7.2, 4.4), sorted(views)
    for name, color in LEVELS.items():
        top1, error = rows[name][TOP1], rows[name][ERROR]
        axes.axhline(top1, color=color, linewidth=1.3, label=name)
        axes.axhspan(top1 - error, top1 + error, color=color, alpha=0.13, linewidth=0)
    axes.errorbar(xs, [views[x][TOP1] for x in xs], [views[x][ERROR] for x in xs], color=RED, marker='o', capsize=4,
                  linewidth=1.4, zorder=3, label='stored views of mixed images')
    axes.set_xscale('log')
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.minorticks_off()
    axes.set_xlabel('stored views per image, V')
    axes.set_ylabel(f'{TOP1}, mean and standard error')
    axes.legend(loc='lower right')
    _save(axes, results, path)
    return axes
