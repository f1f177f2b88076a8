"""A trained model as a file that runs without its Python code: a torch program, a compiled package, or ONNX.

Knows the fast form (deploy), torch's exporters, and nothing of where the model comes from.
"""
import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import torch
from torch import nn

from .optimize import OptimizedModel, fold_for_inference
from .winograd import use_winograd

__all__ = ['FORMATS', 'check_output', 'export_model', 'load_exported']

FORMATS = ('program', 'package', 'onnx')
SUFFIXES = {'program': '.pt2', 'package': '.pt2', 'onnx': '.onnx'}
NOTES = 'notes.json'  # the file inside a program that the notes are in


def _save_program(program: Any, path: str, notes: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        # of channels-last weights, whose order in memory is not a plain tensor's; they are read back as they were
        warnings.filterwarnings('ignore', 'No complete tensor found in the group')
        torch.export.save(program, path, extra_files={NOTES: json.dumps(notes)})


def _save_package(program: Any, path: str, notes: Mapping[str, Any]) -> None:
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in notes.items()}
    configs = {'freezing': True, 'aot_inductor.metadata': metadata}
    torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=configs)


def _save_onnx(program: Any, path: str, notes: Mapping[str, Any]) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter's, about itself
        exported: Any = torch.onnx.export(
            program, (), input_names=['pictures'], output_names=['logits'], dynamo=True, verbose=False)
    model = exported.model_proto
    onnx.helper.set_model_props(model, {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in notes.items()})
    onnx.save(model, path)


SAVERS: Dict[str, Callable[[Any, str, Mapping[str, Any]], None]] = {
    'program': _save_program, 'package': _save_package, 'onnx': _save_onnx}


def check_output(path: Path, format: str, force: bool = False) -> None:
    """Whether a file can be made here, to be asked before long work.

    Raises:
        ValueError: It is there and ``force`` is not given, its folder cannot be written to, or a library is missing.
    """
    if path.is_dir():
        raise ValueError(f'OUTPUT must be a file, and {path} is a folder')
    if path.exists() and not force:
        raise ValueError(f'OUTPUT must be a new file, or be given --force; {path} is there')
    folder = path.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ValueError(f'OUTPUT {path} cannot be made: {folder} is no folder that can be written to')
    if format == 'onnx':
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            if importlib.util.find_spec(name) is None:
                raise ValueError(f"*.onnx needs {name}: pip install 'timm-assemble[export]'")


def _dynamic_shapes(size: Sequence[int], any_batch: bool, any_size: bool) -> Any:
    free = [any_batch, False, any_size, any_size]
    return ({axis: torch.export.Dim.DYNAMIC for axis in range(4) if free[axis]},)


def export_model(
        model: nn.Module,
        path: Path,
        example_size: Sequence[int],
        format: str = 'program',
        dtype: Optional[torch.dtype] = None,
        any_batch: bool = True,
        any_size: bool = False,
        notes: Optional[Mapping[str, Any]] = None,
) -> None:
    """Write a model, folded and cast as by ``optimize_for_inference``, to a file; it comes whole or not at all.

    Args:
        model: In eval mode.
        path: File to write; what stands there is replaced.
        example_size: ``(B, C, H, W)``; what is not free is fixed to it.
        format: ``'program'``, a torch.export program for any machine with torch; ``'package'``, compiled by AOTInductor
            for this kind of processor, which needs no compiler where it runs; or ``'onnx'``.
        dtype: Of the weights, as in ``optimize_for_inference``; pictures and logits are float32.
        any_batch: Whether any number of pictures can be given.
        any_size: Whether pictures of any size can be given.
        notes: Said in the file, JSON values by name: what the pictures must be, say.

    Raises:
        ValueError: As for ``optimize_for_inference``; unknown ``format``.
        ImportError: ``'onnx'`` without the extra ``[export]``.
    """
    if format not in FORMATS:
        raise ValueError(f'format must be one of {FORMATS}, got {format!r}.')
    folded: OptimizedModel = fold_for_inference(model, example_size, dtype)
    batch = max(2, example_size[0]) if any_batch else example_size[0]  # one picture would be taken for a constant
    device = next(folded.parameters()).device
    example = torch.zeros(batch, *example_size[1:], device=device)
    if format == 'package':
        use_winograd(folded, example)
    new = path.with_name(f'.{path.stem}.{os.getpid()}.new{SUFFIXES[format]}')
    try:
        with torch.no_grad():
            program = torch.export.export(
                folded, (example,), dynamic_shapes=_dynamic_shapes(example_size, any_batch, any_size))
            SAVERS[format](program, str(new), notes or {})
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def load_exported(path: Path, format: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The callable of an exported file, from pictures to logits, as the lines of docs/deployment.md load it."""
    if format == 'program':
        return torch.export.load(path).module()
    if format == 'package':
        return torch._inductor.aoti_load_package(str(path))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {'pictures': x.numpy()})[0])
