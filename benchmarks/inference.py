"""How many images/s do the networks classify? ``python -m benchmarks.inference``"""
import sys
from typing import Any, Dict, List, NamedTuple, Sequence

from torch import nn

from .harness.cli import finish, parse_args
from .harness.measure import make_row
from .harness.networks import REFERENCE, Setting, describe, prepare

QUESTION = 'How many images/s do the networks classify?'
BATCH_SIZES, OTHERS_BATCH_SIZE = (1, 4, 8), 4
MAIN = 'assemble_resnet50'
BOUND = 0.54  # of MAIN's speed over REFERENCE's; their inverse ratio of multiply-adds is 0.547
OTHERS = (
    'assemble_resnet50_base', 'assemble_resnet50_d', 'assemble_resnet50_d_se', 'assemble_resnet50_d_sk',
    'assemble_resnet50_bl', 'assemble_resnet50_bl_sk', MAIN, 'resnet152', 'assemble_resnet152')


class Network(NamedTuple):
    """A model ready to be timed at one image size."""
    model: nn.Module
    size: int
    params: int
    macs: float


def speed_rows(names: Sequence[str], batch_size: int, args: Any, title: str = '') -> List[Dict[str, Any]]:
    """Compare networks with the reference at one batch size, in eager float32."""
    networks = {name: describe(name, 'inference') for name in (REFERENCE, *names)}
    setting = Setting('inference', 'eager', 'float32', batch_size)
    seconds = args.measure({name: prepare(network, setting, args.device) for name, network in networks.items()})
    rows = []
    for name, network in networks.items():
        row = make_row(
            f'{title}batch size {batch_size}, eval, float32, eager'.capitalize(), name, seconds,
            None if name == REFERENCE else REFERENCE, of='speed', bound=None if name != MAIN or title else BOUND)
        row['details'] = {
            'size': network.size, 'params (M)': network.params / 1e6, 'GMACs': network.macs / 1e9,
            'images/s': batch_size / row['median_s'],
            'inverse ratio of GMACs': networks[REFERENCE].macs / network.macs}
        rows.append(row)
    return rows


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken."""
    args = parse_args('inference', QUESTION, rounds=20)
    if args.short:
        return finish(args, QUESTION, speed_rows([MAIN], 1, args))
    rows = [row for batch_size in BATCH_SIZES for row in speed_rows([MAIN], batch_size, args)]
    return finish(args, QUESTION, rows + speed_rows(OTHERS, OTHERS_BATCH_SIZE, args, 'All networks, '))


if __name__ == '__main__':
    sys.exit(main())
