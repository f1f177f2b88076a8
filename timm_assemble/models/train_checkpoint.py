"""Read a checkpoint of timm's train.py, without running code in it, as the model that was trained."""
import argparse
import reprlib
import warnings
import zipfile
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import timm
import torch
from timm.data.dataset_factory import _search_split
from timm.models import PretrainedCfg, clean_state_dict, parse_model_name
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

from ..data.classes import ClassMap, read_class_map
from ..data.images import natural_order
from ..data.official_steps import OFFICIAL
from ..data.preprocessing import input_channels
from ..errors import UserError, error_line
from .validation import check_model_args, check_model_source, check_pretrained_cfg, check_weights

__all__ = ['NotTrainCheckpointError', 'TrainedModel', 'read_train_checkpoint']

TRAINING_ONLY = (
    'drop_rate', 'drop_path_rate', 'drop_block_rate', 'device', 'dtype', 'pretrained_cfg_overlay',
    'drop_block_start_rate',  # the training's schedule takes it out before it makes the model
)


class NotTrainCheckpointError(UserError):
    """train.py did not write the file; it may hold only weights."""


class TrainedModel(NamedTuple):
    """A model with trained weights in eval mode, and what its checkpoint says about it.

    Attributes:
        model: The model.
        model_args: Its constructor arguments.
        args: Arguments of train.py.
        weights: Which of the checkpoint's weights the model has.
        epoch: Number of trained epochs, or None.
        metric: Result of the last validation, or None.
        metric_name: Name of the metric.
    """

    model: Any
    model_args: Dict[str, Any]
    args: Dict[str, Any]
    weights: str
    epoch: Optional[int]
    metric: Optional[float]
    metric_name: str


def _load(path: Path) -> Dict[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except OSError:
        raise
    except Exception as e:  # torch raises pickle's errors, KeyError, safetensors' own and others
        reason = error_line(e)[:200] if zipfile.is_zipfile(path) else 'it is no archive, as torch.save writes'
        raise NotTrainCheckpointError(
            f"path must be a checkpoint of timm's train.py; {path} cannot be read: {reason}") from e
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('state_dict'), dict):
        raise NotTrainCheckpointError(f"path must be a checkpoint of timm's train.py; {path} has no 'state_dict'")
    return checkpoint


def _read_args(path: Path, checkpoint: Dict[str, Any]) -> Tuple[Dict[str, Any], str]:
    """Return the given arguments of train.py and the file that they are from.

    They are in the checkpoint, else in args.yaml beside it. Strings with line breaks become one line: they are shown on
    model cards.
    """
    import yaml

    namespace, file = checkpoint.get('args'), path.with_name('args.yaml')
    if isinstance(namespace, argparse.Namespace):
        args, file = dict(vars(namespace)), path
    elif not file.is_file():
        raise NotTrainCheckpointError(f'path must be a checkpoint with its arguments; {path} has none, nor {file}')
    else:
        try:
            args = yaml.safe_load(file.read_text(encoding='utf-8'))
        except (yaml.YAMLError, ValueError, RecursionError) as e:
            raise UserError(f'{file} must be YAML as train.py writes it: {error_line(e)}') from e
    if not isinstance(args, dict) or not isinstance(args.get('model'), str):
        raise UserError(f'{file} must be the arguments of train.py with a model, got {reprlib.repr(args)}')
    given = {k: ' '.join(v.split()) if isinstance(v, str) and v.splitlines() not in ([], [v]) else v
             for k, v in args.items() if v is not None}
    return given, str(file)


def _base(name: str) -> Tuple[str, Dict[str, Any], Dict[str, Any]]:
    """Return architecture, configuration and constructor arguments of the model that training began from."""
    check_model_source(name)
    kind, location = parse_model_name(name)
    if not kind:
        registered = timm.get_pretrained_cfg(name)
        assert registered is not None
        return name, registered.to_dict(), {}
    load = load_model_config_from_hf if kind == 'hf-hub' else load_model_config_from_path
    cfg, architecture, model_args = load(location)
    return architecture, PretrainedCfg(**cfg).to_dict(), dict(model_args or {})


def _constructor_args(args: Dict[str, Any], base_args: Dict[str, Any]) -> Dict[str, Any]:
    """Return what train.py gives to ``create_model``, without what matters in training only."""
    in_chans = args.get('in_chans')
    if in_chans is None and args.get('input_size'):
        in_chans = args['input_size'][0]
    given = dict(
        num_classes=args.get('num_classes'), in_chans=in_chans, global_pool=args.get('gp'),
        bn_momentum=args.get('bn_momentum'), bn_eps=args.get('bn_eps'))
    given.update(args.get('model_kwargs') or {})
    given = {**base_args, **{k: v for k, v in given.items() if v is not None}}
    return {k: v for k, v in given.items() if k not in TRAINING_ONLY}


def _label_names(args: Dict[str, Any], num_classes: int, named: bool) -> Optional[List[str]]:
    """Return the names of the classes in the order of the logits, or None where nothing names them.

    They are those of train.py's ``--class-map``, else the folders that it was trained on if they still exist.

    Args:
        args: Arguments of train.py.
        num_classes: Number of classes.
        named: Whether the model that training began from names them.
    """
    data_dir = args.get('data_dir') or args.get('data')
    root = Path(str(data_dir or '.'))
    split = Path(_search_split(str(root), str(args.get('train_split') or 'train')))
    if args.get('class_map'):
        given = Path(str(args['class_map']))
        path = next((p for p in (given, split / given, root / given) if p.is_file()), given)
        names = read_class_map(path) if path.is_file() else []
        if len(names) == num_classes and all(names):
            return names
        warnings.warn(f'the names of the {num_classes} classes are unknown: class_map {path} '
                      f'{f"has {len(names)}" if path.is_file() else "does not exist"}.', stacklevel=2)
        return None
    if named or '/' in str(args.get('dataset') or '') or not data_dir or not split.is_dir():
        return None
    folders = sorted((f.name for f in split.iterdir() if f.is_dir()), key=natural_order)
    known = folders == [*(ClassMap.of_count(num_classes).names or ())]  # ImageNet's synsets, which need no names
    return None if known or len(folders) != num_classes else folders


def _overlay(args: Dict[str, Any], cfg: Dict[str, Any], model_args: Dict[str, Any]) -> Dict[str, Any]:
    """Return the entries of the configuration that training changed: its input and the names of its classes."""
    channels = model_args.get('in_chans', 3)
    given = {k: args[k] for k in ('input_size', 'mean', 'std', 'crop_pct', 'interpolation') if args.get(k)}
    if given.get('interpolation') == OFFICIAL:
        given['interpolation'] = 'bilinear'  # as timm calls it
    if args.get('img_size'):
        given.setdefault('input_size', (channels, args['img_size'], args['img_size']))
    check_pretrained_cfg(given)
    if 'input_size' in given:
        given.update(pool_size=None, test_input_size=None, test_pool_size=None)
    if 'crop_pct' in given:
        given.update(test_crop_pct=None)
    if model_args.get('num_classes', cfg['num_classes']) != cfg['num_classes']:
        given.update(label_names=None, label_descriptions=None)
    classes = model_args.get('num_classes', cfg['num_classes'])
    names = _label_names(args, classes, classes == cfg['num_classes'] and bool(cfg.get('label_names')))
    if names is not None:
        given.update(label_names=names, label_descriptions=None)
    given.update({k: None for k in ('url', 'file', 'hf_hub_id', 'source') if cfg.get(k)})
    return {**given, **input_channels({**cfg, **given}, channels)}


def read_train_checkpoint(path: Path, **overrides: Any) -> TrainedModel:
    """Build the model that was trained and load the checkpoint's weights, the EMA if it has one.

    Args:
        path: ``model_best.pth.tar``, ``last.pth.tar`` or another of train.py's, with its arguments within or args.yaml
            beside it.
        overrides: Arguments of the model that replace its own.

    Raises:
        NotTrainCheckpointError: train.py did not write the file.
        UserError: An argument is not allowed, or the weights are not those of the model that the arguments build.
    """
    checkpoint = _load(path)
    args, file = _read_args(path, checkpoint)
    try:
        architecture, cfg, base_args = _base(args['model'])
        model_args = {**_constructor_args(args, base_args), **overrides}
        check_model_args(architecture, model_args)
        model: Any = timm.create_model(
            architecture, pretrained_cfg=dict(cfg, architecture=architecture),
            pretrained_cfg_overlay=_overlay(args, cfg, model_args), **model_args)
    except Exception as e:  # arguments of another type or value raise any kind
        raise UserError(f'{file}: {error_line(e)}') from e
    ema = checkpoint.get('state_dict_ema') is not None
    try:
        model.load_state_dict(clean_state_dict(checkpoint['state_dict_ema' if ema else 'state_dict']))
    except (RuntimeError, AttributeError, TypeError) as e:
        raise UserError(
            f'{path}: weights must be those of {architecture} as its arguments build it: {error_line(e)[:300]}') from e
    check_weights(model.state_dict(), str(path))
    model_args.update(num_classes=model.num_classes, in_chans=model_args.get('in_chans', 3))
    epoch, metric = checkpoint.get('epoch'), checkpoint.get('metric')
    epoch = epoch + 1 if isinstance(epoch, int) else None
    weights = 'the exponential moving average (EMA)' if ema else 'the trained ones; the checkpoint has no EMA'
    weights += f', after epoch {epoch}' if epoch else ''
    return TrainedModel(
        model.eval(), model_args, args, weights, epoch, metric if isinstance(metric, (int, float)) else None,
        str(args.get('eval_metric') or 'top1'))
