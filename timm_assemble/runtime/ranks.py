"""The ranks of a torchrun job that meet in files and small objects, not in gradients."""
import os
from datetime import timedelta
from typing import Any, Callable, List, Sequence, TypeVar

from torch import distributed

from ..errors import UserError

__all__ = ['Ranks']

T = TypeVar('T')


class Ranks:
    """Rank and world size as torchrun sets them; rank 0 of 1 without torchrun.

    A context manager: the process group exists inside it, also one that exists already. Its own has the backend gloo
    and a timeout of a week, because the fastest rank waits for the slowest one.

    Attributes:
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get('RANK', 0))
        self.world_size = int(os.environ.get('WORLD_SIZE', 1))

    def __enter__(self) -> 'Ranks':
        self._owns_group = self.world_size > 1 and not distributed.is_initialized()
        if self._owns_group:
            distributed.init_process_group('gloo', timeout=timedelta(days=7))
        return self

    def __exit__(self, *_: Any) -> None:
        if self._owns_group:
            distributed.destroy_process_group()

    def own(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this rank: every ``world_size``-th one."""
        return items[self.rank::self.world_size]

    def from_first(self, make: Callable[[], T]) -> T:
        """Call ``make`` on rank 0 and return its result, or raise its UserError, on every rank."""
        result: List[Any] = [None, None]
        if self.rank == 0:
            try:
                result = [make(), None]
            except UserError as e:
                result = [None, e]
        if self.world_size > 1:
            distributed.broadcast_object_list(result)
        if result[1] is not None:
            raise result[1]
        return result[0]

    def gather(self, items: List[T]) -> List[T]:
        """Return the items of all ranks, in the order of the ranks, on every rank."""
        gathered: List[Any] = [items]
        if self.world_size > 1:
            gathered = [None] * self.world_size
            distributed.all_gather_object(gathered, items)
        return [item for part in gathered for item in part]

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world_size > 1:
            distributed.barrier()
