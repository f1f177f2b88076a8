"""Model cards: README.md of a model on the Hugging Face Hub, from huggingface_hub's metadata and a Jinja template."""
import copy
import re
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch import nn

from ..errors import INSTALL, UserError
from ..models.family import registered_models

__all__ = ['Result', 'fold', 'from_pretrained', 'is_registered_here', 'model_card']

TEMPLATE = Path(__file__).with_name('model_card.md')  # of Jinja, which torch depends on

# arguments of train.py that decide what the weights are; no paths, accounts or machines
RECIPE = (
    'dataset', 'epochs', 'batch_size', 'grad_accum_steps', 'world_size', 'opt', 'lr', 'lr_base', 'lr_base_size',
    'momentum', 'weight_decay', 'clip_grad', 'layer_decay', 'sched', 'sched_on_updates', 'warmup_epochs', 'warmup_lr',
    'min_lr', 'cooldown_epochs', 'img_size', 'input_size', 'train_crop_mode', 'scale', 'ratio', 'hflip', 'vflip',
    'color_jitter', 'aa', 'aug_repeats', 'reprob', 'remode', 'mixup', 'cutmix', 'mixup_mode', 'mixup_off_epoch',
    'smoothing', 'bce_loss', 'drop', 'drop_path', 'drop_block', 'bn_momentum', 'model_ema', 'model_ema_decay',
    'model_ema_warmup', 'amp', 'amp_dtype', 'pretrained', 'kd_model_name', 'kd_teacher', 'kd_loss_type',
    'kd_temperature', 'distill_loss_weight', 'task_loss_weight', 'seed',
)
# arguments with a default that has no effect unless one of the others is set
EFFECT = {
    'remode': ('reprob',), 'mixup_mode': ('mixup', 'cutmix'), 'amp_dtype': ('amp',), 'kd_loss_type': ('kd_model_name',),
    'kd_temperature': ('kd_model_name',), 'distill_loss_weight': ('kd_model_name',),
    'task_loss_weight': ('kd_model_name',), 'model_ema_decay': ('model_ema',), 'model_ema_warmup': ('model_ema',),
}


FEW_NAMES = 20  # class names that a card lists; of more it has the first five


class Result(NamedTuple):
    """One metric, measured on these weights.

    ``dataset`` is a well-known name, or empty; only results with a name go into the header's model-index.
    """

    metric: str
    value: float
    protocol: str
    command: str
    dataset: str = ''


def is_registered_here(architecture: str) -> bool:
    """Return whether this package registers the architecture, so that timm needs ``import timm_assemble``."""
    return architecture in registered_models()


def from_pretrained(source: str) -> str:
    """Return the arguments of transformers' ``from_pretrained`` for a source of ``create_model``."""
    location, at, revision = source.partition(':')[2].partition('@' if source.startswith('hf-hub:') else '\n')
    return f"'{location}'" + (f", revision='{revision}'" if at else '')


def fold(value: Any) -> str:
    """Return a value as one line: values from files must not add lines to a card or a message."""
    return ' '.join(str(value).split())


def _gmacs(model: nn.Module, size: Sequence[int]) -> float:
    """Return the multiply-adds of one image in billions, counted with a copy on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    copied = copy.deepcopy(model).to('meta').eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copied(torch.empty(1, *size, device='meta', dtype=next(copied.parameters()).dtype))
    return counter.get_total_flops() / 2e9


def _teacher(name: str) -> str:
    """Return train.py's name of a teacher without its path on a disk."""
    kind, colon, _ = name.partition(':')
    if not colon or kind in ('hf-hub', 'hf_hub'):
        return name
    return {'logits': 'stored logits of a teacher', 'local-dir': 'a model from a folder'}.get(kind, kind)


def _recipe(recipe: Mapping[str, Any]) -> Dict[str, str]:
    """Return the arguments that are set and have an effect, each as one line."""
    given = {k: recipe[k] for k in RECIPE if recipe.get(k) not in (None, '', False, 0, [], {})}
    if 'kd_model_name' in given:
        given['kd_model_name'] = _teacher(str(given['kd_model_name']))
    return {k: fold(v) for k, v in given.items() if any(needed in given for needed in EFFECT.get(k, (k,)))}


def model_card(
        model: Any,
        source: str,
        *,
        title: str = '',
        description: str = '',
        weights: str = '',
        model_args: Optional[Mapping[str, Any]] = None,
        recipe: Optional[Mapping[str, Any]] = None,
        datasets: Sequence[str] = (),
        results: Sequence[Result] = (),
        license_id: str = '',
) -> str:
    """Return the text of a model card, README.md of a folder in Hugging Face format.

    Args:
        model: A model with timm's ``pretrained_cfg`` on any device, meta included. It is not changed.
        source: What ``create_model`` loads: ``'hf-hub:user/name'`` or ``'local-dir:folder'``.
        title: Heading; by default the last part of ``source``.
        description: What the model is and where its weights come from, in Markdown.
        weights: Which weights these are, where there is a choice.
        model_args: Constructor arguments beside the registered ones, as in config.json.
        recipe: Arguments of timm's train.py (its args.yaml). Those that do not decide the weights are left out.
        datasets: Names of datasets on the Hub.
        results: Metrics measured on these weights.
        license_id: The Hub's name of the license; by default the architecture's, or Apache-2.0.

    Raises:
        UserError: ``source`` has another form.
    """
    if not re.fullmatch(r"(hf-hub|local-dir):[^'\n\r]+", source):
        raise UserError(f"source must be 'hf-hub:user/name' or 'local-dir:folder', got {source!r}.")
    cfg = model.pretrained_cfg
    registered_here = is_registered_here(cfg['architecture'])
    title = fold(title) or source.partition(':')[2].partition('@')[0].rpartition('/')[2]
    results = [Result(fold(r.metric), r.value, fold(r.protocol), fold(r.command), fold(r.dataset)) for r in results]
    channels, *train = cfg['input_size']
    test = [*(cfg.get('test_input_size') or cfg['input_size'])][1:]
    gmacs = _gmacs(model, (channels, *test))
    listed = [EvalResult(
        task_type='image-classification', task_name='Image classification', dataset_name=r.dataset,
        dataset_type=r.dataset.lower().replace(' ', '-'), metric_type='accuracy', metric_value=round(r.value, 4),
        metric_name=f'{r.metric} (%), {r.protocol}') for r in results if r.dataset]
    metadata = ModelCardData(  # the header, which the Hub reads
        library_name='timm', tags=['image-classification', 'timm'] + ['timm_assemble'] * registered_here,
        pipeline_tag='image-classification', license=fold(license_id or cfg.get('license') or 'apache-2.0'),
        datasets=[fold(name) for name in datasets] or None, metrics=['accuracy'] if results else None,
        model_name=title if listed else None, eval_results=listed or None)
    card = ModelCard.from_template(
        metadata, template_path=str(TEMPLATE), title=title, source=source, registered_here=registered_here, cfg=cfg,
        install=INSTALL, from_pretrained=from_pretrained(source),
        auto_class='AutoModelForImageClassification' if model.num_classes else 'AutoModel',
        description=description, model_args=fold(', '.join(f'{k}={v!r}' for k, v in (model_args or {}).items())),
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        gmacs=f'{gmacs:.2f}' if gmacs >= 1 else f'{gmacs:.2g}', channels=channels, train=train, test=test,
        crop=f'{cfg.get("test_crop_pct") or cfg["crop_pct"]:.4g}', interpolation=fold(cfg['interpolation']),
        mean=', '.join(f'{v:.5g}' for v in cfg['mean']), std=', '.join(f'{v:.5g}' for v in cfg['std']),
        num_classes=model.num_classes, names=[fold(name).replace('`', "'") for name in cfg.get('label_names') or ()],
        few=FEW_NAMES, weights=fold(weights), recipe=_recipe(recipe or {}), results=results,
        mode={1: 'L', 3: 'RGB'}.get(channels))
    return f'{card}\n'
