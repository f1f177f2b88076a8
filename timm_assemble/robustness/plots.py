"""Figures of results: bars by corruption and model, reliability diagrams."""
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

from ..evaluation.figures import drawable, pyplot, save
from .report import lookup

__all__ = ['draw_all']


def _legend(model: Dict[str, Any]) -> str:
    metrics = [f'{title} {model[key]:.1f}' for title, key in (('mCE', 'mce'), ('mFR', 'mfr')) if model[key] is not None]
    if model['mce'] is None and model['means'] is not None:
        metrics.insert(0, f'mean error {model["means"]["top1_error"]:.1f} %')
    return f'{drawable(model["label"])}{": " if metrics else ""}{", ".join(metrics)}'


def _bars(axes: Any, models: Sequence[Dict[str, Any]], group: str, keys: Dict[str, str]) -> None:
    """Draw bars of the first key that all models have."""
    names = [*models[0][group]]
    key, title = next((k, t) for k, t in keys.items() if k == [*keys][-1] or all(
        lookup(m[group][name], k) is not None for m in models for name in names))
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        values = [lookup(model[group][name], key) for name in names]
        axes.bar(np.arange(len(names)) + (i - (len(models) - 1) / 2) * width, values, width, label=_legend(model),
                 yerr=_spread(model, [f'{group}.{name}.{key}' for name in names], values), ecolor='black', capsize=1.5,
                 error_kw=dict(linewidth=0.7))
    axes.set_xticks(np.arange(len(names)), [name.replace('_', '\n') for name in names], fontsize=8)
    axes.set(ylabel=title, xlim=(-0.6, len(names) - 0.4))
    axes.grid(axis='y', alpha=0.3)
    axes.legend(fontsize=8, ncols=min(3, len(models)), loc='lower center', bbox_to_anchor=(0.5, 1.0))


def _spread(model: Dict[str, Any], paths: Sequence[str], values: Sequence[float]) -> Optional[np.ndarray]:
    """Return (2, N) distances from values to the ends of their intervals, NaN without one; None without statistics."""
    intervals = (model.get('statistics') or {}).get('intervals')
    if not intervals:
        return None
    ends = [intervals.get(path) or dict(low=np.nan, high=np.nan) for path in paths]
    return np.array([[np.fmax(0, value - end['low']), np.fmax(0, end['high'] - value)] if end['low'] == end['low']
                     else [np.nan, np.nan] for value, end in zip(values, ends)]).T


def _means(axes: Any, models: Sequence[Dict[str, Any]], keys: Dict[str, str]) -> None:
    """Draw a bar for each model: the first of the metrics that all models have."""
    key, title = next(((k, t) for k, t in keys.items() if all(lookup(m, k) is not None for m in models)), ('', ''))
    if not key:
        axes.set_axis_off()
        return
    for i, model in enumerate(models):
        value = lookup(model, key)
        axes.bar(i, value, 0.7, yerr=_spread(model, [key], [value]), ecolor='black', capsize=4)
        axes.text(i, value / 2, f'{value:.1f}', ha='center', va='center', color='white', fontsize=8)
    axes.set_xticks(range(len(models)), [drawable(model['label'], 24) for model in models], fontsize=7, rotation=20,
                    ha='right')
    axes.set(title=title, ylim=(0, None))
    axes.grid(axis='y', alpha=0.3)


def _draw_errors(results: Dict[str, Any]) -> Any:
    """Draw corruptions and perturbations; None without both."""
    models, protocol = results['models'], results['protocol']
    over = f', % of {drawable(protocol["baseline"], 30)}' if protocol['baseline'] else ''
    groups = dict(
        corruptions=({'ce': f'CE{over}', 'means.top1_error': 'top-1 error, % (mean over severities)'},
                     {'mce': 'mCE', 'means.top1_error': 'mean error'}),
        perturbations=({'flip_ratio': f'flip rate{over}', 'flip_rate': 'flip rate, %'},
                       {'mfr': 'mFR', 'mean_flip_rate': 'flip rate'}))
    shown = {group: keys for group, keys in groups.items() if models[0][group]}
    if not shown:
        return None
    figure, grid = pyplot().subplots(len(shown), 2, figsize=(14, 4.8 * len(shown)), width_ratios=(6, 1),
                                     layout='constrained', squeeze=False)
    figure.suptitle(f'protocol {protocol["name"]}: {protocol["text"]}'.replace('; ', '\n'), fontsize=8)
    for (each, mean), (group, (keys, mean_keys)) in zip(grid, shown.items()):
        _bars(each, models, group, keys)
        _means(mean, models, mean_keys)
    return figure


def _reliability(axes: Any, bins: List[Mapping[str, Any]], title: str) -> None:
    """Draw accuracy by bin of confidence, with the gap to the mean confidence."""
    width = 100 / len(bins)
    total = sum(entry['images'] for entry in bins)
    for number, entry in enumerate(bins):
        if not entry['images']:
            continue
        middle, accuracy, confidence = (number + 0.5) * width, entry['accuracy'], entry['confidence']
        axes.bar(middle, accuracy, width, color='tab:blue', edgecolor='white', linewidth=0.5)
        axes.bar(middle, confidence - accuracy, width, bottom=accuracy, color='tab:red', alpha=0.35)
        axes.text(middle, 101, f'{100 * entry["images"] / total:.0f}', ha='center', fontsize=6, color='gray')
    ece = sum(entry['images'] * abs(entry['accuracy'] - entry['confidence']) for entry in bins if entry['images'])
    axes.plot([0, 100], [0, 100], color='black', linewidth=0.8, linestyle='--')
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect='equal', xlabel='confidence, %', ylabel='accuracy, %')
    axes.set_title(f'{title}\nECE {ece / total:.2f} %, {total} predictions', fontsize=8, pad=12)


def _draw_reliability(results: Mapping[str, Any]) -> Any:
    """Draw the reliability diagrams of all models; None without statistics."""
    diagrams = [(f'{drawable(model["label"], 20)}: {drawable(name, 30)}', bins) for model in results['models']
                for name, bins in ((model['statistics'] or {}).get('reliability') or {}).items()]
    if not diagrams:
        return None
    rows = len(results['models'])
    columns = -(-len(diagrams) // rows)
    figure, grid = pyplot().subplots(
        rows, columns, figsize=(3 * columns, 3 * rows), layout='constrained', squeeze=False)
    for unused in grid.flat[len(diagrams):]:
        unused.set_axis_off()
    figure.suptitle('blue: accuracy; red: gap to the mean confidence; above: % of the predictions', fontsize=9)
    for axes, (title, bins) in zip(grid.flat, diagrams):
        _reliability(axes, bins, title)
    return figure


def draw_all(folder: Path, results: Dict[str, Any]) -> List[Path]:
    """Write the figures that apply and remove earlier ones that do not; return the paths."""
    written = []
    for name, draw in (('robustness.png', _draw_errors), ('reliability.png', _draw_reliability)):
        figure = draw(results)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            written.append(save(figure, folder / name))
    return written
