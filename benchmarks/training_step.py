"""Time and memory of a training step. ``python -m benchmarks.training_step``"""
import argparse
import sys
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Mapping, NamedTuple, Tuple

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch import nn
from torch.profiler import ProfilerActivity, profile

import timm_assemble  # noqa: F401  registers the models

from .harness.cli import finish, parse_args
from .harness.measure import make_row
from .harness.networks import multiply_adds

QUESTION = 'How much time and memory does a training step take?'
REFERENCE, MAIN = 'resnet50d', 'assemble_resnet50'
CHECKPOINTED = f'{MAIN}, gradient checkpointing'
SIZE, BATCH_SIZE = 224, 8
TIME_BOUND = 1.10  # of seconds per multiply-add, ours over the reference's
MEMORY_BATCH_SIZES = 2, 4  # their difference is one image's memory: both have their peak in the same operation
MEMORY_BOUND = 1.05  # peak over saved activations
OPTIMIZER: Dict[str, Any] = dict(opt='sgd', lr=1e-3, momentum=0.9, weight_decay=1e-4)
MIB = 2 ** 20
Autocast = Callable[[], ContextManager]


class Trained(NamedTuple):
    """A network with its optimizer; ``called`` is the network or its compiled form."""
    network: Any
    called: Callable[[torch.Tensor], torch.Tensor]
    optimizer: Any
    gmacs: float  # of one image's forward pass
    device: str


def make_trained(name: str, device: str, compiled: bool = False, size: int = SIZE, **kwargs: Any) -> Trained:
    """Build a model for training, channels-last, with timm's optimizer."""
    network: nn.Module = timm.create_model(name, **kwargs).to(device).to(memory_format=torch.channels_last)
    gmacs = multiply_adds(network.eval(), size) / 1e9
    network.train()
    return Trained(network, torch.compile(network) if compiled else network,
                   create_optimizer_v2(network, **OPTIMIZER), gmacs, device)


def make_step(
        trained: Trained, batch_size: int, autocast: Autocast, checkpointing: bool = False, size: int = SIZE,
        keep_gradients: bool = False,
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


def saved_bytes(forward: Callable[[], Any], exclude: Iterable[torch.Tensor] = ()) -> int:
    """Return the bytes of all storages saved for the backward pass, each once, but for those of ``exclude``.

    The storages live as long as the loss, so that their addresses identify them.
    """
    excluded = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    sizes: Dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in excluded:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(sizes.values())


def peak_bytes(step: Callable[[], Any], device: str) -> int:
    """Return the most bytes that a step allocates at once, by torch's records.

    Allocations inside an operation count; those that the convolution library makes by itself do not.
    """
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events: List[Any] = record.profiler.kineto_results.events()
    total = highest = 0
    for event in events:
        if event.name() == '[memory]':
            total += event.nbytes()
            highest = max(highest, total)
    return highest


def memory_details(
        trained: Trained, autocast: Autocast, checkpointing: bool = False, size: int = SIZE) -> Dict[str, float]:
    """Return the columns of saved and peak memory of one more image.

    Gradients of the weights are kept from step to step: allocated in each step, they would move a small batch's peak to
    the end of the backward pass, when most activations are gone.
    """
    found = []
    for batch_size in MEMORY_BATCH_SIZES:
        forward, step = make_step(trained, batch_size, autocast, checkpointing, size, keep_gradients=True)
        step()  # the optimizer's state and the gradients are made in the first
        weights = [*trained.network.parameters(), *trained.network.buffers()]
        found.append((saved_bytes(forward, exclude=weights), peak_bytes(step, trained.device)))
    images = MEMORY_BATCH_SIZES[1] - MEMORY_BATCH_SIZES[0]
    saved, peak = ((large - small) / images / MIB for small, large in zip(*found))
    return {'saved (MiB per image)': saved, 'peak (MiB per image)': peak, 'peak over saved': peak / saved}


def step_rows(
        group: str, trained: Mapping[str, Trained], autocast: Autocast, args: Any, batch_size: int = BATCH_SIZE,
        size: int = SIZE,
) -> List[Dict[str, Any]]:
    """Compare seconds per GMAC with the reference's and with checkpointing."""
    eager_float32, eager = group == 'float32, eager', 'eager' in group
    memory = {name: memory_details(case, autocast, name == CHECKPOINTED, size) for name, case in trained.items()
              } if eager else {}
    seconds = args.measure({
        name: make_step(case, batch_size, autocast, checkpointing=name == CHECKPOINTED, size=size)[1]
        for name, case in trained.items()})
    gmacs = {name: batch_size * case.gmacs for name, case in trained.items()}
    over_gmacs = {name: [value / gmacs[name] for value in values] for name, values in seconds.items()}
    references, rows = {MAIN: REFERENCE, CHECKPOINTED: MAIN}, []
    for name, case in trained.items():
        row = make_row(
            f'{group}; a step of {batch_size} images at {size}, time per GMAC of its forward pass', name, over_gmacs,
            references.get(name), bound=TIME_BOUND if name == MAIN and eager_float32 else None)
        row['details'] = {
            'params (M)': sum(p.numel() for p in case.network.parameters()) / 1e6, 'GMACs': case.gmacs,
            'step (ms)': 1e3 * row['median_s'] * gmacs[name], **memory.get(name, {})}
        rows.append(row)
    return rows


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--compile', action='store_true', help='also compiled steps; compilation takes minutes')


def main() -> int:
    """Run the benchmark; return 1 if a bound is broken."""
    args = parse_args('training_step', QUESTION, rounds=10, options=options)
    bfloat16 = partial(torch.autocast, args.device, torch.bfloat16)
    batch_size, size = (2, 64) if args.short else (BATCH_SIZE, SIZE)
    rows: List[Dict[str, Any]] = []
    for compiled in (False, True) if args.compile else (False,):
        ours = make_trained(MAIN, args.device, compiled, size, drop_block_rate=0.1)
        trained = {REFERENCE: make_trained(REFERENCE, args.device, compiled, size), MAIN: ours}
        if not compiled:
            trained[CHECKPOINTED] = ours
        for precision, autocast in (('float32', nullcontext), ('bfloat16 autocast', bfloat16)):
            rows += step_rows(f'{precision}, {"compiled" if compiled else "eager"}', trained, autocast, args,
                              batch_size, size)
    status, ratio = finish(args, QUESTION, rows), rows[1]['details']['peak over saved']
    if ratio > MEMORY_BOUND:
        print(f'\nBound broken: {MAIN}: peak over saved activations is {ratio:.3f}, more than {MEMORY_BOUND}')
        return 1
    return status


if __name__ == '__main__':
    sys.exit(main())
