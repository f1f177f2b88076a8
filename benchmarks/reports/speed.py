"""The front page's tables of speed, from the results of benchmarks.throughput on a CPU and on GPUs."""
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
DISTILLED = ('assemble_resnet50_bl_sk', 'assemble_resnet50', 'assemble_resnet152')  # rows E9, E11 and E12


class Speed(NamedTuple):
    """One network in one setting, as measured."""

    device: str  # '' for a CPU
    setting: Setting
    name: str
    details: Dict[str, Any]  # size, params (M), GMACs, images/s
    ratio: float  # paired, to the reference of its group

    @property
    def form(self) -> str:
        """What was measured where; networks are compared within it."""
        return _form(self.device, self.setting)

    @property
    def cell(self) -> str:
        # no rate beside it: the rates of large networks are of other runs than the reference's
        return f'{self.ratio:.2f}'


def _rate(images_s: float) -> str:
    return f'{images_s:.3g}' if images_s < 1000 else f'{images_s:.0f}'


def _device(results: Dict[str, Any]) -> str:
    device = results['environment']['device']
    return '' if device == 'cpu' else device.removeprefix('NVIDIA ')


def _form(device: str, setting: Setting) -> str:
    return f'{setting.form} {setting.dtype}' + (f', {device}' if device else '')


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
        ratio = comparison['ratio'] if comparison else 1.0
        speed = Speed(_device(results), setting, row['name'], row['details'], ratio)
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
    note = best.extra_data or ('distilled' if name in DISTILLED else '')
    return f'{best.top1:.2f}' + (f' ({note})' if note else '')


def _mce(name: str) -> str:
    rows = [row for row in ROWS.values() if row.model == name]
    return f'{max(rows, key=lambda row: row.top1).mce:.2f}' if rows else '-'


def _read(paths: Sequence[Path]) -> List[Speed]:
    return [speed for path in paths for speed in read_speeds(read_results(path))]


def _forms(speeds: Sequence[Speed]) -> List[str]:
    return list(dict.fromkeys(speed.form for speed in speeds))


def _table(speeds: Sequence[Speed]) -> str:
    cells, forms = {(speed.form, speed.name): speed.cell for speed in speeds}, _forms(speeds)
    networks = {speed.name: speed.details for speed in speeds if published(speed.name)}
    lines = [
        [_label(name), str(d['size']), f'{d["params (M)"]:.1f}', f'{d["GMACs"]:.2f}', _top1(name), _mce(name),
         *(cells.get((form, name), '-') for form in forms)]
        for name, d in sorted(networks.items(), key=lambda item: (published(item[0])[0].top1, item[0]))]
    columns = [form if ', ' in form else f'{form}, CPU' for form in forms]
    titles = ['model', 'size', 'params (M)', 'GMACs', 'top-1 (%)', 'mCE (%)', *columns]
    return markdown_table(titles, lines, [*titles[1:4], *titles[5:]])


def models_table(*paths: Path) -> str:
    """Return the front page's table: models measured in all its columns, ordered by published top-1."""
    speeds = [speed for speed in _read(paths) if (speed.setting.form, speed.setting.dtype) in COLUMNS]
    measured, forms = {(speed.form, speed.name) for speed in speeds}, _forms(speeds)
    speeds = [speed for speed in speeds if speed.name not in MOBILE
              and all((form, speed.name) in measured for form in forms)]
    sources = [f'Measured at batch size {read_speeds(results)[0].setting.batch_size} by {provenance(results)}'
               for results in map(read_results, paths)]
    return '\n\n'.join([_table(speeds), (
        f'Last columns: images/s over those of `{REFERENCE}`, in the same rounds. {" ".join(sources)} '
        f'Top-1 and mCE are published, not measured: ours (bold) by the paper ({PAPER_SOURCE}), with mCE over 19 '
        f'corruptions generated on the fly at 256; top-1 of the others by timm ({TIMM_SOURCE}).')])


def overview(*paths: Path) -> str:
    """Return the models in every form, EfficientNet's ratios and the losses."""
    speeds = _read(paths)
    title = f'**images/s over those of `{REFERENCE}`, at batch size {speeds[0].setting.batch_size}**'
    return '\n\n'.join([title, _table(speeds), efficientnet_table(*paths), losses(*paths, mobile=True)])


def efficientnet_table(*paths: Path) -> str:
    """Return the paired ratios to EfficientNet-B6, with the paper's.

    Raises:
        ValueError: The results have no such pair.
    """
    lines: List[List[str]] = []
    images_s: Dict[str, float] = {}
    pair = ('', '')
    for results, row in ((one, row) for one in map(read_results, paths) for row in one['rows']):
        setting, c = Setting.parse(row['group']), row['comparison']
        if setting is None or ' beside ' not in row['group']:
            continue
        images_s[row['name']] = row['details']['images/s']
        if c:
            pair = row['name'], c['reference']
            lines.append([_form(_device(results), setting), *(_rate(images_s[name]) for name in pair),
                          quartiles(c, 2)])
    if not lines:
        raise ValueError(f'{paths[0].name} has no pair of networks beside each other')
    paper, peer = ROWS['E12'].images_per_s or 0, EFFICIENTNET_B6_IMAGES_PER_S
    lines.append(['the paper, Tesla P40', str(paper), str(peer), f'{paper / peer:.1f}'])
    return markdown_table(
        ['images/s', *(f'`{name}`' for name in pair), 'ratio (quartiles)'], lines,
        [f'`{name}`' for name in pair])


def losses(*paths: Path, mobile: bool = False) -> str:
    """Return the list of models that are faster than one of ours, of our MobileNets too or not.

    Their published top-1 is that of ours or more, and they are faster in at least one form.
    """
    ratios: Dict[str, Dict[str, float]] = {}
    for speed in _read(paths):
        ratios.setdefault(speed.name, {})[speed.form] = speed.ratio

    def faster(mine: str, chosen: Callable[[str], bool]) -> str:
        found = []
        for peer in (name for name in ratios if name not in OURS):
            better = [p for p in published(peer) if p.top1 >= published(mine)[0].top1 and chosen(p.extra_data)]
            both = [ratio / ratios[mine][form] for form, ratio in ratios[peer].items() if form in ratios[mine]]
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
        lines.append(f'- `{mine}` ({published(mine)[0].top1:.2f}): {plain or "none of these on ImageNet-1k alone"}'
                     + (f'; trained with more data: {extra}' if extra else ''))
    return '\n'.join([
        'Models that are as accurate as ours or more, as published, and faster in at least one form. In brackets: '
        'top-1, and images/s over ours, lowest and highest of all forms.', '', *lines])
