"""Conversion of a checkpoint to a model folder in Hugging Face format, with a report of every entry's origin."""
import json
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import timm

from ..errors import UserError
from ..hub.model_card import Result, model_card
from ..hub.save import save_model
from ..layers import AntiAlias2d
from ..models.assemble_resnet import AssembleResNet
from ..data.preprocessing import input_channels
from ..runtime.atomic import atomic_folder
from .tf_checkpoint import CheckpointVariables
from .tf_names import MisfitError, state_dict_from_tf, tf_names
from .variants import Variant, infer_variant

__all__ = ['Conversion', 'convert', 'write']

SHOWN_PROBLEMS = 3


@dataclass
class Conversion:
    """A model in eval mode with a checkpoint's weights, its variant, and the content of conversion.json."""

    model: AssembleResNet
    variant: Variant
    report: Dict[str, Any]

    def summary(self) -> str:
        """Return the report as lines for the terminal."""
        used = len(self.report['variables'])
        skipped = ', '.join(f'{n} {leaf}' for leaf, n in self.report['skipped'].items())
        args = ''.join(f', {k}={v!r}' for k, v in self.variant.model_args.items())
        settings = ', '.join(f'{k}={v!r}' for k, v in self.report['model']['not_in_the_checkpoint'].items())
        lines = [
            f'inferred: {self.variant.inferred}',
            f"model: create_model('{self.variant.name}'{args})",
            f'not in the checkpoint: {settings}',
            f'variables used: {used} of {used}; skipped: {skipped or "none"}',
        ]
        if self.report['dropped']:
            lines.append(f'dropped: {self.report["dropped"]}')
        return '\n'.join(lines)


def _not_in_the_checkpoint(model: AssembleResNet) -> Dict[str, Any]:
    """Return the model's settings that have no variables."""
    blurs = [m.filt_size for m in model.modules() if isinstance(m, AntiAlias2d)]
    stage3, stage4 = (model.feature_info[i]['reduction'] for i in (-2, -1))
    return dict(
        aa_size=blurs[0] if blurs else 0, global_pool=model.global_pool.pool_type, last_stride=stage4 // stage3)


def convert(
        variables: CheckpointVariables,
        name: Optional[str] = None,
        model_args: Optional[Mapping[str, Any]] = None,
        keep_classes: bool = False,
) -> Conversion:
    """Create the model of a checkpoint and load its variables, each read once.

    Args:
        variables: The checkpoint's variables.
        name, model_args, keep_classes: As in :func:`infer_variant`.

    Raises:
        UserError: The variables fit no variant, or not exactly; in one line.
    """
    variant = infer_variant(variables.shapes, name, model_args, keep_classes)
    cfg = timm.get_pretrained_cfg(variant.name)
    assert cfg is not None  # it is registered
    model: Any = timm.create_model(
        variant.name, device='meta', pretrained_cfg_overlay=input_channels(cfg.to_dict(), variant.inferred.in_chans),
        **variant.model_args).eval()
    try:
        state = state_dict_from_tf(variables, model)
    except MisfitError as e:
        more = f'; and {len(e.problems) - SHOWN_PROBLEMS} more' if len(e.problems) > SHOWN_PROBLEMS else ''
        raise UserError(
            f'variables must fit {variant.name}, got {"; ".join(e.problems[:SHOWN_PROBLEMS])}{more}') from e
    model.load_state_dict(state, assign=True)
    background = variant.inferred.num_classes != model.num_classes
    report = dict(
        source=variables.describe_files(),
        model=dict(
            name=variant.name, model_args=variant.model_args, inferred=variant.inferred._asdict(),
            not_in_the_checkpoint=_not_in_the_checkpoint(model)),
        variables=[dict(variable=v, **variables.read[v], entry=e) for e, v in tf_names(model).items()],
        skipped=dict(variables.skipped.most_common()),
        dropped='class 0 ("background") of dense/kernel and dense/bias' if background else None,
        versions={p: metadata.version(p) for p in ('timm_assemble', 'timm', 'torch', 'numpy', 'safetensors')}
        | dict(tensorflow=variables.version, python=platform.python_version()),
    )
    return Conversion(model, variant, report)


def _card(conversion: Conversion, folder: str, results: Sequence[Result]) -> str:
    """Return the model card, which names the origin of the weights."""
    source = ', '.join(f'`{f["file"]}` (SHA-256 {f["sha256"]})' for f in conversion.report['source'])
    return model_card(
        conversion.model, f'local-dir:{folder}', model_args=conversion.variant.model_args, results=results,
        description=f'Weights of a TensorFlow checkpoint, converted by `timm-assemble convert` from {source}; '
                    '`conversion.json` names the origin of every entry.')


def _json(report: Mapping[str, Any]) -> str:
    """Return the report as JSON with one line per variable."""
    rows = ',\n  '.join(json.dumps(variable) for variable in report['variables'])
    text = json.dumps({**report, 'variables': []}, indent=1) + '\n'
    return text.replace('"variables": []', f'"variables": [\n  {rows}\n ]', 1)


def write(conversion: Conversion, output: Path, force: bool = False, results: Sequence[Result] = ()) -> None:
    """Write config.json, model.safetensors, README.md and conversion.json atomically.

    Args:
        conversion: From :func:`convert`.
        output: Folder to create.
        force: Replace ``output`` if it is the folder of a model.
        results: Measured accuracy, for the model card and the report.

    Raises:
        UserError: ``output`` must not be replaced.
        OSError: The folder cannot be written.
    """
    with atomic_folder(output, force) as folder:
        save_model(conversion.model, folder, conversion.variant.model_args)
        conversion.report['results'] = [result._asdict() for result in results]
        (folder / 'conversion.json').write_text(_json(conversion.report))
        (folder / 'README.md').write_text(_card(conversion, output.name, results))
