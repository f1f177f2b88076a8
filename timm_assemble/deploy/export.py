"""Export a trained model to a file that runs without its Python code: torch program, compiled package or ONNX."""
import importlib.util
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ..errors import UserError, error_line, install_extra
from ..runtime.atomic import atomic_file
from .fold import fold_for_inference
from .graph import AXES, DeployedModel, Normalization, check_images, trace
from .metadata import METADATA_KEY

__all__ = ['FORMATS', 'check_format', 'check_output', 'export_model', 'load_exported', 'verify']

FORMATS = ('program', 'package', 'onnx')
# largest difference of logits by the weights' dtype, in their standard deviations
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}


def _save_program(program: Any, path: str, metadata: str) -> None:
    with warnings.catch_warnings():
        # torch.export.save warns about the strides of channels-last weights, which it restores correctly
        warnings.filterwarnings('ignore', 'No complete tensor found in the group')
        torch.export.save(program, path, extra_files={METADATA_KEY: metadata})


def _save_package(program: Any, path: str, metadata: str) -> None:
    configs: Dict[str, Any] = {'freezing': True, 'aot_inductor.metadata': {METADATA_KEY: metadata}}
    if hasattr(torch._inductor.config.aot_inductor, 'check_lowerbound'):
        # AOTI_RUNTIME_CHECK_INPUTS=1 would reject single images, which the compiled code computes correctly
        configs['aot_inductor.check_lowerbound'] = False
    torch._inductor.aoti_compile_and_package(program, package_path=path, inductor_configs=configs)


def _name_axes(model: Any, names: Mapping[str, str]) -> None:
    """Rename the symbols of torch.export in all shapes of an ONNX model."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r'\w+', lambda word: names.get(word[0], word[0]), dim.dim_param)


def _save_onnx(program: Any, path: str, metadata: str) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter warns about its own deprecated code
        exported: Any = torch.onnx.export(
            program, (), input_names=['images'], output_names=['logits'], dynamo=True, verbose=False)
    model = exported.model_proto
    symbols = [dim.dim_param or None for dim in model.graph.input[0].type.tensor_type.shape.dim]
    named = [name for name in json.loads(metadata)['input_shape'] if isinstance(name, str)]
    _name_axes(model, dict(zip(filter(None, symbols), named)))
    onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
    onnx.save(model, path)


SAVERS: Dict[str, Callable[[Any, str, str], None]] = {
    'program': _save_program, 'package': _save_package, 'onnx': _save_onnx}


def check_format(format: str, dtype: Optional[torch.dtype] = None, any_size: bool = False) -> None:
    """Check before long work that a format can hold a model, and that what writes it is installed.

    Raises:
        UserError: ``format`` is unknown or does not support ``dtype`` or ``any_size``, or something is missing.
    """
    if format not in FORMATS:
        raise UserError(f'format must be one of {FORMATS}, got {format!r}.')
    if format == 'onnx':
        if dtype == torch.bfloat16:
            raise UserError("dtype must be float32 or float16 for ONNX, got bfloat16: ONNX Runtime's convolutions do "
                             'not support it on CPUs')
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            if importlib.util.find_spec(name) is None:
                raise UserError(f"format 'onnx' needs {name}: {install_extra('export')}")
    if format == 'package':
        if any_size:
            # symbolic sizes take inductor minutes for the smallest network, and no check would reject too small ones
            raise UserError('any_size needs a program or ONNX: a package is compiled for one size')
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as e:  # of inductor's own class, which moved between versions
            raise UserError(f'format {format!r} needs a C++ compiler: {error_line(e)}') from e


def check_output(output: Path, force: bool = False) -> None:
    """Check before long work that a file can be written.

    Raises:
        UserError: ``output`` exists without ``force`` or cannot be written.
    """
    if output.is_dir():
        raise UserError(f'output must be a file, got the folder {output}')
    if output.exists() and not force:
        raise UserError(f'output must not exist without `force`, got {output}')
    folder = output.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f'output must be in a folder that exists and can be written to, got {output}')


def example_images(model: DeployedModel, size: Sequence[int], any_batch: bool, any_size: bool) -> List[torch.Tensor]:
    """Return random batches of images for :func:`verify`: every kind that the file accepts."""
    sizes = [(batch, *size[1:]) for batch in ((1, 3) if any_batch else size[:1])]
    if any_size:
        sizes.append((sizes[0][0], size[1], size[2] + 33, size[3] + 1))
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, *model.size(other)) for batch, *other in sizes]
    if model.uint8:
        return [torch.randint(256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    if got.shape != expected.shape:
        return float('inf')
    scale = max(expected.std(correction=0).item(), expected.square().mean().sqrt().item() / 10)
    return (got - expected).abs().max().item() / (scale or 1.0)


@torch.no_grad()
def verify(
        run: Callable[[torch.Tensor], Any],
        expected: Callable[[torch.Tensor], Any],
        images: Sequence[torch.Tensor],
        tolerance: float,
) -> float:
    """Return the largest difference of logits, in standard deviations of the expected ones.

    The standard deviation counts as at least a tenth of the root mean square, for logits that are almost constant.

    Args:
        run: An exported file, from :func:`load_exported`.
        expected: The model.
        images: Batches.
        tolerance: The difference that is allowed.

    Raises:
        UserError: The logits differ by more.
    """
    largest = 0.0
    for batch in images:
        for logits, got in zip(tree_leaves(expected(batch)), tree_leaves(run(batch)), strict=True):
            difference = _difference(got.float().cpu(), logits.float().cpu())
            if not difference <= tolerance:
                raise UserError(
                    f"output must give the model's logits within {tolerance:g} of their standard deviation, got a "
                    f'difference of {difference:.1e} for images of {tuple(batch.shape)}; nothing was written')
            largest = max(largest, difference)
    return largest


def export_model(
        model: nn.Module,
        output: Path,
        example_size: Sequence[int],
        format: str = 'program',
        dtype: Optional[torch.dtype] = None,
        any_batch: bool = True,
        any_size: bool = False,
        metadata: Optional[Mapping[str, Any]] = None,
        normalization: Optional[Normalization] = None,
) -> float:
    """Write a model, folded and cast as by ``optimize_for_inference``, to a file, and compare it with the model.

    The file is written atomically, once its logits equal the model's.

    Args:
        model: In eval mode.
        output: File to write or to replace.
        example_size: ``(B, C, H, W)``; the file is fixed to it but for what ``any_batch`` and ``any_size`` free.
        format: ``'program'``, a torch.export program for any machine with torch; ``'package'``, compiled by AOTInductor
            for this kind of processor, which needs no compiler where it runs; or ``'onnx'``. Every format rejects
            images of other sizes, numbers of channels or dtypes when it is called.
        dtype: Of the weights, as in ``optimize_for_inference``; logits are float32.
        any_batch: Whether the file accepts any batch size.
        any_size: Whether the file accepts any height and width; not for a package.
        metadata: JSON values by name, stored in the file beside the description of its input.
        normalization: Mean and standard deviation of each channel, for a file that takes uint8 images ``(B, H, W, C)``
            and normalizes them; without, it takes normalized float32 images ``(B, C, H, W)``.

    Returns:
        The largest difference of logits, in their standard deviations.

    Raises:
        UserError: As for ``optimize_for_inference`` and ``check_format``; or the model cannot be exported, or the
            file's logits differ from the model's by more than 0.001 of their standard deviation in float32, 0.05 in
            float16, 0.25 in bfloat16.
    """
    weights = next(model.parameters())
    dtype = dtype or weights.dtype
    check_format(format, dtype, any_size)
    folded = fold_for_inference(model, example_size, dtype)
    batch, *size = [1, *example_size][-4:]
    if normalization is not None and {len(values) for values in normalization} != {size[0]}:
        raise UserError(f'normalization must have {size[0]} means and standard deviations, got {normalization!r}.')
    deployed = DeployedModel(folded, normalization, size if format == 'package' else None)
    batch_axis, *size_axes = AXES
    shape = [batch_axis if any_batch else batch,
             *deployed.size([size[0], *(size_axes if any_size else size[1:])])]
    text = json.dumps(dict(
        metadata or {}, format=format, dtype=str(dtype).split('.')[-1], input_size=size, input_shape=shape,
        input_dtype=str(deployed.dtype).split('.')[-1], normalize_inside=deployed.uint8))
    with atomic_file(Path(output)) as path:
        try:
            SAVERS[format](trace(deployed, (batch, *size), any_batch, any_size), str(path), text)
            run = load_exported(path, format)
            return verify(
                lambda x: run(x.to(weights.device)),
                lambda x: model(deployed.normalize(x.to(weights.device)).to(weights.dtype)),
                example_images(deployed, (batch, *size), any_batch, any_size), TOLERANCES[dtype])
        except (OSError, ValueError):
            raise
        except Exception as e:  # torch.export, inductor, g++ and ONNX Runtime raise any kind
            raise UserError(f'model cannot be exported as {format!r}: {error_line(e)}') from e


def load_exported(path: Path, format: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load an exported file as a callable from images to logits, with the lines of docs/deployment.md."""
    if format == 'program':
        return torch.export.load(path).module()
    if format == 'package':
        with warnings.catch_warnings():  # torch warns once in a process that what it calls is in beta
            warnings.simplefilter('ignore')
            check_images(torch.zeros(1, 1), (1,), torch.float32)
        return torch._inductor.aoti_load_package(str(path))
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {'images': x.cpu().numpy()})[0])
