"""What the README says of speed, from the results of benchmarks.throughput: a table, and losses beside wins.

Knows the results file, by its columns, and what is published. benchmarks.report writes it into the README.
"""
import json
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

from ..harness.measure import ROOT, check_results
from ..harness.networks import OURS, REFERENCE, Setting
from ..throughput import LARGE
from .published import PAPER_SOURCE, TIMM_SOURCE, published

__all__ = ['README', 'BEGIN', 'END', 'Speed', 'read_speeds', 'where', 'speed_block']

README = ROOT / 'README.md'
BEGIN, END = '<!-- speed: begin; python -m benchmarks.reports.report writes what follows -->', '<!-- speed: end -->'
PLOT = 'benchmarks/results/throughput.png'
PAPER_RATIO = 5.1  # images a second on a Tesla P40, of the paper's table of networks


class Speed(NamedTuple):
    """One network in one setting, as measured."""

    setting: Setting
    name: str
    size: int
    gmacs: float
    images_s: float
    ratio: float  # paired, to the reference of its group


def read_speeds(results: Dict[str, Any], mode: str = 'inference') -> List[Speed]:
    """The networks of all settings of a mode at the first batch size in the file, the reference once a setting."""
    speeds: Dict[Any, Speed] = {}
    for row in results['rows']:
        setting = Setting.parse(row['group'])
        details, comparison = row['details'], row['comparison']
        if setting is None or setting.mode != mode or 'images/s' not in details:
            continue
        if row['group'] not in (setting.title, f'{setting.title}, {LARGE}'):
            continue  # two of them again, beside each other
        ratio = comparison['ratio'] if comparison else 1.0
        speed = Speed(setting, row['name'], details['size'], details['GMACs'], details['images/s'], ratio)
        speeds.setdefault((setting, row['name']), speed)
    first = next((speed.setting.batch_size for speed in speeds.values()), 0)
    return [speed for speed in speeds.values() if speed.setting.batch_size == first]


def where(results: Dict[str, Any]) -> str:
    """Command, date and machine of a results file, in a sentence."""
    env = results['environment']
    return (f'`{results["command"]}` on {env["date"][:10]}, commit {(env["commit"] or "unknown")[:12]}, torch '
            f'{env["torch"]}, timm {env["timm"]}; {env["cpu"]}, device {env["device"]}, threads {env["threads"]}')


def _figure(name: str) -> str:
    """Best published top-1 of a network, and that with extra data."""
    plain = next((f'{p.top1:.2f}' for p in published(name) if not p.extra_data), '')
    extra = next((f'{p.top1:.2f} with {p.extra_data}' for p in published(name) if p.extra_data), '')
    return '; '.join(filter(None, (plain, extra))) or '-'


def _table(speeds: Sequence[Speed]) -> str:
    settings = list(dict.fromkeys(speed.setting for speed in speeds))
    cells = {(s.setting, s.name): f'{s.images_s:.3g} ({s.ratio:.2f})' for s in speeds}
    networks = {s.name: s for s in speeds if published(s.name)}
    grid = [['network', 'at', 'GMACs', 'top-1 (%)', *(f'{s.form}, {s.dtype}' for s in settings)]]
    for name in sorted(networks, key=lambda name: (published(name)[0].top1, name)):
        label = f'**`{name}`**' if name in OURS else f'`{name}`'
        grid.append([label, str(networks[name].size), f'{networks[name].gmacs:.2f}', _figure(name),
                     *(cells.get((setting, name), '-') for setting in settings)])
    widths = [max(map(len, column)) for column in zip(*grid)]
    grid.insert(1, ['-' * width for width in widths])
    return '\n'.join('| ' + ' | '.join(cell.ljust(w) for cell, w in zip(line, widths)) + ' |' for line in grid)


def _times(ratios: Sequence[float]) -> str:
    low, high = f'{min(ratios):.2f}', f'{max(ratios):.2f}'
    return f'{low} times as fast' if low == high else f'{low} to {high} times as fast'


def _losses(speeds: Sequence[Speed]) -> str:
    """Each of ours, with the peers that are faster somewhere and as good by their publishers' word."""
    ratios: Dict[str, Dict[Setting, float]] = {}
    for speed in speeds:
        ratios.setdefault(speed.name, {})[speed.setting] = speed.ratio
    lines = []
    for mine in (name for name in OURS if name in ratios and published(name)):
        own = published(mine)[0].top1

        def better(data: Callable[[str], bool], mine: str = mine, own: float = own) -> str:
            found = []
            for peer in (name for name in ratios if name not in OURS):
                entries = [p for p in published(peer) if p.top1 >= own and data(p.extra_data)]
                both = [ratios[peer][s] / ratios[mine][s] for s in ratios[peer] if s in ratios[mine]]
                if entries and both and max(both) > 1:
                    best = max(entries, key=lambda p: p.top1)
                    with_ = f' with {best.extra_data}' if best.extra_data else ''
                    found.append(f'`{peer}` ({best.top1:.2f}{with_}, {_times(both)})')
            return ', '.join(found) or 'none'
        lines.append(f'- than `{mine}` ({own:.2f}): {better(lambda data: not data)}; '
                     f'with extra data: {better(lambda data: bool(data))}')
    return '\n'.join(lines)


def _beside(results: Dict[str, Any]) -> str:
    """The ratios of two networks, setting by setting, in a sentence."""
    parts, names = [], ('', '')
    for row in results['rows']:
        setting, c = Setting.parse(row['group']), row['comparison']
        if setting and c and row['group'] == f'{setting.title}, {row["name"]} beside {c["reference"]}':
            names = row['name'], c['reference']
            parts.append(f'{c["ratio"]:.2f} ({c["q1"]:.2f} to {c["q3"]:.2f}) in {setting.form} {setting.dtype}')
    if not parts:
        return ''
    return (f'`{names[0]}` is so many times as fast as `{names[1]}`: {"; ".join(parts)}. The paper, on a Tesla P40: '
            f'{PAPER_RATIO}. Hoped for here: 3.')


def speed_block(path: Path) -> str:
    """Markdown for the README, from the results file of benchmarks.throughput.

    Raises:
        OSError: There is none.
        ValueError: It breaks the schema, or has no inference.
    """
    results = json.loads(path.read_text())
    check_results(results)
    speeds = read_speeds(results)
    if not speeds:
        raise ValueError(f'{path.name}: the README needs results of --modes inference')
    batch_size = speeds[0].setting.batch_size
    return '\n\n'.join(filter(None, (
        f'Images a second, batch size {batch_size}, and in brackets times `{REFERENCE}` in the same rounds. Eager '
        f'bfloat16 is autocast; optimized is `timm_assemble.optimize_for_inference`, for peers as for ours. '
        f'{where(results)}.',
        _table(speeds),
        f'Top-1 is not measured here. Of ours, in bold, it is the paper\'s ({PAPER_SOURCE}), whose weights this '
        f'package does not have; of the others the best that timm publishes at this size ({TIMM_SOURCE}), with extra '
        f'data apart. No figure: not measured in this form.',
        f'![top-1 over images a second]({PLOT})',
        _beside(results),
        'Where ours lose: networks as good or better, as published, and faster in at least one of these forms',
        _losses(speeds),
    )))
