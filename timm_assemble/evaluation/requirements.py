"""What an evaluation needs: packages of an extra, and a device."""
import os
from importlib import import_module
from typing import Union

import torch

from ..errors import UserError, install_extra

__all__ = ['check_packages', 'find_device']


def check_packages(extra: str, *packages: str) -> None:
    """Check that packages can be imported; the ValueError names the ``extra`` that installs them."""
    for package in packages:
        try:
            import_module(package)
        except ModuleNotFoundError as e:
            raise UserError(f'{extra} needs {e.name}: {install_extra(extra)}') from e
        except ImportError as e:  # OpenCV without a system's graphics library, say
            raise UserError(f'{extra} cannot import {package}: {" ".join(str(e).split())}') from e


def find_device(name: Union[str, torch.device, None]) -> torch.device:
    """Return a device by name, under torchrun the rank's; CUDA if there is one, else the CPU, for None."""
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
        if device.type == 'cuda' and device.index is None:
            device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as e:
        raise UserError(f'device must be one that torch has here, got {name!r}: {str(e).splitlines()[0]}') from e
    return device
