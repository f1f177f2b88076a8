"""Make the README's table of the registered models. ``python -m docs.variants`` prints it, ``--write`` puts it there.

Parameters, multiply-adds and strides are counted on the models, names come from timm's registry; only what the paper
measured is written down here. Knows torch, timm and the registered models.
"""
import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import timm_assemble  # noqa: F401  (registers the models)
from docs.generated_block import rewrite_block

__all__ = ['README', 'table']

README = Path(__file__).parent.parent / 'README.md'
BEGIN, END = '<!-- variants:begin -->', '<!-- variants:end -->'
FOR_TESTS = 'test_assemble_resnet'


class Published(NamedTuple):
    """What the paper says of a network; the figures of several rows differ by training, and go from first to last."""

    techniques: str
    rows: str = ''
    top1: str = ''
    mce: str = ''
    images_per_s: str = ''


# arXiv 2001.06268, table of the ablation on ImageNet-1k: top-1 in percent, mCE, and images a second on one Tesla P40.
# Its "R50-D, BL" rows are networks with Big-Little's stem and shortcut, as the official code makes them.
PUBLISHED: Dict[str, Published] = {
    'assemble_resnet50_base': Published('plain ResNet-50', 'E0', '76.87', '75.55', '536'),
    'assemble_resnet50_d': Published('ResNet-D', 'E1 - E3', '77.37 - 79.10', '75.73 - 68.19', '493'),
    'assemble_resnet50_d_se': Published('ResNet-D, SE', 'E4, E5', '79.71 - 80.40', '64.48 - 62.64', '420'),
    'assemble_resnet50_d_sk': Published('ResNet-D, SK', 'E6 - E8', '81.40 - 82.10', '58.34 - 56.48', '359'),
    'assemble_resnet50_bl': Published('Big-Little (2, 4)'),
    'assemble_resnet50_bl_sk': Published('Big-Little (2, 4), SK', 'E9', '82.44', '55.20', '359'),
    'assemble_resnet50': Published(
        'Big-Little (2, 4), SK, AA', 'E10, E11', '82.69 - 82.78', '54.12 - 48.89', '312'),
    'assemble_resnet101': Published('Big-Little (2, 4), SK, AA'),
    'assemble_resnet152': Published('Big-Little (1, 2), SK, AA', 'E12', '84.19', '43.27', '143'),
}
TITLES = (
    'model', 'paper row', 'techniques', 'parameters (M)', 'GMACs', 'at', 'strides', 'top-1 (%)', 'mCE', 'images/s')
NUMBERS = ('parameters (M)', 'GMACs', 'at', 'top-1 (%)', 'mCE', 'images/s')


def _test_size(name: str) -> Tuple[int, int, int]:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None  # every registered model has one
    size: Optional[Tuple[int, int, int]] = cfg.test_input_size
    return size or cfg.input_size


def _row(name: str) -> List[str]:
    """The cells of one model; the meta device has shapes alone, so nothing is computed."""
    model: Any = timm.create_model(name, num_classes=1000, device='meta').eval()
    size = _test_size(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, *size, device='meta'))
    parameters = sum(p.numel() for p in model.parameters())
    strides = ', '.join(str(info['reduction']) for info in model.feature_info)
    published = PUBLISHED[name]
    return [
        f'`{name}`', published.rows, published.techniques, f'{parameters / 1e6:.2f}',
        f'{counter.get_total_flops() / 2 / 1e9:.2f}', str(size[-1]), strides,
        published.top1, published.mce, published.images_per_s]


def table() -> str:
    """One row a registered model, in the order of ``PUBLISHED``; what the paper does not have is a dash.

    Raises:
        ValueError: ``PUBLISHED`` and the registry have different models.
    """
    registered = set(timm.list_models(module='assemble_resnet')) - {FOR_TESTS}
    if registered != set(PUBLISHED):
        raise ValueError(f'PUBLISHED and the registry differ in {sorted(registered ^ set(PUBLISHED))}.')
    grid = [list(TITLES)] + [[cell or '-' for cell in _row(name)] for name in PUBLISHED]
    widths = [max(map(len, column)) for column in zip(*grid)]
    rule = ['-' * (width - 1) + (':' if title in NUMBERS else '-') for title, width in zip(TITLES, widths)]
    aligned = [[c.rjust(w) if t in NUMBERS else c.ljust(w) for t, c, w in zip(TITLES, row, widths)] for row in grid]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (aligned[0], rule, *aligned[1:]))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the table and, if asked, write it into the README; 2 and one line where that cannot be."""
    parser = argparse.ArgumentParser(prog='python -m docs.variants', description='The table of the registered models.')
    parser.add_argument('--write', action='store_true', help=f'put it between the markers of {README.name}, too')
    write = parser.parse_args(argv).write
    try:
        block = table()
        if write:
            README.write_text(rewrite_block(README.read_text(encoding='utf-8'), BEGIN, END, block), encoding='utf-8')
    except (OSError, ValueError) as e:
        print(f'python -m docs.variants: error: {e}', file=sys.stderr)
        return 2
    print(block)
    return 0


if __name__ == '__main__':
    sys.exit(main())
