"""Rank all ImageNet-1k weights of timm's csv files against this package's models.

``python -m benchmarks.rank FOLDER SPEEDS MODEL=RATIO ...``, where FOLDER is ``results`` of timm's repository, SPEEDS
one of its ``benchmark-infer-*.csv`` and RATIO a model's images/s over those of ``resnet50`` at 224, as measured by
``benchmarks.throughput``. Prints a Markdown table for docs/models.md.
"""
import argparse
import csv
import sys
from functools import cache
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import timm
from torch import nn

from docs.generated_block import markdown_table

from timm_assemble.recipes.paper import rows_of

MORE_DATA = (  # in tags of timm's weights; SSLD distills on images of ImageNet-22k, too
    'in12k', 'in21k', 'in22k', 'jft', 'ig1b', 'yfcc', 'laion', 'openai', 'webli', 'lvd', 'm30m', 'm38m', 'seer', 'swag',
    'sa1b', 'datacomp', 'metaclip', 'clip', 'ssld', 'indomain')
DISTILLED = ('dist', 'usi')
# beginnings of names whose tags do not tell: labels of a teacher, or of one that saw more data
BY_NAME = {'volo_': 'distilled', 'beitv2_': 'more data', 'flexivit_': 'more data',
           'resnetv2_50x1_bit.goog_distilled': 'more data'}
KINDS = ('ImageNet-1k alone', 'distilled', 'more data')


class Weights(NamedTuple):
    """Weights of timm at one image size."""

    name: str
    size: int
    top1: float
    ratio: float  # images/s over those of resnet50 at 224 in the same file

    @property
    def architecture(self) -> str:
        return self.name.partition('.')[0]

    @property
    def kind(self) -> str:
        """What they were trained with, by their name and tag."""
        for beginning, kind in BY_NAME.items():
            if self.name.startswith(beginning):
                return kind
        if any(word in self.name.partition('.')[2] for word in MORE_DATA):
            return 'more data'
        return 'distilled' if any(word in self.name for word in DISTILLED) else 'ImageNet-1k alone'


@cache
def is_plain(architecture: str) -> bool:
    """Return whether all norms are batch norms and nothing attends between positions, which int8 and folding need."""
    model: nn.Module = timm.create_model(architecture, device='meta')
    names = [type(module).__name__ for module in model.modules()]
    other_norms = any('Norm' in type(m).__name__ and not isinstance(m, nn.modules.batchnorm._BatchNorm)
                      for m in model.modules() if not [*m.children()])
    return not other_norms and not any(word in name for name in names for word in ('Attention', 'Mhsa', 'LiteMLA'))


def read_weights(folder: Path, speeds: str) -> List[Weights]:
    """Return the weights whose top-1 and speed timm has at one image size, the most accurate first."""
    with (folder / speeds).open(newline='') as file:
        rates = {(row['model'].partition('.')[0], row['infer_img_size']): float(row['infer_samples_per_sec'])
                 for row in csv.DictReader(file)}
    with (folder / 'results-imagenet.csv').open(newline='') as file:
        rows = [*csv.DictReader(file)]
    reference = rates['resnet50', '224']
    found = [Weights(row['model'], int(row['img_size']), float(row['top1']), rate / reference) for row in rows
             if (rate := rates.get((row['model'].partition('.')[0], row['img_size'])))
             and timm.is_model(row['model'].partition('.')[0])]
    return sorted(found, key=lambda weights: -weights.top1)


def ranking(weights: Sequence[Weights], ours: Dict[str, float]) -> str:
    """Return how many weights are as accurate and as fast as each of ours, with the most accurate one, by training."""
    def summary(found: Sequence[Weights]) -> List[str]:
        best = f'`{found[0].name}` at {found[0].size}: {found[0].top1:.2f}, {found[0].ratio:.2f}' if found else '-'
        return [str(len(found)), best]

    lines = []
    for name, ratio in ours.items():
        top1 = max(row.top1 for row in rows_of(name) if row.top1)
        for kind in KINDS:
            better = [w for w in weights if w.kind == kind and w.top1 >= top1 and w.ratio >= ratio]
            plain = [w for w in better if is_plain(w.architecture)]
            lines.append([f'`{name}`: {top1:.2f}, {ratio:.2f}', kind, *summary(better), *summary(plain)])
    return markdown_table(
        ['ours: top-1, speed', 'trained with', 'ahead', 'most accurate', 'plain', 'most accurate plain one'],
        lines, ['ahead', 'plain'])


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser: Any = argparse.ArgumentParser('python -m benchmarks.rank', description=__doc__.partition('\n')[0])
    parser.add_argument('folder', type=Path, help="timm's folder results")
    parser.add_argument('speeds', help='name of a benchmark-infer-*.csv in it')
    parser.add_argument('ours', nargs='+', metavar='MODEL=RATIO', help='images/s over resnet50, as measured')
    args = parser.parse_args(argv)
    ours = {name: float(ratio) for name, _, ratio in (word.partition('=') for word in args.ours)}
    print(ranking(read_weights(args.folder, args.speeds), ours))
    return 0


if __name__ == '__main__':
    sys.exit(main())
