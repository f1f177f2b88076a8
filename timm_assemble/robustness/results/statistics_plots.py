"""Plots of statistics: reliability diagrams, and differences of models."""
from pathlib import Path
from typing import Any, Dict, List, Mapping

import numpy as np

from ...runtime.atomic import atomic_file
from .tables import HEADLINES

__all__ = ['draw_comparisons', 'draw_reliability']

PER_ROW = 4


def _axes_grid(count: int, side: float, columns: int = PER_ROW) -> Any:
    """Return a figure and ``count`` axes of ``side`` inches."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, side * rows), layout='constrained',
                                squeeze=False)
    for unused in axes.flat[count:]:
        unused.set_axis_off()
    return figure, [*axes.flat[:count]]


def _save(figure: Any, path: Path) -> bool:
    import matplotlib.pyplot as plt

    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
    return True


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


def draw_reliability(path: Path, results: Mapping[str, Any]) -> bool:
    """Draw the reliability diagrams of all models, or without statistics remove an earlier file."""
    diagrams = [(f'{model["label"]}: {name}', bins) for model in results['models']
                for name, bins in ((model['statistics'] or {}).get('reliability') or {}).items()]
    if not diagrams:
        path.unlink(missing_ok=True)
        return False
    figure, grid = _axes_grid(len(diagrams), 3.0, len(diagrams) // len(results['models']))
    figure.suptitle('blue: accuracy; red: gap to the mean confidence; above: % of the predictions', fontsize=9)
    for axes, (title, bins) in zip(grid, diagrams):
        _reliability(axes, bins, title)
    return _save(figure, path)


def _differences(axes: Any, entry: Mapping[str, Any]) -> None:
    """Draw each metric's difference with its interval."""
    rows: Dict[str, Any] = entry['differences']
    heights = np.arange(len(rows))[::-1]
    for height, value in zip(heights, rows.values()):
        if value['interval']:
            low, high = value['interval']
            significant = low > 0 or high < 0
            axes.plot([low, high], [height, height], color='tab:blue' if significant else 'tab:gray', linewidth=2)
        axes.plot(value['difference'], height, 'o', color='black', markersize=4)
    axes.axvline(0, color='black', linewidth=0.8, linestyle='--')
    axes.set_yticks(heights, [HEADLINES.get(key, key) for key in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis='x', alpha=0.3)
    axes.set_xlabel('difference, points')
    first, second = entry['models']
    axes.set_title(f'{first}\nminus {second}', fontsize=8)


def draw_comparisons(path: Path, results: Mapping[str, Any]) -> bool:
    """Draw the differences of all pairs of models, or without any remove an earlier file."""
    comparisons = results['comparisons']
    if not comparisons:
        path.unlink(missing_ok=True)
        return False
    figure, grid = _axes_grid(len(comparisons), 4.2)
    figure.suptitle('95 % intervals of the same resampled images; blue: without 0', fontsize=9)
    for axes, entry in zip(grid, comparisons):
        _differences(axes, entry)
    return _save(figure, path)
