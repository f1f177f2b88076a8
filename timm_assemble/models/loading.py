"""A trained model as said on the command line: timm's name of one with pretrained weights, ``hf-hub:USER/NAME``,
``local-dir:FOLDER``, or NAME=CHECKPOINT; the middle two may be given a label before a ``=``.

Knows timm and the checkpoints of its train.py.
"""
import hashlib
from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple

import timm
import torch
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.models import load_state_dict

from .train_checkpoint import NotOfTrainingError, read_train_checkpoint

__all__ = ['ModelSource', 'split_source', 'load_source', 'error_line']

SCHEMES = ('hf-hub:', 'hf_hub:', 'local-dir:')


class ModelSource(NamedTuple):
    """A model in eval mode, the pictures it is made to be tested with, and its weights' SHA-256."""

    architecture: str
    num_classes: int
    input_size: Tuple[int, int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    interpolation: str
    crop_pct: float
    checksum: str
    model: Any


def error_line(error: BaseException) -> str:
    """An error's message as one line of a bearable length."""
    return ' '.join(str(error).split())[:300] or type(error).__name__


def split_source(text: str) -> Tuple[str, str, str]:
    """Short label, name or place, and checkpoint, which is empty where there is none.

    Raises:
        ValueError: Nothing before or after the ``=``.
    """
    head, equals, tail = text.partition('=')
    if text.startswith(SCHEMES) or not equals:
        return text, text, ''
    if not head or not tail:
        raise ValueError(f'MODEL must be a name, hf-hub:, local-dir: or NAME=CHECKPOINT, got {text!r}')
    return (head, tail, '') if tail.startswith(SCHEMES) else (f'{head}={Path(tail).name}', head, tail)


def _from_checkpoint(name: str, path: Path) -> Any:
    """A model of timm's with weights from a file: a checkpoint of train.py with its arguments, or weights alone."""
    if not timm.is_model(name):
        raise ValueError(f'NAME of NAME=CHECKPOINT must be a model name that timm knows, got {name!r}')
    if not path.is_file():
        raise ValueError(f'CHECKPOINT of {name}=CHECKPOINT must be a file, got {path}')
    try:
        trained = read_train_checkpoint(path)
    except NotOfTrainingError:
        trained = None
    if trained is not None:
        if trained.args['model'] != name:
            raise ValueError(f'{path} must hold a {name}, and its arguments say {trained.args["model"]}')
        return trained.model
    try:
        state = load_state_dict(str(path), use_ema=True)
    except Exception as e:  # torch, pickle and safetensors have an error each for what is none of theirs
        raise ValueError(f'{path} must hold weights of {name}, and cannot be read: {type(e).__name__}: {e}') from e
    config: Any = timm.get_pretrained_cfg(name)
    classifier = config.classifier or ''
    first = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f'{first}.weight')
    if weight is None:
        raise ValueError(f'{path} must have the weights of {name}, and lacks those of its classifier {first!r}')
    model = timm.create_model(name, num_classes=len(weight))
    model.load_state_dict(state)
    return model


def _checksum(state: Dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        value = value.detach().cpu().contiguous()
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_source(text: str) -> ModelSource:
    """Make a model of what was said on the command line.

    Args:
        text: MODEL, as above.

    Raises:
        ValueError: There is no such model, or it has no weights.
    """
    _, name, checkpoint = split_source(text)
    try:
        if checkpoint:
            model = _from_checkpoint(name, Path(checkpoint))
        else:
            if not name.startswith(SCHEMES) and not timm.is_model(name):
                raise ValueError('timm knows no such model; others are hf-hub:USER/NAME, local-dir:FOLDER, '
                                 'NAME=CHECKPOINT')
            model = timm.create_model(name, pretrained=True)
    except (ValueError, RuntimeError, OSError, KeyError, SafetensorError) as e:
        raise ValueError(f'MODEL {text}: {error_line(e)}') from e
    model = model.eval()
    config = resolve_data_config({}, model=model, use_test_size=True)
    return ModelSource(
        model.pretrained_cfg['architecture'], model.num_classes, tuple(config['input_size']), tuple(config['mean']),
        tuple(config['std']), config['interpolation'], config['crop_pct'], _checksum(model.state_dict()), model)
