"""The front page's tables of speed, from the results of benchmarks.throughput."""
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

from docs.generated_block import markdown_table

from timm_assemble.recipes.paper import EFFICIENTNET_B6_IMAGES_PER_S, ROWS

from ..harness.measure import read_results
from ..harness.networks import LARGE, MOBILE, OURS, REFERENCE, Setting
from ..harness.table import quartiles
from .published import PAPER_SOURCE, TIMM_SOURCE, published
from .report import provenance

__all__ = ['Speed', 'efficientnet_table', 'losses', 'models_table', 'overview', 'read_speeds']

COLUMNS = (('eager', 'float32'), ('optimized', 'bfloat16'))  # forms and dtypes on the front page


class Speed(NamedTuple):
    """One network in one setting, as measured."""

    setting: Setting
    name: str
    details: Dict[str, Any]  # size, params (M), GMACs, images/s
    ratio: float  # paired, to the reference of its group

    @property
    def cell(self) -> str:
        return f'{self.details["images/s"]:.3g} ({self.ratio:.2f})'


def read_speeds(results: Dict[str, Any], mode: str = 'inference') -> List[Speed]:
    """Return the networks of a mode at the file's first batch size.

    Each stands once per setting.

    Raises:
        ValueError: The results have none.
    """
    speeds: Dict[Any, Speed] = {}
    for row in results['rows']:
        setting, comparison = Setting.parse(row['group']), row['comparison']
        if setting is None or setting.mode != mode or 'images/s' not in row['details']:
            continue
        if row['group'] not in (setting.title, f'{setting.title}, {LARGE}'):
            continue  # a pair of networks that has a group of its own as well
        speed = Speed(setting, row['name'], row['details'], comparison['ratio'] if comparison else 1.0)
        speeds.setdefault((setting, row['name']), speed)
    if not speeds:
        raise ValueError(f'results need --modes {mode}')
    first = next(iter(speeds.values())).setting.batch_size
    return [speed for speed in speeds.values() if speed.setting.batch_size == first]


def _label(name: str) -> str:
    return f'**`{name}`**' if name in OURS else f'`{name}`'


def _top1(name: str) -> str:
    """Best published top-1, of ImageNet-1k alone where there is one."""
    best = published(name)[0]
    return f'{best.top1:.2f}' + (f' ({best.extra_data})' if best.extra_data else '')


def _table(speeds: Sequence[Speed], settings: Sequence[Setting]) -> str:
    cells = {(speed.setting, speed.name): speed.cell for speed in speeds}
    networks = {speed.name: speed.details for speed in speeds if published(speed.name)}
    lines = [
        [_label(name), str(d['size']), f'{d["params (M)"]:.1f}', f'{d["GMACs"]:.2f}', _top1(name),
         *(cells.get((setting, name), '-') for setting in settings)]
        for name, d in sorted(networks.items(), key=lambda item: (published(item[0])[0].top1, item[0]))]
    titles = ['model', 'size', 'params (M)', 'GMACs', 'top-1 (%)', *(f'{s.form} {s.dtype}' for s in settings)]
    return markdown_table(titles, lines, titles[1:4])


def models_table(path: Path) -> str:
    """Return the front page's table: models measured in all its columns, ordered by published top-1."""
    results = read_results(path)
    speeds = read_speeds(results)
    settings = [s for s in dict.fromkeys(speed.setting for speed in speeds) if (s.form, s.dtype) in COLUMNS]
    measured = {(speed.setting, speed.name) for speed in speeds}
    speeds = [speed for speed in speeds if speed.name not in MOBILE
              and all((setting, speed.name) in measured for setting in settings)]
    return '\n\n'.join([_table(speeds, settings), (
        f'Last columns: images/s at batch size {speeds[0].setting.batch_size} and, in brackets, the ratio to '
        f'`{REFERENCE}`, measured by {provenance(results)} Top-1 is published, not measured: ours (bold) by the paper '
        f'({PAPER_SOURCE}), the others by timm ({TIMM_SOURCE}).')])


def overview(path: Path) -> str:
    """Return the models in every form, EfficientNet's ratios and the losses."""
    speeds = read_speeds(read_results(path))
    everything = _table(speeds, list(dict.fromkeys(speed.setting for speed in speeds)))
    title = f'**images/s at batch size {speeds[0].setting.batch_size} and the ratio to `{REFERENCE}`**'
    return '\n\n'.join([title, everything, efficientnet_table(path), losses(path, mobile=True)])


def efficientnet_table(path: Path) -> str:
    """Return the paired ratios to EfficientNet-B6, with the paper's.

    Raises:
        ValueError: The results have no such pair.
    """
    lines: List[List[str]] = []
    images_s: Dict[str, float] = {}
    pair = ('', '')
    for row in read_results(path)['rows']:
        setting, c = Setting.parse(row['group']), row['comparison']
        if setting is None or ' beside ' not in row['group']:
            continue
        images_s[row['name']] = row['details']['images/s']
        if c:
            pair = row['name'], c['reference']
            lines.append([f'{setting.form} {setting.dtype}', *(f'{images_s[name]:.3g}' for name in pair),
                          quartiles(c, 2)])
    if not lines:
        raise ValueError(f'{path.name} has no pair of networks beside each other')
    paper, peer = ROWS['E12'].images_per_s or 0, EFFICIENTNET_B6_IMAGES_PER_S
    lines.append(['the paper, Tesla P40', str(paper), str(peer), f'{paper / peer:.1f}'])
    return markdown_table(
        ['images/s', *(f'`{name}`' for name in pair), 'ratio (quartiles)'], lines,
        [f'`{name}`' for name in pair])


def losses(path: Path, mobile: bool = False) -> str:
    """Return the list of models that are faster than one of ours, of our MobileNets too or not.

    Their published top-1 is that of ours or more, and they are faster in at least one form.
    """
    ratios: Dict[str, Dict[Setting, float]] = {}
    for speed in read_speeds(read_results(path)):
        ratios.setdefault(speed.name, {})[speed.setting] = speed.ratio

    def faster(mine: str, chosen: Callable[[str], bool]) -> str:
        found = []
        for peer in (name for name in ratios if name not in OURS):
            better = [p for p in published(peer) if p.top1 >= published(mine)[0].top1 and chosen(p.extra_data)]
            both = [ratios[peer][s] / ratios[mine][s] for s in ratios[peer] if s in ratios[mine]]
            if better and both and max(both) > 1:
                best = max(better, key=lambda p: p.top1)
                low, high = f'{min(both):.2f}x', f'{max(both):.2f}x'
                span = low if low == high else f'{low} to {high}'
                extra = f' with {best.extra_data}' if best.extra_data else ''
                found.append(f'`{peer}` ({best.top1:.2f}{extra}; {span})')
        return ', '.join(found)

    lines = []
    for mine in (name for name in OURS if name in ratios and published(name) and (mobile or name not in MOBILE)):
        plain, extra = faster(mine, lambda data: not data), faster(mine, bool)
        lines.append(f'- `{mine}` ({published(mine)[0].top1:.2f}): {plain or "none on ImageNet-1k alone"}'
                     + (f'; trained with more data: {extra}' if extra else ''))
    return '\n'.join([
        'Models that are as accurate as ours or more, as published, and faster in at least one form. In brackets: '
        'top-1, and images/s over ours, lowest and highest of all forms.', '', *lines])
