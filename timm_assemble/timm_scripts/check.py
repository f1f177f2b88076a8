"""Check train.py's arguments for mistakes that it would report late and with a traceback."""
import re
from pathlib import Path
from typing import Any, Mapping, Optional

import timm
import torch

from ..errors import UserError, did_you_mean

__all__ = ['check_data', 'check_model']


def check_model(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that timm does not know or an argument that the model does not take.

    Models of other sources (``hf-hub:``, ``local-dir:``) are not checked, since the check would have to load them.
    """
    if set(name) & set('/\\:'):
        return
    if not timm.is_model(name):
        raise UserError(
            f'model must be a model name that timm knows, got {name!r}{did_you_mean(name, timm.list_models(), 3)}')
    if not kwargs:
        return
    try:
        with torch.device('meta'):
            timm.create_model(name, **kwargs)
    except TypeError as e:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(e))
        if unknown and unknown[1] in kwargs:
            raise UserError(f'model_kwargs must be arguments of {name}, got {unknown[1]!r}') from e
    except Exception:  # it may be the meta device's; train.py reports what is wrong
        pass


def check_data(dataset: str, data_dir: Optional[str]) -> None:
    """Raise ValueError if the data set is a folder or a tar file and is not given or does not exist."""
    if '/' in dataset:  # torch/, hfds/, ... may need no folder
        return
    if not data_dir:
        raise UserError('data_dir must be the folder of the images, got none')
    if not Path(data_dir).exists():
        raise UserError(f'data_dir must exist, got {data_dir}')
