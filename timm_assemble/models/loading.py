"""Load a trained model of any source.

A source is timm's name of a model with pretrained weights, ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, or
``NAME=CHECKPOINT``. ``LABEL=`` may precede the last three.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Tuple

import timm
from timm.data import resolve_data_config
from timm.models import load_state_dict

from ..utils.checksum import weights_sha256
from .train_checkpoint import NotTrainCheckpointError, read_train_checkpoint
from .validation import check_model_source, check_weights, error_line

__all__ = ['ModelSource', 'split_source', 'load_source', 'error_line']

SCHEMES = ('hf-hub:', 'hf_hub:', 'local-dir:')


@dataclass
class ModelSource:
    """A model in eval mode and the preprocessing of its test images."""

    model: Any
    input_size: Tuple[int, int, int]
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str = 'center'

    @property
    def architecture(self) -> str:
        return self.model.pretrained_cfg['architecture']

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def checksum(self) -> str:
        """SHA-256 of the weights."""
        return weights_sha256(self.model.state_dict())


def split_source(model: str) -> Tuple[str, str, str]:
    """Split a source into a short label, a name that timm takes, and a checkpoint or ``''``.

    Raises:
        ValueError: One side of the ``=`` is empty.
    """
    head, equals, tail = model.partition('=')
    if model.startswith(SCHEMES) or not equals:
        return model, model, ''
    if not head or not tail:
        raise ValueError(f'model must be a name, hf-hub:, local-dir: or NAME=CHECKPOINT, got {model!r}')
    name, again, checkpoint = tail.partition('=')
    if again and checkpoint and timm.is_model(name) and not Path(tail).exists():
        return head, name, checkpoint
    return (head, tail, '') if tail.startswith(SCHEMES) else (f'{head}={Path(tail).name}', head, tail)


def _from_checkpoint(name: str, path: Path) -> Any:
    """Load a model of timm with a checkpoint of train.py, built by its arguments, or with only weights."""
    if not timm.is_model(name):
        raise ValueError(f'NAME of NAME=CHECKPOINT must be a model name that timm knows, got {name!r}')
    if not path.is_file():
        raise ValueError(f'CHECKPOINT of {name}=CHECKPOINT must be a file, got {path}')
    try:
        trained = read_train_checkpoint(path)
        if trained.args['model'] != name:
            raise ValueError(f'{path} must hold a {name}, but its arguments name {trained.args["model"]}')
        return trained.model
    except NotTrainCheckpointError:
        pass  # only weights
    try:
        state = load_state_dict(str(path), use_ema=True)
    except Exception as e:  # torch, pickle and safetensors raise different kinds
        raise ValueError(f'{path} must hold weights of {name}, but cannot be read: {type(e).__name__}: {e}') from e
    classifier: Any = timm.get_pretrained_cfg_value(name, 'classifier') or ''
    first = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f'{first}.weight')
    if weight is None:
        raise ValueError(f'{path} must have the weights of {name}, but those of its classifier {first!r} are missing')
    model = timm.create_model(name, num_classes=len(weight))
    model.load_state_dict(state)
    return model


def load_source(model: str) -> ModelSource:
    """Load a model.

    Args:
        model: Source, as above.

    Raises:
        ValueError: The model does not exist, has no weights, or its files do not fit.
    """
    _, name, checkpoint = split_source(model)
    if not checkpoint:
        check_model_source(name)
    try:
        loaded = _from_checkpoint(name, Path(checkpoint)) if checkpoint else timm.create_model(name, pretrained=True)
        check_weights(loaded.state_dict(), 'weights')
        config = resolve_data_config({}, model=loaded, use_test_size=True)
    except Exception as e:  # timm, torch, pickle and safetensors raise any kind for a file that is not theirs
        raise ValueError(f'model {model}: {error_line(e)}') from e
    return ModelSource(
        loaded.eval(), tuple(config['input_size']), tuple(config['mean']), tuple(config['std']),
        config['interpolation'], config['crop_pct'], config['crop_mode'])
