"""Time and memory of a training step. ``python -m benchmarks.training_step``"""
import argparse
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, ContextManager, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import nn

import timm_assemble  # noqa: F401  registers the models

from .harness.cli import finish, parse_args
from .harness.measure import make_row
from .harness.networks import multiply_adds
from .harness.step_memory import StepMemory, memory_per_image, peak_bytes, saved_bytes

QUESTION = 'How much time and memory does a training step take?'
REFERENCE, MAIN = 'resnet50d', 'assemble_resnet50'
CHECKPOINTED = f'{MAIN}, gradient checkpointing'
SIZE, BATCH_SIZE = 224, 8
TIME_BOUND = 1.10  # of seconds per multiply-add, ours over the reference's
MEMORY_BATCH_SIZES = (2, 4)
MEMORY_BOUND = 1.05  # peak over saved activations
OPTIMIZER: Dict[str, Any] = dict(opt='sgd', lr=1e-3, momentum=0.9, weight_decay=1e-4)
MIB = 2 ** 20


class Trained(NamedTuple):
    """A network with its optimizer; ``called`` is the network or its compiled form."""
    network: Any
    called: Callable[[torch.Tensor], torch.Tensor]
    optimizer: Any
    params: int
    gmacs: float  # of one image's forward pass
    device: str


def make_trained(name: str, device: str, compiled: bool = False, size: int = SIZE, **kwargs: Any) -> Trained:
    """Build a model for training, channels-last, with timm's optimizer."""
    network: nn.Module = timm.create_model(name, **kwargs).to(device).to(memory_format=torch.channels_last)
    gmacs = multiply_adds(network.eval(), size) / 1e9
    network.train()
    return Trained(
        network, torch.compile(network) if compiled else network, create_optimizer_v2(network, **OPTIMIZER),
        sum(p.numel() for p in network.parameters()), gmacs, device)


def make_step(
        trained: Trained, batch_size: int, autocast: Callable[[], ContextManager], checkpointing: bool = False,
        size: int = SIZE, keep_gradients: bool = False,
) -> Tuple[Callable[[], torch.Tensor], Callable[[], None]]:
    """Return the forward pass up to the loss, and a whole step with its update."""
    x = torch.randn(batch_size, 3, size, size).to(trained.device).to(memory_format=torch.channels_last)
    target = torch.arange(batch_size, device=trained.device)

    def forward() -> torch.Tensor:
        trained.network.set_grad_checkpointing(checkpointing)
        with autocast():
            return F.cross_entropy(trained.called(x), target)

    def step() -> None:
        forward().backward()
        trained.optimizer.step()
        trained.optimizer.zero_grad(set_to_none=not keep_gradients)

    return forward, step


def step_memory(
        trained: Trained, autocast: Callable[[], ContextManager], checkpointing: bool = False,
        batch_sizes: Sequence[int] = MEMORY_BATCH_SIZES, size: int = SIZE,
) -> StepMemory:
    """Measure saved and peak bytes per image of a step.

    Gradients of the weights are kept from step to step: allocated in each step, they would move a small batch's peak to
    the end of the backward pass, when most activations are gone.
    """
    def measured(batch_size: int) -> Tuple[int, int]:
        forward, step = make_step(trained, batch_size, autocast, checkpointing, size, keep_gradients=True)
        step()  # the optimizer's state and the gradients are made in the first
        weights = [*trained.network.parameters(), *trained.network.buffers()]
        return saved_bytes(forward, exclude=weights), peak_bytes(step, trained.device)
    return memory_per_image(measured, batch_sizes)


def per_gmac(seconds: Mapping[str, Sequence[float]], gmacs: Mapping[str, float]) -> Dict[str, List[float]]:
    """Divide timings by the GMACs of their case."""
    return {name: [value / gmacs[name] for value in values] for name, values in seconds.items()}


def step_rows(
        group: str,
        trained: Mapping[str, Trained],
        autocast: Callable[[], ContextManager],
        measure: Callable[..., Dict[str, List[float]]],
        bound: Optional[float],
        memory: Mapping[str, StepMemory],
        batch_size: int = BATCH_SIZE,
        size: int = SIZE,
) -> List[Dict[str, Any]]:
    """Compare seconds per GMAC with the reference's, and with checkpointing.

    Args:
        group: Beginning of the group's name.
        trained: The cases, the reference first.
        autocast: Makes the context of the forward pass.
        measure: The harness's.
        bound: Of the main case's ratio.
        memory: Of the cases that it was measured for.
        batch_size: Images per step.
        size: Height and width of the images.
    """
    cases = {
        name: make_step(case, batch_size, autocast, checkpointing=name == CHECKPOINTED, size=size)[1]
        for name, case in trained.items()}
    batch_gmacs = {name: batch_size * case.gmacs for name, case in trained.items()}
    seconds = measure(cases)
    over_gmacs = per_gmac(seconds, batch_gmacs)
    references = {MAIN: REFERENCE, CHECKPOINTED: MAIN}
    rows = []
    for name, case in trained.items():
        row = make_row(
            f'{group}; a step of {batch_size} images at {size}, time per GMAC of its forward pass', name,
            over_gmacs, references.get(name), bound=bound if name == MAIN else None)
        row['details'] = {'params (M)': case.params / 1e6, 'GMACs': case.gmacs}
        row['details']['step (ms)'] = 1e3 * row['median_s'] * batch_gmacs[name]
        if name in memory:
            m = memory[name]
            row['details'] |= {
                'saved (MiB per image)': m.saved / MIB, 'peak (MiB per image)': m.peak / MIB,
                'peak over saved': m.peak_over_saved}
        rows.append(row)
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--compile', action='store_true', help='also compiled steps; compilation takes minutes')


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken."""
    args = parse_args('training_step', QUESTION, rounds=10, options=options)
    bfloat16 = partial(torch.autocast, args.device, torch.bfloat16)
    rows: List[Dict[str, Any]] = []
    broken = []
    for compiled in (False, True) if args.compile else (False,):
        ours = make_trained(MAIN, args.device, compiled, drop_block_rate=0.1)
        trained = {REFERENCE: make_trained(REFERENCE, args.device, compiled), MAIN: ours}
        if not compiled:
            trained[CHECKPOINTED] = ours
        for precision, autocast in (('float32', nullcontext), ('bfloat16 autocast', bfloat16)):
            memory = {} if compiled else {
                name: step_memory(case, autocast, name == CHECKPOINTED) for name, case in trained.items()}
            target = precision == 'float32' and not compiled
            if target and memory[MAIN].peak_over_saved > MEMORY_BOUND:
                broken.append(memory[MAIN].peak_over_saved)
            rows += step_rows(
                f'{precision}, {"compiled" if compiled else "eager"}', trained, autocast, args.measure,
                TIME_BOUND if target else None, memory)
        del ours, trained
    status = finish(args, QUESTION, rows)
    for ratio in broken:
        print(f'\nBound broken: {MAIN}: peak over saved activations is {ratio:.3f}, more than {MEMORY_BOUND}')
    return 1 if broken else status


if __name__ == '__main__':
    sys.exit(main())
