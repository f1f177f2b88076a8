"""Check train.py's arguments for mistakes that it would report late and with a traceback."""
import difflib
import re
from pathlib import Path
from typing import Any, Mapping, Optional

import timm
import torch

__all__ = ['check_data', 'check_model']


def check_model(name: str, kwargs: Mapping[str, Any]) -> None:
    """Check the model's name and its constructor arguments.

    Models of other sources (``hf-hub:``, ``local-dir:``) are not checked, since the check would have to load them.

    Args:
        name: train.py's ``model``.
        kwargs: train.py's ``model_kwargs``.

    Raises:
        ValueError: timm does not have the model, with the nearest names; or the model does not take an argument.
    """
    if set(name) & set('/\\:'):
        return
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        meant = f'; did you mean {", ".join(near)}?' if near else ''
        raise ValueError(f'model must be a model name that timm knows, got {name!r}{meant}')
    if not kwargs:
        return
    try:
        with torch.device('meta'):
            timm.create_model(name, **kwargs)
    except TypeError as e:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(e))
        if unknown and unknown[1] in kwargs:
            raise ValueError(f'model_kwargs must be arguments of {name}, got {unknown[1]!r}') from e
    except Exception:  # it may be the meta device's; train.py reports what is wrong
        pass


def check_data(dataset: str, data_dir: Optional[str]) -> None:
    """Check that the data folder exists, if the data set is a folder or a tar file.

    Args:
        dataset: train.py's ``dataset``; a name with a slash (torch/, hfds/, ...) may need no folder.
        data_dir: train.py's ``data_dir``.

    Raises:
        ValueError: The folder is not given or does not exist.
    """
    if '/' in dataset:
        return
    if not data_dir:
        raise ValueError('data_dir must be the folder of the images, got none')
    if not Path(data_dir).exists():
        raise ValueError(f'data_dir must exist, got {data_dir}')
