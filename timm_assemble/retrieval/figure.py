"""The figure of a model: queries with their nearest neighbours, right and wrong ones marked."""
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np

from ..data.images import read_image
from ..evaluation.figures import drawable, pyplot, save

__all__ = ['SHOWN', 'Example', 'choose_queries', 'draw']

SHOWN = 8  # neighbours
SIDE = 128  # pixels of an image
RIGHT, WRONG, QUERY = '#1a8f3c', '#d62728', '#444444'


class Example(NamedTuple):
    """A query, and of its neighbours the file, the class and the similarity."""

    path: Path
    name: str
    neighbours: Sequence[Tuple[Path, str, float]]


def choose_queries(first: np.ndarray, asked: np.ndarray, count: int) -> List[int]:
    """Return ``count`` queries, half of them with a wrong nearest neighbour where there are so many.

    Both halves are evenly spaced in the list, and thus over the classes.
    """
    right, wrong = ((asked & kind).nonzero()[0] for kind in (first == 1, first != 1))
    wrongs = min(len(wrong), max(count // 2, count - len(right)))
    rights = min(len(right), count - wrongs)
    chosen = [group[np.linspace(0, len(group) - 1, number).round().astype(int)] if number else group[:0]
              for group, number in ((right, rights), (wrong, wrongs))]
    return [int(i) for group in chosen for i in group]


def _show(axes: Any, path: Path, title: str, colour: str) -> None:
    image = read_image(path)
    image.thumbnail((SIDE, SIDE))
    axes.imshow(np.asarray(image), interpolation='nearest')
    axes.set_title(title, fontsize=7, color=colour, pad=3)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)


def draw(path: Path, label: str, examples: Sequence[Example], text: str) -> None:
    """Draw one row for each query: the query, then its neighbours, the most similar first."""
    columns = 1 + max(len(example.neighbours) for example in examples)
    figure, grid = pyplot().subplots(len(examples), columns, figsize=(1.25 * columns, 0.6 + 1.5 * len(examples)),
                                    layout='constrained', squeeze=False)
    first = sum(example.neighbours[0][1] == example.name for example in examples)
    figure.suptitle(f'{drawable(label)}: {first} queries whose nearest neighbour is right, {len(examples) - first} '
                    f'whose is wrong\n{text}\neach row: the query (gray), then its neighbours with their cosine '
                    f'similarity; green ✓: of its class, red ✗: of another', fontsize=8)
    for row, example in zip(grid, examples):
        _show(row[0], example.path, drawable(example.name, 20), QUERY)
        for axes, (neighbour, name, similarity) in zip(row[1:], example.neighbours):
            right = name == example.name
            _show(axes, neighbour, f'{"✓" if right else "✗"} {drawable(name, 12)}  {similarity:.3f}',
                  RIGHT if right else WRONG)
        for axes in row[1 + len(example.neighbours):]:
            axes.set_axis_off()
    save(figure, path)
