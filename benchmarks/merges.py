"""Would merging linear operations be faster? ``python -m benchmarks.merges``

Parts of assemble_resnet50 at 256 as they are and merged, both compiled by ``optimize_for_inference``.
"""
import sys
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple

import torch
from torch import nn

from timm_assemble import optimize_for_inference
from timm_assemble.layers import AntiAlias2d, selective_kernel_merge

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'Are merged linear operations faster than separate ones?'
BATCH_SIZE = 4
PRESENT, MERGED = 'as it is', 'merged'


class Merge(NamedTuple):
    """A part of the network, the same function merged, and the channels and side of their input."""
    present: nn.Module
    merged: nn.Module
    chs: int
    side: int


class Gated(nn.Module):
    """A convolution, SK's gate and the merge, from two logits per channel or from their difference."""

    def __init__(self, wide: nn.Module, hidden: nn.Module, logits: nn.Conv2d) -> None:
        super().__init__()
        self.wide, self.hidden, self.logits = wide, hidden, logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.wide(x)
        a, b = x.chunk(2, dim=1)
        z = self.logits(self.hidden((a + b).mean((2, 3), keepdim=True)))
        return selective_kernel_merge(x, z) if z.shape[1] == x.shape[1] else torch.lerp(b, a, z.sigmoid())


class Sum(nn.Module):
    """The end of a block: last convolution plus shortcut's, or one convolution of both inputs concatenated."""

    def __init__(self, branch: nn.Module, *convs: nn.Conv2d) -> None:
        super().__init__()
        self.branch, self.convs = branch, nn.ModuleList(convs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)
        if len(self.convs) == 1:
            return self.convs[0](torch.cat([y, x], dim=1))
        return self.convs[0](y) + self.convs[1](x)


def pool_and_conv(pool: nn.AvgPool2d, kernel: int, padding: int, chs: int, out_chs: int, side: int) -> Merge:
    """Merge an average pool of stride 2 and the 1x1 convolution after it into one strided convolution."""
    conv, merged = nn.Conv2d(chs, out_chs, 1), nn.Conv2d(chs, out_chs, kernel, 2, padding)
    merged.weight.data = conv.weight.data.expand_as(merged.weight) / kernel ** 2
    merged.bias = conv.bias
    return Merge(nn.Sequential(pool, conv), merged, chs, side)


def gate_difference(chs: int, side: int) -> Merge:
    wide, hidden = nn.Conv2d(chs, 2 * chs, 1), nn.Sequential(nn.Conv2d(chs, chs // 2, 1), nn.ReLU())
    both, one = nn.Conv2d(chs // 2, 2 * chs, 1), nn.Conv2d(chs // 2, chs, 1)
    one.weight.data = both.weight.data[:chs] - both.weight.data[chs:]
    one.bias.data = both.bias.data[:chs] - both.bias.data[chs:]  # type: ignore[union-attr]
    return Merge(Gated(wide, hidden, both), Gated(wide, hidden, one), chs, side)


def blur_and_conv(chs: int, out_chs: int, side: int) -> Merge:
    conv = nn.Conv2d(chs, out_chs, 1)
    return Merge(nn.Sequential(AntiAlias2d(chs), conv), nn.Sequential(conv, AntiAlias2d(out_chs)), chs, side)


def last_and_shortcut(chs: int, out_chs: int, side: int) -> Merge:
    branch = nn.Sequential(nn.Conv2d(chs, chs, 1), nn.ReLU())
    last, shortcut, one = nn.Conv2d(chs, out_chs, 1), nn.Conv2d(chs, out_chs, 1), nn.Conv2d(2 * chs, out_chs, 1)
    one.weight.data = torch.cat([last.weight.data, shortcut.weight.data], dim=1)
    one.bias.data = last.bias.data + shortcut.bias.data  # type: ignore[union-attr]
    return Merge(Sum(branch, last, shortcut), Sum(branch, one), chs, side)


MERGES: Dict[str, Callable[[], Merge]] = {
    "ResNet-D's 2x2 average and 1x1 convolution as one 2x2 convolution":
        lambda: pool_and_conv(nn.AvgPool2d(2), 2, 0, 256, 512, 64),
    "Big-Little's 3x3 average and 1x1 convolution as one 3x3 convolution":
        lambda: pool_and_conv(nn.AvgPool2d(3, 2, padding=1), 3, 1, 256, 512, 32),
    "Blur after the 1x1 convolution and not before it": lambda: blur_and_conv(128, 512, 32),
    "SK's two logits as their difference": lambda: gate_difference(128, 32),
    "Last and shortcut's convolution as one over both inputs": lambda: last_and_shortcut(64, 256, 64),
}


def merge_rows(title: str, dtype: torch.dtype, device: str, measure: Callable[..., Any]) -> List[Dict[str, Any]]:
    """Measure both forms of a merge, interleaved.

    Raises:
        RuntimeError: They are not the same function.
    """
    merge = MERGES[title]()
    x = torch.randn(BATCH_SIZE, merge.chs, merge.side, merge.side).to(device).to(memory_format=torch.channels_last)
    modules = {PRESENT: merge.present.to(device).eval(), MERGED: merge.merged.to(device).eval()}
    with torch.no_grad():
        first, second = (module(x) for module in modules.values())
    if not torch.allclose(first, second, atol=1e-4):
        raise RuntimeError(f'{title}: the two forms differ by {(first - second).abs().max():.1e}.')
    forms = {name: optimize_for_inference(module, x.shape, dtype) for name, module in modules.items()}
    seconds = measure({name: partial(form, x) for name, form in forms.items()})
    row = partial(make_row, f'{title}; {str(dtype)[6:]}, batch size {BATCH_SIZE}', seconds=seconds)
    return [row(PRESENT), row(MERGED, reference=PRESENT)]


def main() -> int:
    """Measure, print and write."""
    args = parse_args('merges', QUESTION, rounds=15)
    titles = list(MERGES)[:1] if args.short else list(MERGES)
    dtypes = (torch.float32,) if args.short else (torch.float32, torch.bfloat16)
    rows = [row for title in titles for dtype in dtypes for row in merge_rows(title, dtype, args.device, args.measure)]
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
