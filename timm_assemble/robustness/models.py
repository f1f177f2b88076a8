"""A model that classifies pictures of one size: the one file here that knows timm."""
import hashlib
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch

from ..models.loading import error_line, load_source, split_source

__all__ = ['LoadedModel', 'labels_of', 'load_model']


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
        model = self.model.to(device)
        mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) * 255 for v in (self.mean, self.std))
        dtype = torch.float16 if device.type == 'cuda' else torch.bfloat16

        def classify(pictures: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, dtype=dtype, enabled=amp):
                return model(pictures.float().sub_(mean).div_(std))
        with torch.inference_mode():
            try:
                # own_size is of the test, which may be another than that of the training, for which it is built
                if size != model.pretrained_cfg['input_size'][-1] and hasattr(model, 'set_input_size'):
                    model.set_input_size(img_size=(size, size))
                classify(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device))
            except (AssertionError, RuntimeError) as e:
                raise ValueError(f'{self.label} takes no pictures of {size} x {size}: {error_line(e)}') from e
        return classify


def labels_of(texts: Sequence[str]) -> List[str]:
    """Labels of the models in tables and pictures: a checkpoint's has no folders where the file's name is enough.

    Raises:
        ValueError: Two are the same.
    """
    short = [split_source(text)[0] for text in texts]
    labels = [text if split_source(text)[2] and short.count(label) > 1 else label for text, label in zip(texts, short)]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f'MODELs must have labels of their own, got {", ".join(twice)} more than once')
    return labels


def load_model(text: str, label: Optional[str] = None) -> LoadedModel:
    """Make a model of what was said on the command line.

    Args:
        text: MODEL, see :mod:`timm_assemble.models.loading`.
        label: From :func:`labels_of`; its own short one if None.

    Raises:
        ValueError: There is no such model, it has no weights or no classifier, or takes other than three channels.
    """
    source = load_source(text)
    channels, _, side = source.input_size
    if channels != 3:
        raise ValueError(f'MODEL {text} must take pictures of 3 channels, and takes {channels}')
    if source.num_classes < 1:
        raise ValueError(f'MODEL {text} must have a classifier, and gives features alone')
    # weights do not tell everything: anti-aliasing, say, has none
    structure = re.sub(r' at 0x[0-9a-f]+', '', repr(source.model))
    return LoadedModel(
        label or split_source(text)[0], text, source.architecture, source.num_classes, side, source.mean, source.std,
        source.checksum, hashlib.sha256(structure.encode()).hexdigest(), source.model)
