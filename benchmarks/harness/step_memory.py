"""Memory of a training step: what autograd saves for the backward pass, and the most that the step holds at once.

Knows torch.
"""
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ['StepMemory', 'memory_a_picture', 'peak_bytes', 'saved_bytes']


def saved_bytes(forward: Callable[[], Any], exclude: Iterable[torch.Tensor] = ()) -> int:
    """Bytes of all storages that the graph of a forward pass keeps for its backward pass, each counted once.

    What a loss is made of is kept as long as the loss is, so that the storages are told apart by their address.

    Args:
        forward: Gives the loss.
        exclude: Tensors whose storages don't count: parameters and buffers.
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


def highest_sum(changes: Iterable[int]) -> int:
    """The highest that a sum of changes gets, from 0 on."""
    total = highest = 0
    for change in changes:
        total += change
        highest = max(highest, total)
    return highest


def peak_bytes(step: Callable[[], Any], device: str) -> int:
    """The most bytes that a step holds at once, beyond what is held before it: by torch's own accounts of allocations.

    Every allocation counts, also those inside of an operation. What the convolutions' library takes by itself does not.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events: List[Any] = record.profiler.kineto_results.events()
    return highest_sum(event.nbytes() for event in events if event.name() == '[memory]')


class StepMemory(NamedTuple):
    """Bytes a picture."""
    saved: float  # by autograd for the backward pass
    peak: float  # of the whole step

    @property
    def peak_over_saved(self) -> float:
        return self.peak / self.saved


def memory_a_picture(measured: Callable[[int], Tuple[int, int]], batch_sizes: Sequence[int]) -> StepMemory:
    """What a picture more takes: the difference of two batches, in which all falls away that is there once a step.

    Args:
        measured: Gives saved and peak bytes at a batch size.
        batch_sizes: Two of them, so large that both have their peak at the same place.
    """
    small, large = batch_sizes
    return StepMemory(*((b - a) / (large - small) for a, b in zip(measured(small), measured(large))))
