"""The front page's tables of speed, from the results of benchmarks.throughput on a CPU and on GPUs."""
from itertools import chain
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

from docs.generated_block import markdown_table
from timm_assemble.recipes.paper import EFFICIENTNET_B6_IMAGES_PER_S, ROWS

from ..harness.networks import LARGE, MOBILE, OURS, REFERENCE, Setting
from ..harness.table import provenance, quartiles
from .published import PAPER_SOURCE, TIMM_SOURCE, published

__all__ = ['Speed', 'efficientnet_table', 'losses', 'models_table', 'overview', 'read_speeds', 'top1_of']

COLUMNS = (('eager', 'float32'), ('optimized', 'bfloat16'))  # forms and dtypes on the front page
Results = Dict[str, Any]  # contents of a results file


class Speed(NamedTuple):
    """One network in one setting, as measured."""

    form: str  # what was measured where; networks are compared within it
    setting: Setting
    name: str
    details: Dict[str, Any]  # size, params (M), GMACs, images/s
    ratio: float  # paired, to the reference of its group


def _rate(images_s: float) -> str:
    return f'{images_s:.3g}' if images_s < 1000 else f'{images_s:.0f}'


def _form(results: Results, setting: Setting) -> str:
    device = results['environment']['device']
    return f'{setting.form} {setting.dtype}' + ('' if device == 'cpu' else f', {device.removeprefix("NVIDIA ")}')


def read_speeds(*files: Results, mode: str = 'inference') -> List[Speed]:
    """Return the networks of a mode at each file's first batch size, each once per setting."""
    found: List[Speed] = []
    for results in files:
        speeds: Dict[Any, Speed] = {}
        for row in results['rows']:
            setting, comparison = Setting.parse(row['group']), row['comparison']
            if setting is None or setting.mode != mode or 'images/s' not in row['details']:
                continue
            if row['group'] not in (setting.title, f'{setting.title}, {LARGE}'):
                continue  # a pair of networks that has a group of its own as well
            ratio = comparison['ratio'] if comparison else 1.0
            speed = Speed(_form(results, setting), setting, row['name'], row['details'], ratio)
            speeds.setdefault((setting, row['name']), speed)
        found += [speed for speed in speeds.values()
                  if speed.setting.batch_size == next(iter(speeds.values())).setting.batch_size]
    return found


def top1_of(name: str) -> str:
    """Return the best published top-1, of ImageNet-1k alone where there is one."""
    best = published(name)[0]
    notes = [note for note in ('distilled' if best.distilled else '', best.extra_data) if note]
    return f'{best.top1:.2f}' + (f' ({", ".join(notes)})' if notes else '')


def _mce(name: str) -> str:
    rows = [row for row in ROWS.values() if row.model == name]
    return f'{max(rows, key=lambda row: row.top1).mce:.2f}' if rows else '-'


def _table(speeds: Sequence[Speed]) -> str:
    # ratios alone: the rates of large networks are of other runs than the reference's
    cells = {(speed.form, speed.name): f'{speed.ratio:.2f}' for speed in speeds}
    forms = list(dict.fromkeys(speed.form for speed in speeds))
    networks = {speed.name: speed.details for speed in speeds if published(speed.name)}
    lines = [
        [f'**`{name}`**' if name in OURS else f'`{name}`', str(d['size']), f'{d["params (M)"]:.1f}',
         f'{d["GMACs"]:.2f}', top1_of(name), _mce(name), *(cells.get((form, name), '-') for form in forms)]
        for name, d in sorted(networks.items(), key=lambda item: (published(item[0])[0].top1, item[0]))]
    columns = [form if ', ' in form else f'{form}, CPU' for form in forms]
    titles = ['model', 'size', 'params (M)', 'GMACs', 'top-1 (%)', 'mCE (%)', *columns]
    return markdown_table(titles, lines, [*titles[1:4], *titles[5:]])


def models_table(*files: Results) -> str:
    """Return the front page's table, by published top-1: models measured in all columns of the first file."""
    measured = [[speed for speed in read_speeds(results) if (speed.setting.form, speed.setting.dtype) in COLUMNS]
                for results in files]
    forms: Dict[str, set] = {}
    for speed in measured[0]:
        forms.setdefault(speed.name, set()).add(speed.form)
    most = max(map(len, forms.values()))
    shown = [name for name, found in forms.items() if name not in MOBILE and len(found) == most]
    speeds = [speed for speed in chain(*measured) if speed.name in shown]
    sources = [f'Measured at batch size {read_speeds(results)[0].setting.batch_size} by {provenance(results)}'
               for results in files]
    return '\n\n'.join([_table(speeds), (
        f'Last columns: images/s over those of `{REFERENCE}`, in the same rounds. {" ".join(sources)} '
        f'Top-1 and mCE are published, not measured: ours (bold) by the paper ({PAPER_SOURCE}), with mCE over 19 '
        f'corruptions generated on the fly at 256; top-1 of the others by timm ({TIMM_SOURCE}).')])


def overview(*files: Results) -> str:
    """Return the models in every form, EfficientNet's ratios and the losses."""
    speeds = read_speeds(*files)
    title = f'**images/s over those of `{REFERENCE}`, at batch size {speeds[0].setting.batch_size}**'
    return '\n\n'.join([title, _table(speeds), efficientnet_table(*files), losses(*files, mobile=True)])


def efficientnet_table(*files: Results) -> str:
    """Return the paired ratios to EfficientNet-B6, with the paper's."""
    lines: List[List[str]] = []
    images_s: Dict[str, str] = {}
    pair = ['', '']
    for results, row in ((one, row) for one in files for row in one['rows']):
        setting, c = Setting.parse(row['group']), row['comparison']
        if setting is None or ' beside ' not in row['group']:
            continue
        images_s[row['name']] = _rate(row['details']['images/s'])
        if c:
            pair = [row['name'], c['reference']]
            lines.append([_form(results, setting), *(images_s[name] for name in pair), quartiles(c, 2)])
    paper, peer = ROWS['E12'].images_per_s or 0, EFFICIENTNET_B6_IMAGES_PER_S
    lines.append(['the paper, Tesla P40', str(paper), str(peer), f'{paper / peer:.1f}'])
    titles = [f'`{name}`' for name in pair]
    return markdown_table(['images/s', *titles, 'ratio (quartiles)'], lines, titles)


def losses(*files: Results, mobile: bool = False) -> str:
    """Return the list of models that are faster than one of ours, of our MobileNets too or not.

    Their published top-1 is that of ours or more, and they are faster in at least one form.
    """
    ratios: Dict[str, Dict[str, float]] = {}
    for speed in read_speeds(*files):
        ratios.setdefault(speed.name, {})[speed.form] = speed.ratio

    def faster(mine: str, chosen: Callable[[str], bool]) -> str:
        found = []
        for peer in (name for name in ratios if name not in OURS):
            better = [p for p in published(peer) if p.top1 >= published(mine)[0].top1 and chosen(p.extra_data)]
            both = [ratio / ratios[mine][form] for form, ratio in ratios[peer].items() if form in ratios[mine]]
            if better and both and max(both) > 1:
                best = max(better, key=lambda p: p.top1)
                span = ' to '.join(dict.fromkeys(f'{ratio:.2f}x' for ratio in (min(both), max(both))))
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
