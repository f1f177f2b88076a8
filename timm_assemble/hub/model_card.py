"""The model card: what a stranger who finds a model on the Hugging Face Hub has to know, as text.

Knows the model, timm's registry and the Hub's YAML header, and nothing of training, conversion or evaluation: what
these have to say is given to it.
"""
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import timm
import torch
from torch import nn

__all__ = ['Result', 'is_registered_here', 'model_card']

# of train.py's arguments, those that make the weights what they are; no paths, no accounts, no machines
RECIPE = (
    'dataset', 'epochs', 'batch_size', 'grad_accum_steps', 'world_size', 'opt', 'lr', 'lr_base', 'lr_base_size',
    'momentum', 'weight_decay', 'clip_grad', 'layer_decay', 'sched', 'sched_on_updates', 'warmup_epochs', 'warmup_lr',
    'min_lr', 'cooldown_epochs', 'img_size', 'input_size', 'train_crop_mode', 'scale', 'ratio', 'hflip', 'vflip',
    'color_jitter', 'aa', 'aug_repeats', 'reprob', 'remode', 'mixup', 'cutmix', 'mixup_mode', 'mixup_off_epoch',
    'smoothing', 'bce_loss', 'drop', 'drop_path', 'drop_block', 'bn_momentum', 'model_ema', 'model_ema_decay',
    'model_ema_warmup', 'amp', 'amp_dtype', 'pretrained', 'kd_model_name', 'kd_loss_type', 'kd_temperature',
    'distill_loss_weight', 'task_loss_weight', 'seed',
)
# what has a default and no effect unless one of the others is set
EFFECT = {
    'remode': ('reprob',), 'mixup_mode': ('mixup', 'cutmix'), 'amp_dtype': ('amp',), 'kd_loss_type': ('kd_model_name',),
    'kd_temperature': ('kd_model_name',), 'distill_loss_weight': ('kd_model_name',),
    'task_loss_weight': ('kd_model_name',), 'model_ema_decay': ('model_ema',), 'model_ema_warmup': ('model_ema',),
}


class Result(NamedTuple):
    """One measured figure; what nobody measured on these weights has no place on a card.

    ``dataset`` is a name people know, or empty; only with it does the figure go into the header's model-index.
    """

    metric: str
    value: float
    protocol: str
    command: str
    dataset: str = ''


def is_registered_here(architecture: str) -> bool:
    """Whether timm has the architecture from this package, and knows it only after ``import timm_assemble``."""
    return architecture in timm.list_models(module='assemble_resnet')


def _gmacs(model: nn.Module, size: Sequence[int]) -> float:
    """Multiply-adds of one picture in billions, counted on shapes alone: neither weights nor modes are touched."""
    from torch.utils.flop_counter import FlopCounterMode

    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    shapes = {name: torch.empty_like(tensor, device='meta') for name, tensor in tensors.items()}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(model, shapes, (torch.empty(1, *size, device='meta', dtype=dtype),))
    finally:
        for module in training:
            module.training = True
    return counter.get_total_flops() / 2e9


def _header(title: str, datasets: Sequence[str], results: Sequence[Result], license_id: str, ours: bool) -> str:
    import yaml

    header: Dict[str, Any] = dict(
        library_name='timm', tags=['image-classification', 'timm'] + ['timm_assemble'] * ours,
        pipeline_tag='image-classification', license=license_id)
    if datasets:
        header['datasets'] = [*datasets]
    if results:
        header['metrics'] = ['accuracy']
    listed = [r for r in results if r.dataset]
    if listed:
        header['model-index'] = [dict(name=title, results=[dict(
            task=dict(type='image-classification', name='Image classification'),
            dataset=dict(name=r.dataset, type=r.dataset.lower().replace(' ', '-')),
            metrics=[dict(type='accuracy', value=round(r.value, 4), name=f'{r.metric} (%), {r.protocol}')],
        ) for r in listed])]
    return f'---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=1000)}---\n'


def _import(ours: bool) -> str:
    return 'import timm_assemble  # registers the architecture with timm\n' * ours


def _first_lines(source: str) -> str:
    return (
        '> **Import `timm_assemble` first.** The architecture is a plugin of timm: timm alone, as in the code that the '
        'Hub shows by itself, fails with "Unknown model". After `pip install timm-assemble`:\n>\n'
        '> ```python\n> import timm\n> import timm_assemble\n'
        f"> model = timm.create_model('{source}', pretrained=True)\n> ```\n\n")


def _model(model: Any, model_args: Mapping[str, Any], weights: str) -> List[str]:
    cfg = model.pretrained_cfg
    channels, *train = cfg['input_size']
    test = [*(cfg.get('test_input_size') or cfg['input_size'])][1:]
    args = ', '.join(f'{k}={v!r}' for k, v in model_args.items())
    numbers = {key: '(' + ', '.join(f'{v:.5g}' for v in cfg[key]) + ')' for key in ('mean', 'std')}
    parameters = sum(p.numel() for p in model.parameters())
    gmacs = _gmacs(model, (channels, *test))
    crop = cfg.get('test_crop_pct') or cfg['crop_pct']
    lines = [
        f'**Architecture**: `{cfg["architecture"]}`' + (f' with `{args}`' if args else ''),
        f'**Parameters**: {parameters / 1e6:.2f} M',
        f'**GMACs**: {f"{gmacs:.2f}" if gmacs >= 1 else f"{gmacs:.2g}"} at {test[0]} x {test[1]}',
        f'**Input**: {channels} x {train[0]} x {train[1]} in training, {test[0]} x {test[1]} in tests; '
        f'crop {crop:.4g}, {cfg["interpolation"]}, mean {numbers["mean"]}, std {numbers["std"]} of values from 0 to 1',
        f'**Classes**: {model.num_classes or "none, it gives features"}',
    ]
    if weights:
        lines.append(f'**Weights**: {weights}')
    if is_registered_here(cfg['architecture']):
        lines.append('**Paper**: Compounding the Performance Improvements of Assembled Techniques in a Convolutional '
                     'Neural Network, [arXiv 2001.06268](https://arxiv.org/abs/2001.06268)')
    return lines


def _teacher(name: str) -> str:
    """A teacher as train.py was told of it, without the place on somebody's disk: a store of logits, a folder."""
    kind, colon, _ = name.partition(':')
    if not colon or kind in ('hf-hub', 'hf_hub'):
        return name
    return {'logits': 'stored logits of a teacher', 'local-dir': 'a model from a folder'}.get(kind, kind)


def _recipe(recipe: Mapping[str, Any]) -> str:
    given = {k: recipe[k] for k in RECIPE if recipe.get(k) not in (None, '', False, 0, [], {})}
    if 'kd_model_name' in given:
        given['kd_model_name'] = _teacher(str(given['kd_model_name']))
    shown = {k: v for k, v in given.items() if any(needed in given for needed in EFFECT.get(k, (k,)))}
    rows = ''.join(f'| `{k}` | {v} |\n' for k, v in shown.items())
    return ("\n## Training\n\nBy timm's `train.py`, of whose arguments these are set:\n\n"
            f'| argument | value |\n|---|---|\n{rows}')


def _results(results: Sequence[Result]) -> str:
    if not results:
        return '\n## Results\n\nNothing has been measured on these weights.\n'
    rows = ''.join(
        f'| {r.metric} | {r.value:.2f} | {r.dataset or "-"} | {r.protocol} | `{r.command}` |\n' for r in results)
    return '\n## Results\n\n| measured | % | on | protocol | command |\n|---|--:|---|---|---|\n' + rows


def _usage(model: Any, source: str, ours: bool) -> str:
    channels = model.pretrained_cfg['input_size'][0]
    mode = {1: 'L', 3: 'RGB'}.get(channels)
    code = f'import timm\n{_import(ours)}import torch\n'
    if mode:
        code += 'from PIL import Image\n'
    code += f"\nmodel = timm.create_model('{source}', pretrained=True).eval()\n"
    if mode:
        code += (
            'transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model, use_test_size=True))\n'
            f"# yours: image = Image.open('picture.jpg').convert('{mode}')\n"
            f"image = Image.radial_gradient('L').convert('{mode}')\n"
            'x = transform(image).unsqueeze(0)\n')
    else:
        code += (
            'config = timm.data.resolve_model_data_config(model, use_test_size=True)\n'
            "# yours: from 0 to 1, less config['mean'], divided by config['std']\n"
            "x = torch.rand(1, *config['input_size'])\n")
    if model.num_classes:
        code += (
            '\n# classification\nwith torch.inference_mode():\n    probabilities = model(x)[0].softmax(0)\n'
            "names = model.pretrained_cfg.get('label_names') or range(model.num_classes)\n"
            f'for i in probabilities.topk({min(5, model.num_classes)}).indices.tolist():\n'
            "    print(f'class {names[i]}: {probabilities[i]:.1%}')\n")
    return code + (
        '\n# an embedding: what the classifier sees\nwith torch.inference_mode():\n'
        '    embedding = model.forward_head(model.forward_features(x), pre_logits=True)\n'
        "print('embedding', tuple(embedding.shape))\n"
        '\n# maps of every scale, for detection and segmentation\n'
        f"backbone = timm.create_model('{source}', pretrained=True, features_only=True).eval()\n"
        'with torch.inference_mode():\n    maps = backbone(x)\n'
        'for reduction, features in zip(backbone.feature_info.reduction(), maps):\n'
        "    print('stride', reduction, tuple(features.shape))\n")


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
    """The card's text, README.md of a folder in the Hub's form.

    Args:
        model: The model, on any device (the meta device will do), with timm's ``pretrained_cfg``; it is left as it was.
        source: What ``create_model`` is to be given: ``'hf-hub:user/name'`` or ``'local-dir:folder'``.
        title: Heading; by default the last part of ``source``.
        description: What it is and where the weights come from, in Markdown.
        weights: Which weights these are, where there is a choice.
        model_args: Constructor arguments beside the registered ones, as in config.json.
        recipe: The arguments of timm's train.py (its args.yaml); what says nothing of the weights is left out.
        datasets: Names of the data on the Hub.
        results: What was measured on these weights.
        license_id: The Hub's name of the licence; by default the architecture's, or Apache-2.0.

    Raises:
        ValueError: ``source`` is of another form.
    """
    if not source.startswith(('hf-hub:', 'local-dir:')) or "'" in source:
        raise ValueError(f"source must be 'hf-hub:user/name' or 'local-dir:folder', got {source!r}.")
    cfg = model.pretrained_cfg
    ours = is_registered_here(cfg['architecture'])
    title = title or source.partition(':')[2].partition('@')[0].rpartition('/')[2]
    text = _header(title, datasets, results, license_id or cfg.get('license') or 'apache-2.0', ours)
    text += f'# {title}\n\n' + (_first_lines(source) if ours else '')
    text += f'{description}\n\n' if description else ''
    text += '## Model\n\n' + ''.join(f'- {line}\n' for line in _model(model, model_args or {}, weights))
    text += _recipe(recipe) if recipe else ''
    text += _results(results)
    install = 'timm-assemble' if ours else 'timm'
    return text + f'\n## Usage\n\n```\npip install {install}\n```\n\n```python\n{_usage(model, source, ours)}```\n'
