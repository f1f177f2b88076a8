"""Checks of what a file says about a model, before it is built, and of its weights.

Every error is a ValueError in one line: the file, the key, what is allowed and what the file has.
"""
import difflib
import json
import math
import reprlib
from dataclasses import fields
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping, Optional, Tuple, Union, get_args, get_origin, get_type_hints

import timm
import torch
from timm.models import PretrainedCfg, is_model_in_modules
from timm.models._hub import download_from_hf

from .assemble_resnet import AssembleResNet

__all__ = [
    'CFG_RULES', 'Rules', 'check_model_args', 'check_model_folder', 'check_model_source', 'check_pretrained_cfg',
    'check_values', 'check_weights', 'error_line', 'is_integer', 'is_number', 'is_numbers']

Rules = Mapping[str, Tuple[Callable[[Any], bool], str]]  # key -> test of its value, and what is allowed
# Far above any real network: a larger value is a broken file, which would take minutes or all memory to build.
LIMITS = {
    'layers': 500, 'depth': 500, 'depths': 500, 'width': 512, 'in_chans': 1024, 'num_classes': 1_000_000,
    'embedding_size': 65_536}
HINTS = get_type_hints(AssembleResNet.__init__)
TYPES = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a string'}
CONFIG_KEYS = (
    'architecture', 'num_classes', 'num_features', 'global_pool', 'model_args', 'pretrained_cfg', 'label_names',
    'label_descriptions')


def error_line(error: BaseException) -> str:
    """Return an error's message as one line of at most 500 characters."""
    return ' '.join(str(error).split())[:500] or type(error).__name__


def is_number(value: Any, above: float = -math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and above < value < math.inf


def is_integer(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_numbers(value: Any, above: float = -math.inf) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(is_number(v, above) for v in value)


def _is_size(value: Any) -> bool:
    return is_numbers(value, 0) and len(value) == 3 and all(is_integer(v, 1, 65_536) for v in value)


def _are_strings(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


SIZE = (_is_size, 'channels, height and width, each from 1 to 65536')
POSITIVE = (lambda value: is_number(value, 0), 'a positive number')
STRINGS = (lambda value: isinstance(value, str) or _are_strings(value), 'one or more strings')
INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'box', 'hamming', 'lanczos', 'random')
CFG_RULES: Rules = {
    'input_size': SIZE, 'test_input_size': SIZE, 'min_input_size': SIZE, 'crop_pct': POSITIVE,
    'test_crop_pct': POSITIVE, 'first_conv': STRINGS, 'classifier': STRINGS,
    'mean': (is_numbers, 'a list of numbers'),
    'std': (lambda value: is_numbers(value, 0), 'a list of positive numbers'),
    'interpolation': (lambda value: value in INTERPOLATIONS, f'one of {", ".join(INTERPOLATIONS)}'),
    'num_classes': (lambda value: is_integer(value, 0), 'an integer of 0 or more'),
    'label_names': (_are_strings, 'a list of strings'),
}


def _check(ok: bool, where: str, key: str, value: Any, allowed: str) -> None:
    if not ok:
        raise ValueError(f'{where}: {key} must be {allowed}, got {reprlib.repr(value)}')


def check_values(values: Mapping[str, Any], rules: Rules, where: str) -> None:
    """Check the values that have a rule; None, which timm replaces by a default, passes."""
    for key, (test, allowed) in rules.items():
        value = values.get(key)
        _check(value is None or test(value), where, key, value, allowed)


def _check_keys(keys: Iterable[Any], known: Iterable[str], where: str, owner: str) -> None:
    known = list(known)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            raise ValueError(
                f'{where}: {owner} has no {reprlib.repr(key)}' + (f'; did you mean {near[0]!r}?' if near else ''))


def check_pretrained_cfg(cfg: Any, where: str, num_classes: Optional[int] = None) -> None:
    """Check a pretrained configuration of timm.

    Args:
        cfg: Entries of timm's ``PretrainedCfg``.
        where: File or model that it is from, for the message.
        num_classes: Number of classes of the model; by default that of the configuration.

    Raises:
        ValueError: A key is unknown, or a value is not allowed, such as a ``std`` of 0 or as many ``label_names`` as
            there are no classes.
    """
    _check(isinstance(cfg, dict), where, 'pretrained_cfg', cfg, 'an object')
    _check_keys(cfg, (field.name for field in fields(PretrainedCfg)), where, 'pretrained_cfg')
    check_values(cfg, CFG_RULES, where)
    classes = cfg.get('num_classes', PretrainedCfg.num_classes) if num_classes is None else num_classes
    names = cfg.get('label_names')
    if names is not None and len(names) != classes:
        raise ValueError(f'{where}: label_names must be as many as the {classes} classes, got {len(names)}')


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Union:
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_args(hint):  # Sequence[int]
        return isinstance(value, (list, tuple)) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return is_number(value)
    if hint is bool:
        return value in (0, 1)
    return isinstance(value, hint) and not isinstance(value, bool)


def _allowed(hint: Any) -> str:
    return TYPES.get(hint) or ('a string' if str in get_args(hint) else 'a list of integers')


def check_model_args(architecture: Any, args: Any, where: str) -> None:
    """Check constructor arguments, and that the network they build has a bearable size.

    Args:
        architecture: Name of a registered model. Of this package's models all arguments are checked, of others sizes.
        args: The arguments.
        where: File that they are from, for the message.
    """
    _check(isinstance(architecture, str) and timm.is_model(architecture), where, 'architecture', architecture,
           'the name of a model that timm knows')
    _check(isinstance(args, dict), where, 'model_args', args, 'an object')
    for key, limit in LIMITS.items():
        value = args.get(key)
        numbers = [v for v in (value if isinstance(value, (list, tuple)) else [value]) if is_integer(v)]
        _check(max(sum(numbers), len(numbers)) <= limit, where, key, value, f'at most {limit} in total')
    if is_model_in_modules(architecture, ['assemble_resnet']):
        _check_keys(args, [name for name in HINTS if name != 'return'], where, architecture)
        for key, value in args.items():
            _check(_fits(value, HINTS[key]), where, key, value, _allowed(HINTS[key]))


def _check_config(file: Path, where: str) -> None:
    """Check a config.json as timm writes and reads it."""
    try:
        config = json.loads(file.read_text(encoding='utf-8'))
    except FileNotFoundError as e:
        raise ValueError(f'{where} must exist, as timm writes it beside the weights') from e
    except (ValueError, RecursionError) as e:
        raise ValueError(f'{where} must be JSON: {error_line(e)}') from e
    if not isinstance(config, dict):
        raise ValueError(f'{where} must be a JSON object, got {reprlib.repr(config)}')
    cfg: Any = config.get('pretrained_cfg')
    model_args = config.get('model_args', {})
    if 'pretrained_cfg' not in config and 'model_args' not in config:  # timm's older format
        cfg = {key: value for key, value in config.items() if key not in ('architecture', 'num_features', 'labels')}
    else:
        for key in set(config) - set(CONFIG_KEYS):  # timm ignores unknown keys, so also a misspelled one
            near = difflib.get_close_matches(key, CONFIG_KEYS, 1, cutoff=0.8)
            if near and near[0] not in config:
                raise ValueError(f'{where}: key {reprlib.repr(key)} is unknown; did you mean {near[0]!r}?')
    check_model_args(config.get('architecture'), model_args, where)
    _check(isinstance(cfg, dict), where, 'pretrained_cfg', cfg, 'an object')
    overrides = {key: config[key] for key in ('num_classes', 'label_names') if key in config}
    check_pretrained_cfg({**cfg, **overrides}, where, model_args.get('num_classes'))


def check_model_folder(folder: Path) -> None:
    """Check config.json of a folder in the Hugging Face format, before timm builds what it says.

    Raises:
        ValueError: It is missing, is not JSON, names an unknown architecture, or has a key or value that is not
            allowed.
    """
    _check_config(folder / 'config.json', str(folder / 'config.json'))


def check_model_source(model: str) -> None:
    """Check what ``create_model`` is to be given.

    Args:
        model: Name of a model of timm, ``hf-hub:USER/NAME`` or ``local-dir:FOLDER``.

    Raises:
        ValueError: timm knows no such model, or its config.json does not pass :func:`check_model_folder`.
    """
    scheme, colon, name = model.partition(':')
    try:
        if colon and scheme == 'local-dir':
            check_model_folder(Path(name))
        elif colon and scheme in ('hf-hub', 'hf_hub'):
            _check_config(Path(download_from_hf(name, 'config.json')), f'config.json of {name}')
        elif not timm.is_model(model):
            raise ValueError('timm knows no such model; it can also be hf-hub:USER/NAME or local-dir:FOLDER')
    except (ValueError, OSError) as e:
        raise ValueError(f'model {model}: {error_line(e)}') from e


def check_weights(state: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that weights are finite and running variances not negative.

    Args:
        state: State dict.
        where: File or model that it is of, for the message.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point():
            finite = tensor.isfinite()
            if not bool(finite.all()):
                raise ValueError(f'{where}: {name} must be finite, got {int((~finite).sum())} of {tensor.numel()} '
                                 f'values that are not')
            if name.endswith('running_var') and bool((tensor < 0).any()):
                raise ValueError(f'{where}: {name} must be 0 or more, got {tensor.min().item():.4g}')
