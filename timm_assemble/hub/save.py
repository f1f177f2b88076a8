"""Write a model as a folder in Hugging Face format that timm and transformers read."""
import json
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from timm.models import save_for_hf
from torch import nn

__all__ = ['for_transformers', 'save_model']


def for_transformers(config: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a config.json without ``num_classes`` among ``model_args``.

    timm writes it there and at the top, and reads both. transformers passes the one at the top beside ``model_args`` to
    ``create_model``, which raises TypeError for an argument given twice. ``in_chans`` stays: transformers has it from
    ``model_args`` only.
    """
    args = {key: value for key, value in config.get('model_args', {}).items() if key != 'num_classes'}
    return {**config, **({'model_args': args} if 'model_args' in config else {})}


def save_model(
        model: nn.Module,
        folder: Path,
        model_args: Optional[Mapping[str, Any]] = None,
        model_config: Optional[Mapping[str, Any]] = None,
) -> None:
    """Write config.json and model.safetensors into a folder.

    Args:
        model: A model of timm.
        folder: Existing folder.
        model_args: Constructor arguments beside the registered ones.
        model_config: Further entries of config.json, such as ``label_names``.
    """
    save_for_hf(
        model, str(folder), safe_serialization=True, model_args=dict(model_args or {}),
        model_config=dict(model_config or {}))
    file = folder / 'config.json'
    file.write_text(json.dumps(for_transformers(json.loads(file.read_text())), indent=2))
    (folder / 'model.safetensors').chmod(file.stat().st_mode)  # safetensors writes it for the owner alone
