"""How many images/s do the networks classify? ``python -m benchmarks.inference``"""
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

import timm
import torch
from torch import nn

import timm_assemble  # noqa: F401  registers the models

from .harness.cli import finish, parse_args
from .harness.measure import make_row
from .harness.networks import multiply_adds

QUESTION = 'How many images/s do the networks classify?'
BATCH_SIZES = (1, 4, 8)
BOUND = 0.54  # of MAIN's speed over REFERENCE's; their inverse ratio of multiply-adds is 0.547
REFERENCE = ('resnet50', 224)
MAIN = ('assemble_resnet50', 256)
OTHERS_BATCH_SIZE = 4
OTHERS = (
    ('assemble_resnet50_base', 224), ('assemble_resnet50_d', 224), ('assemble_resnet50_d_se', 224),
    ('assemble_resnet50_d_sk', 224), ('assemble_resnet50_bl', 256), ('assemble_resnet50_bl_sk', 256), MAIN,
    ('resnet152', 224), ('assemble_resnet152', 256),
)


class Network(NamedTuple):
    """A model ready to be timed at one image size."""
    model: nn.Module
    size: int
    params: int
    macs: float


def make_network(name: str, size: int, device: str) -> Network:
    """Build a model in eval mode and channels-last."""
    model = timm.create_model(name).eval().to(device).to(memory_format=torch.channels_last)
    return Network(model, size, sum(p.numel() for p in model.parameters()), multiply_adds(model, size))


def speed_rows(
        networks: Dict[str, Network],
        names: Sequence[str],
        batch_size: int,
        device: str,
        measure: Callable[..., Any],
        bounds: Dict[str, float],
) -> List[Dict[str, Any]]:
    """Compare networks with the reference at one batch size, in eager float32."""
    def case(network: Network) -> Callable[[], torch.Tensor]:
        x = torch.randn(batch_size, 3, network.size, network.size)
        x = x.to(device).to(memory_format=torch.channels_last)
        return lambda: network.model(x)

    reference = REFERENCE[0]
    with torch.inference_mode():
        seconds = measure({name: case(networks[name]) for name in (reference, *names)})
    rows = []
    for name in (reference, *names):
        network = networks[name]
        row = make_row(
            f'Batch size {batch_size}, eval, float32, eager', name, seconds,
            None if name == reference else reference, of='speed', bound=bounds.get(name))
        row['details'] = {
            'size': network.size,
            'params (M)': network.params / 1e6,
            'GMACs': network.macs / 1e9,
            'images/s': batch_size / row['median_s'],
            'inverse ratio of GMACs': networks[reference].macs / network.macs,
        }
        rows.append(row)
    return rows


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken."""
    args = parse_args('inference', QUESTION, rounds=20)
    others = OTHERS if not args.short else (MAIN,)
    networks = {name: make_network(name, size, args.device) for name, size in (REFERENCE, *others)}
    rows = []
    for batch_size in BATCH_SIZES[:1 if args.short else None]:
        rows += speed_rows(networks, [MAIN[0]], batch_size, args.device, args.measure, {MAIN[0]: BOUND})
    if not args.short:
        names = [name for name, _ in OTHERS]
        more = speed_rows(networks, names, OTHERS_BATCH_SIZE, args.device, args.measure, {})
        rows += [{**row, 'group': f'All networks, {row["group"].lower()}'} for row in more]
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
