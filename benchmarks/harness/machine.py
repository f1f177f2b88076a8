"""The limits of the machine: rates of a matrix product and of a copy in memory."""
from statistics import median
from typing import Any, Callable, Dict, Sequence

import torch

__all__ = ['MATRIX_PRODUCT', 'MEMORY_COPY', 'limit_cases', 'limit_details', 'share_of_limit']

MATRIX_PRODUCT, MEMORY_COPY = 'matrix product', 'memory copy'
SIDES = {'cpu': 2048, 'cuda': 8192}  # where larger ones are no faster
COPIED = 256 << 20  # bytes, more than caches hold


def limit_cases(device: str, dtype: torch.dtype) -> Dict[str, Callable[[], Any]]:
    """Return the two cases, each into memory that is already allocated."""
    side = SIDES[device]
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty(side, side, device=device, dtype=torch.int32 if dtype == torch.int8 else dtype)
    source, target = (torch.ones(COPIED, dtype=torch.uint8, device=device) for _ in range(2))

    def multiply() -> None:
        with torch.no_grad():
            (torch._int_mm if dtype == torch.int8 else torch.mm)(a, b, out=product)
    return {MATRIX_PRODUCT: multiply, MEMORY_COPY: lambda: target.copy_(source)}


def limit_details(name: str, device: str, seconds: float) -> Dict[str, Any]:
    """Return the columns of one limit's row, from its seconds per call.

    A copied byte counts twice, read and written.
    """
    if name == MATRIX_PRODUCT:
        return {'size': SIDES[device], 'GMAC/s': SIDES[device] ** 3 / seconds / 1e9}
    return {'GB/s': 2 * COPIED / seconds / 1e9}


def share_of_limit(macs: float, seconds: Sequence[float], product_seconds: Sequence[float], device: str) -> float:
    """Return the paired ratio of a case's GMAC/s to the matrix product's.

    Args:
        macs: Multiply-adds of one call.
        seconds: Of the calls, by round.
        product_seconds: Of the matrix products, by round.
        device: ``'cpu'`` or ``'cuda'``.
    """
    return macs / SIDES[device] ** 3 * median(p / s for s, p in zip(seconds, product_seconds))
