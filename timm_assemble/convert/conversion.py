"""From a checkpoint to a model's folder in the Hugging Face Hub's form, with a report of where every entry came from.

Knows the reader, the inference of the variant, the name table, the model card, and timm's way of saving.
"""
import hashlib
import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import timm
import torch
from safetensors import safe_open
from timm.models import save_for_hf

from ..hub.model_card import Result, model_card
from ..layers import AntiAlias2d
from ..models.assemble_resnet import AssembleResNet
from ..models.pretrained_cfg import input_channels
from ..utils.atomic import atomic_folder
from .tf_checkpoint import CheckpointVariables
from .tf_names import MisfitError, state_dict_from_tf, tf_names
from .variants import Variant, infer_variant

__all__ = ['Conversion', 'convert', 'write']

SHOWN_PROBLEMS = 3


@dataclass
class Conversion:
    """A model with a checkpoint's weights, in eval mode, and what is to be told of it."""

    model: AssembleResNet
    variant: Variant
    report: Dict[str, Any]

    def summary(self) -> str:
        """What was done, for a person."""
        used, aside = len(self.report['variables']), self.report['set_aside']
        args = ''.join(f', {k}={v!r}' for k, v in self.variant.model_args.items())
        unseen = ', '.join(f'{k}={v!r}' for k, v in self.report['model']['not_in_the_checkpoint'].items())
        lines = [
            f'seen: {self.variant.seen}',
            f"model: create_model('{self.variant.name}'{args})",
            f'not in the checkpoint, by the model or as given: {unseen}',
            f'variables used: {used} of {used}; set aside: '
            + (', '.join(f'{n} {leaf}' for leaf, n in aside.items()) or 'none'),
        ]
        if self.report['dropped']:
            lines.append(f'dropped: {self.report["dropped"]}')
        return '\n'.join(lines)


def _not_seen(model: AssembleResNet) -> Dict[str, Any]:
    """The model's settings that have no variables."""
    blurs = [m.filt_size for m in model.modules() if isinstance(m, AntiAlias2d)]
    stage3, stage4 = (model.feature_info[i]['reduction'] for i in (-2, -1))
    return dict(
        aa_size=blurs[0] if blurs else 0, global_pool=model.head.global_pool.pool_type, last_stride=stage4 // stage3)


def convert(
        variables: CheckpointVariables,
        name: Optional[str] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        keep_classes: bool = False,
) -> Conversion:
    """Make the model that a checkpoint is of and fill it; each variable is read once, and only the weights are kept.

    Args:
        variables: The checkpoint's.
        name, model_args, keep_classes: As in :func:`infer_variant`.

    Raises:
        ValueError: The variables fit no variant, or not every one of them is used and every entry filled; in one line.
    """
    variant = infer_variant(variables.shapes, name, model_args, keep_classes)
    cfg = timm.get_pretrained_cfg(variant.name)
    assert cfg is not None  # it is registered
    model: Any = timm.create_model(
        variant.name, device='meta', pretrained_cfg_overlay=input_channels(cfg.to_dict(), variant.seen.in_chans),
        **variant.model_args).eval()
    try:
        state = state_dict_from_tf(variables, model)
    except MisfitError as e:
        more = f'; and {len(e.problems) - SHOWN_PROBLEMS} more' if len(e.problems) > SHOWN_PROBLEMS else ''
        raise ValueError(
            f'the variables do not fit {variant.name}: {"; ".join(e.problems[:SHOWN_PROBLEMS])}{more}') from e
    model.load_state_dict(state, assign=True)
    background = variant.seen.num_classes != model.num_classes
    report = dict(
        source=variables.describe_files(),
        model=dict(
            name=variant.name, model_args=variant.model_args, seen=variant.seen._asdict(),
            not_in_the_checkpoint=_not_seen(model)),
        variables=[dict(variable=v, **variables.read[v], entry=e) for e, v in tf_names(model).items()],
        set_aside=dict(variables.set_aside.most_common()),
        dropped='class 0 ("background") of dense/kernel and dense/bias' if background else None,
        versions={p: metadata.version(p) for p in ('timm_assemble', 'timm', 'torch', 'numpy', 'safetensors')}
        | dict(tensorflow=variables.version, python=platform.python_version()),
    )
    return Conversion(model, variant, report)


def _card(conversion: Conversion, folder: str, results: Sequence[Result]) -> str:
    """The model card, which says where the weights come from."""
    source = ', '.join(f'`{f["file"]}` (SHA-256 {f["sha256"]})' for f in conversion.report['source'])
    return model_card(
        conversion.model, f'local-dir:{folder}', model_args=conversion.variant.model_args, results=results,
        description=f'Weights of a TensorFlow checkpoint, converted by `timm-assemble convert` from {source}; '
                    '`conversion.json` says where every entry came from.')


def _check_written(weights: Path, model: AssembleResNet, variables: List[Dict[str, Any]]) -> None:
    """Read the file back, compare it with the model, and note each entry's shape and checksum."""
    state = model.state_dict()
    with safe_open(str(weights), 'pt') as file:
        if set(file.keys()) != set(state):
            raise OSError(f'{weights.name} read back has other entries than were written')
        for variable in variables:
            tensor = file.get_tensor(variable['entry'])
            if not torch.equal(tensor, state[variable['entry']]):
                raise OSError(f'{weights.name} read back has other values than were written')
            variable.update(
                entry_shape=[*tensor.shape], entry_sha256=hashlib.sha256(tensor.contiguous().numpy()).hexdigest())


def _json(report: Mapping[str, Any]) -> str:
    """The report with a line for each variable."""
    rows = ',\n  '.join(json.dumps(variable) for variable in report['variables'])
    text = json.dumps({**report, 'variables': []}, indent=1) + '\n'
    return text.replace('"variables": []', f'"variables": [\n  {rows}\n ]', 1)


def write(conversion: Conversion, output: Path, force: bool = False, results: Sequence[Result] = ()) -> None:
    """Write config.json, model.safetensors, README.md and conversion.json, all of them or nothing.

    Args:
        conversion: What :func:`convert` gave; its report gets each entry's shape and checksum, read back from the file.
        output: Folder to make.
        force: Replace a folder of a model.
        results: Measured accuracy, for card and report.

    Raises:
        ValueError: The folder must not be replaced.
        OSError: It cannot be written, or what is read back is not what was written.
    """
    with atomic_folder(output, force) as made:
        save_for_hf(conversion.model, str(made), safe_serialization=True, model_args=conversion.variant.model_args)
        _check_written(made / 'model.safetensors', conversion.model, conversion.report['variables'])
        conversion.report['results'] = [result._asdict() for result in results]
        (made / 'model.safetensors').chmod((made / 'config.json').stat().st_mode)  # written for the owner alone
        (made / 'conversion.json').write_text(_json(conversion.report))
        (made / 'README.md').write_text(_card(conversion, output.name, results))
