"""Memory of a training step: bytes saved for the backward pass, and the peak."""
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = ['StepMemory', 'memory_per_image', 'peak_bytes', 'saved_bytes']


def saved_bytes(forward: Callable[[], Any], exclude: Iterable[torch.Tensor] = ()) -> int:
    """Return the bytes of all storages saved for the backward pass, each once.

    The storages live as long as the loss, so that their addresses identify them.

    Args:
        forward: Returns the loss.
        exclude: Tensors whose storages do not count: parameters and buffers.
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
    """Return the highest value of the running sum of changes, which begins at 0."""
    total = highest = 0
    for change in changes:
        total += change
        highest = max(highest, total)
    return highest


def peak_bytes(step: Callable[[], Any], device: str) -> int:
    """Return the most bytes that a step allocates at once, by torch's records.

    Allocations inside an operation count; those that the convolution library makes by itself do not.
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
    """Bytes per image."""
    saved: float  # by autograd for the backward pass
    peak: float  # of the whole step

    @property
    def peak_over_saved(self) -> float:
        return self.peak / self.saved


def memory_per_image(measured: Callable[[int], Tuple[int, int]], batch_sizes: Sequence[int]) -> StepMemory:
    """Return the bytes of one more image: the difference of two batches.

    Args:
        measured: Returns saved and peak bytes at a batch size.
        batch_sizes: Two, so large that both have their peak in the same operation.
    """
    small, large = batch_sizes
    return StepMemory(*((b - a) / (large - small) for a, b in zip(measured(small), measured(large))))
