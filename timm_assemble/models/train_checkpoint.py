"""A checkpoint of timm's train.py, read without running any code in it, back to the model that was trained.

Knows what train.py writes and gives to ``create_model``, and nothing of training itself.
"""
import argparse
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

import timm
import torch
from timm.models import clean_state_dict, parse_model_name
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

from .pretrained_cfg import input_channels

__all__ = ['NotOfTrainingError', 'TrainedModel', 'read_train_checkpoint']

# arguments of train.py that decide what network is built, and so what its weights mean
BUILDING = ('model', 'num_classes', 'in_chans', 'input_size', 'gp', 'bn_eps', 'model_kwargs')
OF_TRAINING_ALONE = (
    'drop_rate', 'drop_path_rate', 'drop_block_rate', 'device', 'dtype', 'pretrained_cfg_overlay',
    'drop_block_start_rate',  # of the training's schedule, which takes it out before the model is made
)


class NotOfTrainingError(ValueError):
    """The file is none that train.py wrote: it may be weights alone, or nothing of the kind."""


class TrainedModel(NamedTuple):
    """A model with trained weights in eval mode, and what its checkpoint says of it.

    ``weights`` says which weights, ``metric`` is the last validation's figure of them (None if there was none) under
    the name ``metric_name``, ``epoch`` counts from 1.
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
    except Exception as e:  # torch has no single error for what it cannot read: pickle's, a KeyError, safetensors' own
        raise NotOfTrainingError(
            f"CHECKPOINT must be one of timm's train.py, readable as weights alone; {path} is not: "
            f'{" ".join(str(e).split())[:200]}') from e
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise NotOfTrainingError(f"CHECKPOINT must be one of timm's train.py; {path} has no 'state_dict'")
    return checkpoint


def _building(value: Any) -> Any:
    """A value of an argument, to be compared: without what the training takes out of model_kwargs, tuples as lists."""
    if isinstance(value, dict):
        return {k: v for k, v in value.items() if k not in OF_TRAINING_ALONE}
    return list(value) if isinstance(value, tuple) else value


def _read_args(path: Path, checkpoint: Dict[str, Any]) -> Dict[str, Any]:
    """args.yaml beside the checkpoint, or the arguments within it; what both have must build the same network."""
    import yaml

    within = dict(vars(checkpoint['args'])) if isinstance(checkpoint.get('args'), argparse.Namespace) else {}
    file = path.with_name('args.yaml')
    if not file.is_file():
        if not within:
            raise NotOfTrainingError(f'{path} must hold its arguments or have args.yaml beside it')
        return within
    try:
        beside = yaml.safe_load(file.read_text(encoding='utf-8'))
    except yaml.YAMLError as e:
        raise ValueError(f'{file} must be YAML as train.py writes it: {" ".join(str(e).split())}') from e
    if not isinstance(beside, dict) or not beside.get('model'):
        raise ValueError(f'{file} must name a model, as train.py writes it')
    for key in BUILDING:
        a, b = _building(beside.get(key)), _building(within.get(key))
        if within and a != b and not (key == 'num_classes' and a is None):  # train.py fills this one in
            raise ValueError(f'{file} must be that of {path.name}: {key} is {a!r} in the one and {b!r} in the other')
    return {**within, **{k: v for k, v in beside.items() if v is not None}}


def _source(name: str) -> Tuple[str, Dict[str, Any], Dict[str, Any]]:
    """Architecture, configuration and constructor arguments that a name or a place of a model stands for."""
    kind, place = parse_model_name(name)
    if kind:
        load = load_model_config_from_hf if kind == 'hf-hub' else load_model_config_from_path
        cfg, architecture, model_args = load(place)
        return architecture, dict(cfg), dict(model_args or {})
    registered = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if registered is None:
        raise ValueError(f'model must be one that timm knows, got {name!r}')
    return name, registered.to_dict(), {}


def _constructor_args(args: Dict[str, Any]) -> Dict[str, Any]:
    """What train.py gives to ``create_model``, without what matters in training alone."""
    in_chans = args.get('in_chans')
    if in_chans is None and args.get('input_size'):
        in_chans = args['input_size'][0]
    given = dict(
        num_classes=args.get('num_classes'), in_chans=in_chans, global_pool=args.get('gp'),
        bn_momentum=args.get('bn_momentum'), bn_eps=args.get('bn_eps'))
    given.update(args.get('model_kwargs') or {})
    return {k: v for k, v in given.items() if v is not None and k not in OF_TRAINING_ALONE}


def _input(args: Dict[str, Any], cfg: Dict[str, Any], channels: int) -> Dict[str, Any]:
    """The input that the model was trained with, as entries of its configuration."""
    given = {key: args.get(key) or cfg[key] for key in ('mean', 'std')}
    overlay = input_channels({**cfg, **given}, channels)
    if args.get('input_size') or args.get('img_size'):
        size = args['input_size'][1:] if args.get('input_size') else [args['img_size']] * 2
        overlay.update(input_size=(channels, *size), pool_size=None, test_input_size=None, test_pool_size=None)
    if args.get('crop_pct'):
        overlay.update(crop_pct=args['crop_pct'], test_crop_pct=None)
    if args.get('interpolation'):
        overlay.update(interpolation=args['interpolation'])
    return overlay


def read_train_checkpoint(path: Path) -> TrainedModel:
    """Build the model that was trained and give it the checkpoint's weights, those of the EMA where there are such.

    Args:
        path: ``model_best.pth.tar``, ``last.pth.tar`` or another of train.py's; its args.yaml beside it, or the
            arguments within it.

    Raises:
        NotOfTrainingError: It is no such checkpoint.
        ValueError: Its weights are not those of the model its arguments build.
    """
    checkpoint = _load(path)
    args = _read_args(path, checkpoint)
    architecture, cfg, base_args = _source(args['model'])
    model_args = {**{k: v for k, v in base_args.items() if k not in OF_TRAINING_ALONE}, **_constructor_args(args)}
    overlay = _input(args, cfg, model_args.get('in_chans', 3))
    if model_args.get('num_classes', cfg['num_classes']) != cfg['num_classes']:
        overlay.update(label_names=None, label_descriptions=None)
    overlay.update({k: None for k in ('url', 'file', 'hf_hub_id', 'source') if cfg.get(k)})
    model: Any = timm.create_model(
        architecture, pretrained_cfg=dict(cfg, architecture=architecture), pretrained_cfg_overlay=overlay, **model_args)
    ema = checkpoint.get('state_dict_ema') is not None
    state = clean_state_dict(checkpoint['state_dict_ema' if ema else 'state_dict'])
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        raise ValueError(f'the weights in {path} must be those of {architecture} as its arguments build it: '
                         f'{" ".join(str(e).split())[:300]}') from e
    model_args.update(num_classes=model.num_classes, in_chans=model_args.get('in_chans', 3))
    epoch, metric = checkpoint.get('epoch'), checkpoint.get('metric')
    epoch = epoch + 1 if isinstance(epoch, int) else None
    weights = 'the exponential moving average (EMA)' if ema else 'the trained ones; the checkpoint has no EMA'
    weights += f', after epoch {epoch}' if epoch else ''
    return TrainedModel(
        model.eval(), model_args, args, weights, epoch, float(metric) if metric is not None else None,
        str(args.get('eval_metric') or 'top1'))
