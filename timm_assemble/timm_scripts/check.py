"""Check train.py's arguments for mistakes that it would report late and with a traceback."""
import re
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

import timm
import torch

from ..errors import UserError, did_you_mean

__all__ = ['check_batch_size', 'check_data', 'check_model']

# Arguments of a model that train.py passes by itself, with its own arguments for them.
OWN_ARGUMENTS = {
    'pretrained': 'pretrained', 'in_chans': 'in_chans', 'num_classes': 'num_classes', 'drop_rate': 'drop',
    'drop_path_rate': 'drop_path', 'drop_block_rate': 'drop_block', 'global_pool': 'gp', 'bn_momentum': 'bn_momentum',
    'bn_eps': 'bn_eps', 'scriptable': 'torchscript', 'checkpoint_path': 'initial_checkpoint'}


def check_model(name: str, kwargs: Mapping[str, Any], args: Optional[Namespace] = None) -> None:
    """Raise UserError for a name that timm does not know or an argument that the model does not take.

    Models of other sources (``hf-hub:``, ``local-dir:``) are not checked, since the check would have to load them.

    Args:
        name: Name of the model.
        kwargs: Arguments of the model.
        args: Arguments of train.py, some of which it passes to the model, too.
    """
    own: Dict[str, Any] = {key: getattr(args, argument, None) for key, argument in OWN_ARGUMENTS.items()
                           if key not in ('pretrained', 'checkpoint_path')}
    own = {key: value for key, value in own.items() if value is not None}
    for key in kwargs:
        if args is not None and key in OWN_ARGUMENTS:
            raise UserError(f'model_kwargs must not have {key}, which is `{OWN_ARGUMENTS[key]}`, got {kwargs[key]!r}')
    if set(name) & set('/\\:'):
        return
    if not timm.is_model(name):
        raise UserError(
            f'model must be a model name that timm knows, got {name!r}{did_you_mean(name, timm.list_models(), 3)}')
    if not {**kwargs, **own}:
        return
    try:
        with torch.device('meta'):
            timm.create_model(name, **kwargs, **own)
    except TypeError as e:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(e))
        if unknown and unknown[1] in kwargs:
            raise UserError(f'model_kwargs must be arguments of {name}, got {unknown[1]!r}') from e
        if unknown and unknown[1] in own:
            raise UserError(f'{OWN_ARGUMENTS[unknown[1]]} must not be given: {name} has no {unknown[1]}') from e
    except Exception:  # it may be the meta device's; train.py reports what is wrong
        pass


def check_batch_size(args: Namespace) -> None:
    """Raise UserError for an odd batch size with mixup, which timm finds in the first batch."""
    mixed = [name for name in ('mixup', 'cutmix', 'cutmix_minmax') if getattr(args, name, None)]
    if mixed and args.batch_size % 2:
        raise UserError(f'batch_size must be even with `{mixed[0]}`, got {args.batch_size}')


def check_data(dataset: str, data_dir: Optional[str]) -> None:
    """Raise UserError if the data set is a folder or a tar file and is not given or does not exist."""
    if '/' in dataset:  # torch/, hfds/, ... may need no folder
        return
    if not data_dir:
        raise UserError('data_dir must be the folder of the images, got none')
    if not Path(data_dir).exists():
        raise UserError(f'data_dir must exist, got {data_dir}')
