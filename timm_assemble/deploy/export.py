"""Export a trained model to a file that runs without its Python code: torch program, compiled package or ONNX."""
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import torch
from torch import nn

from ..utils.atomic import atomic_file
from .fold import fold_for_inference

__all__ = ['FORMATS', 'check_output', 'export_model', 'load_exported']

FORMATS = ('program', 'package', 'onnx')
METADATA_FILE = 'metadata.json'  # inside a program


def _as_strings(metadata: Mapping[str, Any]) -> Dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}


def _save_program(program: Any, path: str, metadata: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        # torch.export.save warns about the strides of channels-last weights, which it restores correctly
        warnings.filterwarnings('ignore', 'No complete tensor found in the group')
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata)})


def _save_package(program: Any, path: str, metadata: Mapping[str, Any]) -> None:
    configs = {'freezing': True, 'aot_inductor.metadata': _as_strings(metadata)}
    torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=configs)


def _save_onnx(program: Any, path: str, metadata: Mapping[str, Any]) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter warns about its own deprecated code
        exported: Any = torch.onnx.export(
            program, (), input_names=['images'], output_names=['logits'], dynamo=True, verbose=False)
    model = exported.model_proto
    onnx.helper.set_model_props(model, _as_strings(metadata))
    onnx.save(model, path)


SAVERS: Dict[str, Callable] = {'program': _save_program, 'package': _save_package, 'onnx': _save_onnx}


def check_output(output: Path, format: str, force: bool = False) -> None:
    """Check before long work that a file can be exported.

    Raises:
        ValueError: ``output`` exists without ``force`` or cannot be written, or a library is missing.
    """
    if output.is_dir():
        raise ValueError(f'output must be a file, got the folder {output}')
    if output.exists() and not force:
        raise ValueError(f'output must not exist without `force`, got {output}')
    folder = output.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError(f'output must be in a folder that exists and can be written to, got {output}')
    if format == 'onnx':
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            if importlib.util.find_spec(name) is None:
                raise ValueError(f"format 'onnx' needs {name}: pip install 'timm-assemble[export]'")


def export_model(
        model: nn.Module,
        output: Path,
        example_size: Sequence[int],
        format: str = 'program',
        dtype: Optional[torch.dtype] = None,
        any_batch: bool = True,
        any_size: bool = False,
        metadata: Optional[Mapping[str, Any]] = None,
) -> None:
    """Write a model, folded and cast as by ``optimize_for_inference``, to a file; the file is written atomically.

    Args:
        model: In eval mode.
        output: File to write or to replace.
        example_size: ``(B, C, H, W)``; the file is fixed to it but for what ``any_batch`` and ``any_size`` free.
        format: ``'program'``, a torch.export program for any machine with torch; ``'package'``, compiled by AOTInductor
            for this kind of processor, which needs no compiler where it runs; or ``'onnx'``.
        dtype: Of the weights, as in ``optimize_for_inference``; images and logits are float32.
        any_batch: Whether the file accepts any batch size.
        any_size: Whether the file accepts any height and width.
        metadata: JSON values by name, stored in the file; for instance, how images must be preprocessed.

    Raises:
        ValueError: As for ``optimize_for_inference``, or an unknown ``format``.
        ImportError: ``'onnx'`` without the extra ``[export]``.
    """
    if format not in FORMATS:
        raise ValueError(f'format must be one of {FORMATS}, got {format!r}.')
    folded = fold_for_inference(model, example_size, dtype)
    batch = max(2, example_size[0]) if any_batch else example_size[0]  # torch.export takes a size of 1 for a constant
    example = torch.zeros(batch, *example_size[1:], device=next(folded.parameters()).device)
    axes = (0,) * any_batch + (2, 3) * any_size
    with atomic_file(output) as path, torch.no_grad():
        program = torch.export.export(
            folded, (example,), dynamic_shapes=({axis: torch.export.Dim.DYNAMIC for axis in axes},))
        SAVERS[format](program, str(path), metadata or {})


def load_exported(path: Path, format: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load an exported file as a callable from images to logits, with the lines of docs/deployment.md."""
    if format == 'program':
        return torch.export.load(path).module()
    if format == 'package':
        return torch._inductor.aoti_load_package(str(path))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {'images': x.numpy()})[0])
