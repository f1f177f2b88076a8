"""What is said on the command line to a model that classifies: the one file here that knows timm.

A model is a name of timm's with pretrained weights, ``hf-hub:USER/NAME``, ``local-dir:FOLDER``, or NAME=CHECKPOINT; the
middle two may be given a label before a ``=``.
"""
import hashlib
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import timm
import torch
from timm.data import resolve_data_config
from timm.models import load_state_dict

from ..train_checkpoint import read_train_checkpoint

__all__ = ['LoadedModel', 'labels_of', 'load_model']

SCHEMES = ('hf-hub:', 'hf_hub:', 'local-dir:')


class LoadedModel(NamedTuple):
    """A model in eval mode; ``own_size`` is the side it is made to be tested at, ``checksum`` its weights' SHA-256."""

    label: str
    source: str
    architecture: str
    num_classes: int
    own_size: int
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    checksum: str
    structure: str
    model: Any

    @property
    def identity(self) -> Dict[str, Any]:
        """What tells its predictions from those of any other model, label and place aside."""
        return dict(
            architecture=self.architecture, structure=self.structure, checksum=self.checksum, mean=[*self.mean],
            std=[*self.std])

    def classifier(self, device: torch.device, amp: bool, size: int) -> Any:
        """The callable from (N, 3, size, size) uint8 pictures to logits, its weights moved to the device.

        Raises:
            ValueError: The model takes no pictures of this size.
        """
        model = self.model
        if size != self.own_size and hasattr(model, 'set_input_size'):
            model.set_input_size(img_size=(size, size))
        model = model.to(device)
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) * 255 for v in (self.mean, self.std))
        dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16

        def classify(pictures: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, dtype=dtype, enabled=amp):
                return model(pictures.float().sub_(mean).div_(std))
        with torch.inference_mode():
            try:
                classify(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device))
            except (AssertionError, RuntimeError) as e:
                raise ValueError(f'{self.label} takes no pictures of {size} x {size}: {_line(e)}') from e
        return classify


def _line(error: BaseException) -> str:
    return ' '.join(str(error).split())[:300] or type(error).__name__


def _parts(text: str) -> Tuple[str, str, str]:
    """Short label, name or place, and checkpoint."""
    head, equals, tail = text.partition('=')
    if text.startswith(SCHEMES) or not equals:
        return text, text, ''
    if not head or not tail:
        raise ValueError(f'MODEL must be a name, hf-hub:, local-dir: or NAME=CHECKPOINT, got {text!r}')
    return (head, tail, '') if tail.startswith(SCHEMES) else (f'{head}={Path(tail).name}', head, tail)


def labels_of(texts: Sequence[str]) -> List[str]:
    """Labels of the models in tables and pictures: a checkpoint's has no folders where the file's name is enough.

    Raises:
        ValueError: Two are the same.
    """
    short = [_parts(text)[0] for text in texts]
    labels = [text if _parts(text)[2] and short.count(label) > 1 else label for text, label in zip(texts, short)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f'MODELs must have labels of their own, got {", ".join(twice)} more than once')
    return labels


def _from_checkpoint(name: str, path: Path) -> Any:
    """A model of timm's with weights from a file: a checkpoint of train.py with its arguments, or weights alone."""
    if not timm.is_model(name):
        raise ValueError(f'NAME of NAME=CHECKPOINT must be a model name that timm knows, got {name!r}')
    if not path.is_file():
        raise ValueError(f'CHECKPOINT of {name}=CHECKPOINT must be a file, got {path}')
    try:
        trained = read_train_checkpoint(path)
    except ValueError:
        trained = None  # weights alone, say
    if trained is not None:
        if trained.args['model'] != name:
            raise ValueError(f'{path} must hold a {name}, and its arguments say {trained.args["model"]}')
        return trained.model
    state = load_state_dict(str(path), use_ema=True)
    config: Any = timm.get_pretrained_cfg(name)
    classifier = config.classifier
    first = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f'{first}.weight')
    if weight is None:
        raise ValueError(f'{path} must have the weights of {name}, and lacks {first}.weight')
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


def load_model(text: str, label: Optional[str] = None) -> LoadedModel:
    """Make a model of what was said on the command line.

    Args:
        text: MODEL, as above.
        label: From :func:`labels_of`; its own short one if None.

    Raises:
        ValueError: There is no such model, it has no weights, or takes other than three channels.
    """
    short, name, checkpoint = _parts(text)
    try:
        if checkpoint:
            model = _from_checkpoint(name, Path(checkpoint))
        else:
            if not name.startswith(SCHEMES) and not timm.is_model(name):
                raise ValueError('timm knows no such model; others are hf-hub:USER/NAME, local-dir:FOLDER, '
                                 'NAME=CHECKPOINT')
            model = timm.create_model(name, pretrained=True)
    except (ValueError, RuntimeError, OSError, KeyError) as e:
        raise ValueError(f'MODEL {text}: {_line(e)}') from e
    model = model.eval()
    config = resolve_data_config({}, model=model, use_test_size=True)
    channels, *_, side = config['input_size']
    if channels != 3:
        raise ValueError(f'MODEL {text} must take pictures of 3 channels, and takes {channels}')
    # weights do not tell everything: anti-aliasing, say, has none
    structure = re.sub(r' at 0x[0-9a-f]+', '', repr(model))
    return LoadedModel(
        label or short, text, model.pretrained_cfg['architecture'], model.num_classes, side, tuple(config['mean']),
        tuple(config['std']), _checksum(model.state_dict()), hashlib.sha256(structure.encode()).hexdigest(), model)
