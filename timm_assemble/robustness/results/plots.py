"""The plot of results: bars by corruption and model, and grids of errors."""
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import numpy as np

from ...runtime.atomic import atomic_file

__all__ = ['draw']

GRIDS_PER_ROW = 4


def _legend(model: Dict[str, Any]) -> str:
    metrics = [f'{title} {model[key]:.1f}' for title, key in (('mCE', 'mce'), ('mFR', 'mfr')) if model[key] is not None]
    if model['mce'] is None and model['mean_error'] is not None:
        metrics.insert(0, f'mean error {model["mean_error"]:.1f} %')
    return f'{model["label"]}{": " if metrics else ""}{", ".join(metrics)}'


def _bars(axes: Any, models: Sequence[Dict[str, Any]], group: str, keys: Sequence[str], titles: Sequence[str]) -> None:
    """Draw bars of the first key that all models have."""
    names = [*models[0][group]]
    key, title = next((k, t) for k, t in zip(keys, titles) if k == keys[-1] or all(
        m[group][name][k] is not None for m in models for name in names))
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        values = [model[group][name][key] for name in names]
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
    ends = [intervals.get(path) or (np.nan, np.nan) for path in paths]
    return np.array([[max(0, value - low), max(0, high - value)] if low == low else [np.nan, np.nan]
                     for value, (low, high) in zip(values, ends)]).T


def _means(axes: Any, models: Sequence[Dict[str, Any]], keys: Dict[str, str]) -> None:
    """Draw a bar for each model: the first of the metrics that all models have."""
    key, title = next(((k, t) for k, t in keys.items() if all(model[k] is not None for model in models)), ('', ''))
    if not key:
        axes.set_axis_off()
        return
    for i, model in enumerate(models):
        value = model[key]
        axes.bar(i, value, 0.7, yerr=_spread(model, [key], [value]), ecolor='black', capsize=4)
        axes.text(i, value / 2, f'{value:.1f}', ha='center', va='center', color='white', fontsize=8)
    axes.set_xticks(range(len(models)), [model['label'] for model in models], fontsize=7, rotation=20, ha='right')
    axes.set(title=title, ylim=(0, None))
    axes.grid(axis='y', alpha=0.3)


def _error_grids(figure: Any, models: Sequence[Dict[str, Any]]) -> None:
    columns = min(GRIDS_PER_ROW, len(models))
    grid = figure.subplots(-(-len(models) // columns), columns, squeeze=False, sharey=True)
    names = [*models[0]['corruptions']]
    for axes, model in zip(grid.flat, models):
        errors = np.array([[entry['top1_error'] for entry in model['corruptions'][name]['severities'].values()]
                           for name in names])
        image = axes.imshow(errors, vmin=0, vmax=100, cmap='viridis', aspect='auto')
        axes.set_xticks(range(errors.shape[1]), [*model['corruptions'][names[0]]['severities']])
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(model['label'], fontsize=9)
        axes.set_xlabel('severity', fontsize=8)
        for (row, column), error in np.ndenumerate(errors):
            axes.text(column, row, f'{error:.0f}', ha='center', va='center', fontsize=7,
                      color='black' if error > 60 else 'white')
    for axes in [*grid.flat][len(models):]:
        axes.set_axis_off()
    figure.colorbar(image, ax=grid, label='top-1 error, %')


def draw(path: Path, results: Dict[str, Any]) -> bool:
    """Draw corruptions and perturbations, or without both remove an earlier file; return whether one was written."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    models, protocol = results['models'], results['protocol']
    over = f', % of {protocol["baseline"]}' if protocol['baseline'] else ''
    grids = 0.9 + 0.24 * len(models[0]['corruptions']) * -(-len(models) // GRIDS_PER_ROW)
    heights = [4.2, grids] * bool(models[0]['corruptions']) + [4.2] * bool(models[0]['perturbations'])
    if not heights:
        path.unlink(missing_ok=True)
        return False
    figure = plt.figure(figsize=(14, sum(heights)), layout='constrained')
    figure.suptitle(f'protocol {protocol["name"]}: {protocol["text"]}'.replace('; ', '\n'), fontsize=8)
    rows = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if models[0]['corruptions']:
        each, mean = next(rows).subplots(1, 2, width_ratios=(6, 1))
        _bars(each, models, 'corruptions', ('ce', 'mean_error'),
              (f'CE{over}', 'top-1 error, % (mean over severities)'))
        _means(mean, models, dict(mce='mCE', mean_error='mean error'))
        _error_grids(next(rows), models)
    if models[0]['perturbations']:
        each, mean = next(rows).subplots(1, 2, width_ratios=(6, 1))
        _bars(each, models, 'perturbations', ('flip_ratio', 'flip_rate'), (f'flip rate{over}', 'flip rate, %'))
        _means(mean, models, dict(mfr='mFR', mean_flip_rate='flip rate'))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
    return True
