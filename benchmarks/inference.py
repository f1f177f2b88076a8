"""How many images/s do the networks classify? ``python -m benchmarks.inference``"""
import sys
from typing import NamedTuple

from torch import nn

from .harness.cli import finish, parse_args
from .harness.networks import Setting, describe
from .throughput import group_rows

QUESTION = 'How many images/s do the networks classify?'
BATCH_SIZES, OTHERS_BATCH_SIZE = (1, 4, 8), 4
MAIN = 'assemble_resnet50'
BOUNDS = {MAIN: 0.54}  # of its speed over resnet50's; their inverse ratio of multiply-adds is 0.547
OTHERS = (
    'assemble_resnet50_base', 'assemble_resnet50_d', 'assemble_resnet50_d_se', 'assemble_resnet50_d_sk',
    'assemble_resnet50_bl', 'assemble_resnet50_bl_sk', MAIN, 'resnet152', 'assemble_resnet152')


class Network(NamedTuple):
    """A model ready to be timed at one image size."""
    model: nn.Module
    size: int
    params: int
    macs: float


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken."""
    args = parse_args('inference', QUESTION, rounds=20)
    main_network, rows = describe(MAIN, 'inference'), []
    for batch_size in BATCH_SIZES[:1] if args.short else BATCH_SIZES:
        setting = Setting('inference', 'eager', 'float32', batch_size)
        rows += group_rows([main_network], setting, '', args.device, args.measure, BOUNDS)
    if not args.short:
        networks = [describe(name, 'inference') for name in OTHERS]
        setting = Setting('inference', 'eager', 'float32', OTHERS_BATCH_SIZE)
        rows += group_rows(networks, setting, ', all networks', args.device, args.measure)
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
