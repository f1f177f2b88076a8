"""Load a trained model of any source.

A source is timm's name of a model with pretrained weights, ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, or
``NAME=CHECKPOINT``. ``LABEL=`` may precede the last three.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Tuple

import timm
from timm.models import load_state_dict

from ..data.classes import ClassMap
from ..data.preprocessing import Preprocessing
from ..errors import UserError, error_line
from ..runtime.checksum import weights_sha256
from .train_checkpoint import NotTrainCheckpointError, read_train_checkpoint
from .validation import check_model_source, check_weights

__all__ = ['ModelSource', 'split_source', 'load_source']

SCHEMES = ('hf-hub:', 'hf_hub:', 'local-dir:')


@dataclass
class ModelSource:
    """A model in eval mode, its evaluation transform and the names of its classes."""

    model: Any
    preprocessing: Preprocessing
    class_map: ClassMap

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
        UserError: One side of the ``=`` is empty.
    """
    head, equals, tail = model.partition('=')
    if model.startswith(SCHEMES) or not equals:
        return model, model, ''
    if not head or not tail:
        raise UserError(f'model must be a name, hf-hub:, local-dir: or NAME=CHECKPOINT, got {model!r}')
    name, again, checkpoint = tail.partition('=')
    if again and checkpoint and timm.is_model(name) and not Path(tail).exists():
        return head, name, checkpoint
    return (head, tail, '') if tail.startswith(SCHEMES) else (f'{head}={Path(tail).name}', head, tail)


def _from_checkpoint(name: str, path: Path, model_args: Dict[str, Any]) -> Any:
    """Load a model of timm with a checkpoint of train.py, built by its arguments, or with only weights."""
    if not timm.is_model(name):
        raise UserError(f'NAME of NAME=CHECKPOINT must be a model name that timm knows, got {name!r}')
    if not path.is_file():
        raise UserError(f'CHECKPOINT of {name}=CHECKPOINT must be a file, got {path}')
    try:
        trained = read_train_checkpoint(path, **model_args)
        architecture = trained.model.pretrained_cfg['architecture']  # arguments may name a folder
        if architecture != name.partition('.')[0]:
            raise UserError(f'{path} must hold a {name}, but its arguments name {architecture}')
        return trained.model
    except NotTrainCheckpointError:
        pass  # only weights
    try:
        state = load_state_dict(str(path), use_ema=True)
    except Exception as e:  # torch, pickle and safetensors raise different kinds
        raise UserError(f'{path} must hold weights of {name}, but cannot be read: {type(e).__name__}: {e}') from e
    classifier: Any = timm.get_pretrained_cfg_value(name, 'classifier') or ''
    first = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f'{first}.weight')
    if weight is None:
        raise UserError(f'{path} must have the weights of {name}, but those of its classifier {first!r} are missing')
    model = timm.create_model(name, num_classes=len(weight), **model_args)
    model.load_state_dict(state)
    return model


def _cause(name: str, error: Exception) -> str:
    """Return why a model cannot be loaded.

    timm takes any failure to fetch model.safetensors for a repository without it, and reports that pytorch_model.bin
    does not exist.
    """
    from huggingface_hub import hf_hub_download

    if type(error).__name__ == 'SafetensorError':
        return f'model.safetensors is damaged: {error_line(error)}'
    repo, _, revision = name.partition(':')[2].partition('@')
    if name.startswith(SCHEMES[:2]) and 'pytorch_model.bin' in str(error):
        try:
            hf_hub_download(repo, 'model.safetensors', revision=revision or None)
        except Exception as e:  # httpx, requests and huggingface_hub have no common base
            return f'model.safetensors cannot be fetched: {error_line(e.__cause__ or e)}'
    return error_line(error)


def load_source(model: str, **model_args: Any) -> ModelSource:
    """Load a model.

    Args:
        model: Source, as above.
        model_args: Arguments of the model that replace its own, and change no weight's shape.

    Raises:
        UserError: The model does not exist, has no weights, or its files do not fit.
    """
    _, name, checkpoint = split_source(model)
    if not checkpoint:
        check_model_source(name)
    try:
        loaded = (_from_checkpoint(name, Path(checkpoint), model_args) if checkpoint else
                  timm.create_model(name, pretrained=True, **model_args))
        check_weights(loaded.state_dict(), 'weights')
        preprocessing = Preprocessing.of_model(loaded)
    except Exception as e:  # timm, torch, pickle and safetensors raise any kind for a file that is not theirs
        raise UserError(f'model {model}: {_cause(name, e)}') from e
    return ModelSource(loaded.eval(), preprocessing, ClassMap.of_model(loaded))
