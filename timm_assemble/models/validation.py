"""Checks that keep broken and hostile files out: sizes, types, and weights that no training gives.

Every error is a UserError in one line: the file, the key, what is allowed and what the file has.
"""
import inspect
import json
import math
import reprlib
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import timm
import torch
from timm.models import PretrainedCfg, is_model_in_modules, model_entrypoint
from timm.models._hub import download_from_hf

from ..errors import UserError, error_line
from .assemble_mobilenet import AssembleMobileNet
from .assemble_resnet import AssembleResNet

__all__ = [
    'check_model_args', 'check_model_config', 'check_model_source', 'check_pretrained_cfg', 'check_weights']

NETWORKS = dict(assemble_resnet=AssembleResNet, assemble_mobilenet=AssembleMobileNet)
# Far above any real network: a larger value is a broken file, which would take minutes or all memory to build.
LIMITS = {
    'layers': 500, 'depth': 500, 'depths': 500, 'width': 512, 'in_chans': 1024, 'num_classes': 1_000_000,
    'embedding_size': 65_536}
SIZE = (lambda size: len(size) == 3 and all(type(n) is int and 0 < n <= 65_536 for n in size),
        'channels, height and width, each from 1 to 65536')
POSITIVE = (lambda value: 0 < value < math.inf, 'a positive number')
CFG_RULES: Dict[str, Tuple[Callable[[Any], bool], str]] = {  # key -> test of its value, and what is allowed
    'input_size': SIZE, 'test_input_size': SIZE, 'min_input_size': SIZE, 'crop_pct': POSITIVE,
    'test_crop_pct': POSITIVE,
    'mean': (lambda mean: len(mean) > 0 and all(map(math.isfinite, mean)), 'a list of numbers'),
    'std': (lambda std: len(std) > 0 and all(0 < v < math.inf for v in std), 'a list of positive numbers'),
    'num_classes': (lambda value: type(value) is int and value >= 0, 'an integer of 0 or more'),
    'label_names': (lambda names: isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names),
                    'a list of strings'),
}


def _check(ok: bool, key: str, value: Any, allowed: str) -> None:
    if not ok:
        raise UserError(f'{key} must be {allowed}, got {reprlib.repr(value)}')


def check_pretrained_cfg(cfg: Any, num_classes: Optional[int] = None) -> None:
    """Check a pretrained configuration of timm.

    Args:
        cfg: Entries of timm's ``PretrainedCfg``; timm replaces None by a default.
        num_classes: Number of classes of the model; by default that of the configuration.

    Raises:
        UserError: A value is not allowed, such as a ``std`` of 0 or as many ``label_names`` as there are no classes.
    """
    _check(isinstance(cfg, dict), 'pretrained_cfg', cfg, 'an object')
    for key, (test, allowed) in CFG_RULES.items():
        value = cfg.get(key)
        try:
            ok = value is None or test(value)
        except (TypeError, OverflowError):
            ok = False
        _check(ok, key, value, allowed)
    classes = cfg.get('num_classes', PretrainedCfg.num_classes) if num_classes is None else num_classes
    names = cfg.get('label_names')
    if names is not None and len(names) != classes:
        raise UserError(f'label_names must be as many as the {classes} classes, got {len(names)}')


def check_model_args(architecture: Any, args: Any) -> None:
    """Check constructor arguments: that the network has a bearable size and, of this package's models, can be built.

    Args:
        architecture: Name of a registered model.
        args: The arguments.
    """
    _check(isinstance(architecture, str) and timm.is_model(architecture), 'architecture', architecture,
           'the name of a model that timm knows')
    _check(isinstance(args, dict), 'model_args', args, 'an object')
    for key, limit in LIMITS.items():
        value = args.get(key)
        numbers = [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, int)]
        _check(max(sum(numbers), len(numbers)) <= limit, key, value, f'at most {limit} in total')
    for network in (network for module, network in NETWORKS.items() if is_model_in_modules(architecture, [module])):
        parameters = inspect.signature(network).parameters
        for key, value in args.items():  # what would build a model too: a string as a bool, a number that is not finite
            kind = type(parameters[key].default) if key in parameters else None
            kinds: Any = {bool: (bool, int), int: (int,), float: (int, float)}.get(kind)  # type: ignore[arg-type]
            _check(not kinds or (type(value) in kinds and abs(value) < math.inf), key, value,
                   f'of type {getattr(kind, "__name__", kind)}')
        model_entrypoint(architecture)(device='meta', **args)


def _check_content(config: Any) -> None:
    _check(isinstance(config, dict), 'content', config, 'a JSON object')
    cfg, model_args = config.get('pretrained_cfg'), config.get('model_args', {})
    if 'pretrained_cfg' not in config and 'model_args' not in config:  # timm's older format
        cfg = config
    check_model_args(config.get('architecture'), model_args)
    _check(isinstance(cfg, dict), 'pretrained_cfg', cfg, 'an object')
    overrides = {key: config[key] for key in ('num_classes', 'label_names') if key in config}
    check_pretrained_cfg({**cfg, **overrides}, model_args.get('num_classes'))


def check_model_config(file: Path) -> None:
    """Check a config.json as timm writes and reads it, before timm builds what it says.

    Raises:
        UserError: It is missing, is not JSON, names an unknown architecture, or has a value that is not allowed.
    """
    try:
        _check_content(json.loads(file.read_text(encoding='utf-8')))
    except FileNotFoundError as e:
        raise UserError(f'{file} must exist, as timm writes it beside the weights') from e
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UserError(f'{file} must be JSON: {error_line(e)}') from e
    except Exception as e:  # building a model raises any kind
        raise UserError(f'{file}: {error_line(e)}') from e


def check_model_source(model: str) -> None:
    """Check what ``create_model`` is to be given.

    Args:
        model: Name of a model of timm, ``hf-hub:USER/NAME`` or ``local-dir:FOLDER``.

    Raises:
        UserError: timm knows no such model, or its config.json does not pass :func:`check_model_config`.
    """
    scheme, colon, name = model.partition(':')
    try:
        if colon and scheme == 'local-dir':
            check_model_config(Path(name) / 'config.json')
        elif colon and scheme in ('hf-hub', 'hf_hub'):
            check_model_config(Path(download_from_hf(name, 'config.json')))
        elif not timm.is_model(model):
            raise UserError('timm knows no such model; it can also be hf-hub:USER/NAME or local-dir:FOLDER')
    except (ValueError, OSError) as e:
        raise UserError(f'model {model}: {error_line(e)}') from e


def check_weights(state: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that weights are finite and running variances not negative; ``where`` begins the message."""
    for name, tensor in state.items():
        if tensor.is_floating_point():
            finite = tensor.isfinite()
            if not bool(finite.all()):
                raise UserError(f'{where}: {name} must be finite, got {int((~finite).sum())} of {tensor.numel()} '
                                 f'values that are not')
            if name.endswith('running_var') and bool((tensor < 0).any()):
                raise UserError(f'{where}: {name} must be 0 or more, got {tensor.min().item():.4g}')
