"""SK-C3 and DropBlock against their main operation. ``python -m benchmarks.layers``"""
import sys
from functools import partial
from typing import Any, Callable, Dict, List, Sequence

import torch
from timm.layers import drop_block_2d as timm_drop_block_2d
from torch import channels_last
from torchvision.ops import drop_block2d as torchvision_drop_block2d  # type: ignore[import-untyped]

from timm_assemble.layers import DropBlock2d, SelectiveKernelC3

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How long do the layers take compared with the one operation they need?'
SK_SHAPES = ((8, 64, 64, 64), (8, 256, 16, 16), (4, 512, 16, 16))
SK_BOUND = 1.12
DROP_CASES = (((32, 1024, 14, 14), 0.25), ((32, 512, 14, 14), 0.25), ((32, 2048, 7, 7), 1.0))  # shape, gamma_scale
DROP_BOUND, DROP_AIM = 2.0, 1.3
DROP_RATE = 0.1


def selective_kernel_rows(shape: Sequence[int], device: str, measure: Callable[..., Any]) -> List[Dict[str, Any]]:
    """Compare SK-C3 with its 3x3 convolution."""
    x = torch.randn(shape).to(device).to(memory_format=channels_last)
    ours = SelectiveKernelC3(shape[1], shape[1]).eval().to(device).to(memory_format=channels_last)
    wide = 'bare wide conv-BN-ReLU'
    with torch.inference_mode():
        seconds = measure({wide: lambda: ours.conv(x), 'SelectiveKernelC3': lambda: ours(x)})
    row = partial(make_row, f'Selective kernel, {shape}, eval', seconds=seconds)
    return [row(wide), row('SelectiveKernelC3', reference=wide, bound=SK_BOUND)]


def drop_block_rows(
        shape: Sequence[int], gamma_scale: float, device: str, measure: Callable[..., Any],
) -> List[Dict[str, Any]]:
    """Compare three DropBlocks in training with the product with a given mask.

    timm and torchvision draw one mask per image, which is another function and up to batch size times the work.
    """
    x = torch.randn(shape).to(device).to(memory_format=channels_last).requires_grad_()
    mask = torch.rand(1, *shape[1:]).to(device).to(memory_format=channels_last)
    ours = DropBlock2d(DROP_RATE, gamma_scale=gamma_scale).train().to(device)
    bare = 'bare x * mask'
    cases = {bare: lambda: x * mask, 'DropBlock2d': lambda: ours(x)}
    beside = {
        bare: cases[bare],
        "timm's drop_block_2d": partial(
            timm_drop_block_2d, x, DROP_RATE, block_size=7, gamma_scale=gamma_scale, couple_channels=False),
        # it has no gamma_scale, but its rate is what gamma is proportional to
        "torchvision's drop_block2d": partial(torchvision_drop_block2d, x, gamma_scale * DROP_RATE, block_size=7),
    }
    case = f'{shape}, gamma_scale {gamma_scale}, training'
    row = partial(make_row, f'DropBlock, {case}', seconds=measure(cases))
    row_beside = partial(make_row, f"Others' DropBlock, {case}", seconds=measure(beside))
    return [
        row(bare),
        row('DropBlock2d', reference=bare, bound=DROP_BOUND, aim=DROP_AIM),
        row_beside(bare),
        row_beside("timm's drop_block_2d", reference=bare),
        row_beside("torchvision's drop_block2d", reference=bare),
    ]


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken."""
    args = parse_args('layers', QUESTION, rounds=20)
    shapes, drops = (SK_SHAPES[:1], DROP_CASES[:1]) if args.short else (SK_SHAPES, DROP_CASES)
    rows = [row for shape in shapes for row in selective_kernel_rows(shape, args.device, args.measure)]
    rows += [row for shape, scale in drops for row in drop_block_rows(shape, scale, args.device, args.measure)]
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
