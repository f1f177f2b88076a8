"""What do our layers cost over the operation they cannot do without? ``python -m benchmarks.layers``

Knows torch, torchvision, timm's layers, this package's layers and the harness.
"""
import sys
from functools import partial
from typing import Any, Dict, List

import torch
from timm.layers import SelectiveKernel
from timm.layers import drop_block_2d as timm_drop_block_2d
from torchvision.ops import drop_block2d as torchvision_drop_block2d

from timm_assemble.layers import DropBlock2d, SelectiveKernelC3

from .cli import finish, parse_args
from .harness import make_row, measure

QUESTION = 'What do the layers cost over the operation they cannot do without?'
SK_SHAPES = ((8, 64, 64, 64), (8, 256, 16, 16), (4, 512, 16, 16))
SK_BOUND = 1.12
DROP_CASES = (((32, 1024, 14, 14), 0.25), ((32, 512, 14, 14), 0.25), ((32, 2048, 7, 7), 1.0))
DROP_BOUND = 2.0
DROP_AIM = 1.3
DROP_RATE = 0.1


def selective_kernel_rows(shape: tuple, rounds: int, device: str, sync: Any) -> List[Dict[str, Any]]:
    """SK-C3 over the bare convolution in it, in eval mode; beside it timm's selective kernel with two 3x3 paths."""
    channels = shape[1]
    to = dict(device=device, memory_format=torch.channels_last)
    x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    ours = SelectiveKernelC3(channels, channels).eval().to(**to)
    timms = SelectiveKernel(channels, channels, [3, 3], split_input=False).eval().to(**to)
    cases = {
        'bare wide conv-BN-ReLU': lambda: ours.conv(x),
        'SelectiveKernelC3': lambda: ours(x),
        'two bare conv-BN-ReLU': lambda: [path(x) for path in timms.paths],
        "timm's SelectiveKernel": lambda: timms(x),
    }
    with torch.inference_mode():
        seconds = measure(cases, rounds, sync=sync)
    row = partial(make_row, f'Selective kernel, {shape}, eval', seconds=seconds)
    return [
        row('bare wide conv-BN-ReLU'),
        row('SelectiveKernelC3', reference='bare wide conv-BN-ReLU', bound=SK_BOUND),
        row('two bare conv-BN-ReLU', reference='bare wide conv-BN-ReLU'),
        row("timm's SelectiveKernel", reference='two bare conv-BN-ReLU'),
        row("timm's SelectiveKernel", reference='bare wide conv-BN-ReLU'),
    ]


def drop_block_rows(shape: tuple, gamma_scale: float, rounds: int, device: str, sync: Any) -> List[Dict[str, Any]]:
    """DropBlock's forward over the product with a given mask, in training; beside it timm's and torchvision's."""
    x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    mask = torch.rand((1, *shape[1:]), device=device).contiguous(memory_format=torch.channels_last)
    ours = DropBlock2d(DROP_RATE, gamma_scale=gamma_scale).train().to(device)
    timms = partial(timm_drop_block_2d, x, DROP_RATE, gamma_scale=gamma_scale, couple_channels=False)
    # torchvision has no gamma_scale; its rate is what gamma is proportional to
    torchvisions = partial(torchvision_drop_block2d, x, gamma_scale * DROP_RATE, 7)
    cases = {
        'bare x * mask': lambda: x * mask,
        'DropBlock2d': lambda: ours(x),
        "timm's drop_block_2d": timms,
        "torchvision's drop_block2d": torchvisions,
    }
    seconds = measure(cases, rounds, sync=sync)
    row = partial(make_row, f'DropBlock, {shape}, gamma_scale {gamma_scale}, training', seconds=seconds)
    return [
        row('bare x * mask'),
        row('DropBlock2d', reference='bare x * mask', bound=DROP_BOUND, aim=DROP_AIM),
        row("timm's drop_block_2d", reference='bare x * mask'),
        row("torchvision's drop_block2d", reference='bare x * mask'),
    ]


def main() -> int:
    """Measure, print, write; the exit status says whether the bounds hold."""
    args = parse_args('layers', QUESTION, rounds=60)
    torch.manual_seed(0)
    common = dict(rounds=args.rounds, device=args.device, sync=args.sync)
    rows = [row for shape in SK_SHAPES for row in selective_kernel_rows(shape, **common)]
    rows += [row for shape, scale in DROP_CASES for row in drop_block_rows(shape, scale, **common)]
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
