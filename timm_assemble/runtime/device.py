"""The device that models run on, and the dtype of mixed precision there."""
import os
from typing import Union

import torch

from ..errors import UserError, error_line

__all__ = ['amp_dtype', 'find_device']


def find_device(name: Union[str, torch.device, None] = None) -> torch.device:
    """Return a device by name, under torchrun the rank's; for None CUDA if there is one, else the CPU.

    Raises:
        UserError: This machine does not have it, or torch does not know it.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if device.type == 'cuda' and device.index is None:
            device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as e:
        raise UserError(f'device must be available, got {str(name)!r}: {error_line(e)}') from e
    return device


def amp_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of mixed precision: float16 on CUDA, bfloat16 elsewhere."""
    return torch.float16 if device.type == 'cuda' else torch.bfloat16
