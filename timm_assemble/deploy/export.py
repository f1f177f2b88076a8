"""Export a trained model to a file that runs without its Python code: of torch, ONNX, OpenVINO or ExecuTorch."""
import copy
import importlib.util
import json
import os
import re
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ..errors import UserError, check, check_installed, error_line
from ..runtime.atomic import atomic_file
from . import openvino as ov
from .calibration import CalibrationImages, whole_batches
from .fold import fold_for_inference
from .gate import DEFAULT_GATE, Agreement, Gate, compare
from .graph import AXES, DeployedModel, Normalization, check_images, trace
from .metadata import METADATA_KEY, METADATA_METHOD, executorch_method
from .quantize import BATCH_SIZE, quantize

__all__ = ['FORMATS', 'check_format', 'check_output', 'export_model', 'installed_runtimes', 'load_exported', 'verify']

# what runs a file, by format; each that is installed checks it, the first one must be
FORMATS = {'program': ('torch',), 'package': ('torch',), 'onnx': ('onnxruntime', 'openvino'), 'openvino': ('openvino',),
           'executorch': ('executorch',)}
ENDINGS = {'.pt2': ('program', 'package'), '.onnx': ('onnx',), '.xml': ('openvino',), '.pte': ('executorch',)}
NEEDS = {'onnx': ('export', ('onnx', 'onnxscript', 'onnxruntime')), 'openvino': ('openvino', ('openvino',)),
         'executorch': ('executorch', ('executorch',))}
# largest difference of logits by the weights' dtype, in their standard deviations
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}


def installed_runtimes(format: str) -> List[str]:
    """Return the installed runtimes of a format."""
    return [name for name in FORMATS[format] if importlib.util.find_spec(name) is not None]


def _save_program(program: Any, path: Path, metadata: str) -> None:
    with warnings.catch_warnings():
        # torch.export.save warns about the strides of channels-last weights, which it restores correctly
        warnings.filterwarnings('ignore', 'No complete tensor found in the group')
        torch.export.save(program, path, extra_files={METADATA_KEY: metadata})


def _save_package(program: Any, path: Path, metadata: str) -> None:
    configs: Dict[str, Any] = {'freezing': True, 'aot_inductor.metadata': {METADATA_KEY: metadata}}
    if hasattr(torch._inductor.config.aot_inductor, 'check_lowerbound'):
        # AOTI_RUNTIME_CHECK_INPUTS=1 would reject single images, which the compiled code computes correctly
        configs['aot_inductor.check_lowerbound'] = False
    torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=configs)


def _name_axes(model: Any, names: Sequence[str]) -> None:
    """Rename the symbols of torch.export in all shapes of an ONNX model, in the order of its input's."""
    graph = model.graph
    symbols = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim if dim.dim_param]
    named = dict(zip(symbols, names))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r'\w+', lambda word: named.get(word[0], word[0]), dim.dim_param)


def _to_onnx(program: Any, names: Sequence[str], opset: Optional[int]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter warns about its own deprecated code
        exported: Any = torch.onnx.export(
            program, (), input_names=['images'], output_names=['logits'], dynamo=True, verbose=False,
            opset_version=opset)
    model = exported.model_proto
    if opset is not None:
        got = next(entry.version for entry in model.opset_import if entry.domain in ('', 'ai.onnx'))
        check(got == opset, 'opset', opset, f'one that the exporter can write this model in, such as {got}')
    _name_axes(model, names)
    return model


def _save_onnx(model: Any, path: Path, metadata: str) -> None:
    import onnx

    onnx.helper.set_model_props(model, {METADATA_KEY: metadata})
    onnx.save(model, path)


def _save_openvino(model: Any, path: Path, metadata: str) -> None:
    model.set_rt_info(metadata, ['framework', METADATA_KEY])
    ov.save(model, path)


def _save_executorch(program: Any, path: Path, metadata: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # ExecuTorch calls what Python deprecates
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={METADATA_METHOD: metadata})
        path.write_bytes(lowered.to_executorch().buffer)


SAVERS: Dict[str, Callable[[Any, Path, str], None]] = {
    'program': _save_program, 'package': _save_package, 'onnx': _save_onnx, 'openvino': _save_openvino,
    'executorch': _save_executorch}


def check_format(
        format: str, dtype: Optional[torch.dtype] = None, any_size: bool = False, opset: Optional[int] = None,
        int8: bool = False, any_batch: bool = False,
) -> None:
    """Check before long work that a format can hold a model, and that what writes it is installed.

    Raises:
        UserError: ``format`` is unknown or does not support ``dtype``, ``any_size``, ``any_batch``, ``opset`` or int8,
            or something is missing.
    """
    check(format in FORMATS, 'format', format, f'one of {tuple(FORMATS)}')
    check(opset is None or format == 'onnx', 'opset', opset, f'None for {format!r}')
    extra, libraries = NEEDS.get(format, ('', ()))
    floats = ('float32', 'float16') if format == 'onnx' else ('float32',)
    kind = str(dtype).split('.')[-1]
    if libraries and dtype is not None and kind not in floats:
        raise UserError(f'dtype must be {" or ".join(floats)} for {format!r}, got {kind}: its runtime chooses that')
    check_installed(f'format {format!r}', extra, *libraries)
    if int8:
        check(format in ('onnx', 'openvino'), 'format', format, "'onnx' or 'openvino' for int8")
        check(dtype in (None, torch.float32), 'dtype', dtype, 'float32 for int8')
        # compiled for any size, OpenVINO computes some int8 networks wrongly
        check(not any_size, 'any_size', any_size, 'False for int8')
        check_installed('int8', 'openvino', 'nncf')
    if format == 'executorch':  # it plans its memory when it is written
        check(torch.__version__ >= '2.14', 'format', format, 'another with a torch older than 2.14')
        check(not any_batch, 'any_batch', any_batch, "False for 'executorch'")
        check(not any_size, 'any_size', any_size, "False for 'executorch'")
    if format == 'package':
        if any_size:
            # symbolic sizes take inductor minutes for the smallest network, and no check would reject too small ones
            raise UserError('any_size needs another format: a package is compiled for one size')
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as e:  # of inductor's own class, which moved between versions
            raise UserError(f'format {format!r} needs a C++ compiler: {error_line(e)}') from e


def files_of(output: Path, format: str) -> List[Path]:
    """Return the files of an export, the one that is loaded last."""
    return [output.with_suffix('.bin'), output] if format == 'openvino' else [output]


def check_output(output: Path, force: bool = False, format: str = 'program') -> None:
    """Check before long work that a file can be written.

    Raises:
        UserError: ``output`` exists without ``force`` or cannot be written.
    """
    if output.is_dir():
        raise UserError(f'output must be a file, got the folder {output}')
    for path in files_of(output, format):
        if path.exists() and not force:
            raise UserError(f'output must not exist without `force`, got {path}')
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


def _raw(images: torch.Tensor, normalization: Optional[Normalization]) -> torch.Tensor:
    """Return images as the file takes them: uint8 ``(B, H, W, C)`` with a normalization."""
    if normalization is None:
        return images
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalization)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


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
        opset: Optional[int] = None,
        calibration: Optional[CalibrationImages] = None,
        gate: Gate = DEFAULT_GATE,
        ignore_gate: bool = False,
) -> Dict[str, Union[float, Agreement]]:
    """Write a model, folded and cast as by ``optimize_for_inference``, to a file, and compare it with the model.

    Every installed runtime of the format loads the file and compares it with the model: logits of random images, of an
    int8 file those of held-out images. Only a file that passes in all replaces ``output``.

    Args:
        model: In eval mode.
        output: File to write or to replace; OpenVINO's ``*.xml`` has its weights beside it, in ``*.bin``.
        example_size: ``(B, C, H, W)``; the file is fixed to it but for what ``any_batch`` and ``any_size`` free.
        format: ``'program'``, a torch.export program for any machine with torch; ``'package'``, compiled by AOTInductor
            for this kind of processor, which needs no compiler where it runs; ``'onnx'``; ``'openvino'``, its IR; or
            ``'executorch'``, for phones, delegated to XNNPACK. Every format rejects images of other sizes, numbers of
            channels or dtypes when it is called.
        dtype: Of the weights, as in ``optimize_for_inference``; logits are float32.
        any_batch: Whether the file accepts any batch size; not for ExecuTorch.
        any_size: Whether the file accepts any height and width; not for a package, ExecuTorch or int8.
        metadata: JSON values by name, stored in the file beside the description of its input.
        normalization: Mean and standard deviation of each channel, for a file that takes uint8 images ``(B, H, W, C)``
            and normalizes them; without, it takes normalized float32 images ``(B, C, H, W)``.
        opset: Of ONNX; the exporter's default if None.
        calibration: Images for int8, as the model takes them, from :func:`~timm_assemble.deploy.split_images`.
        gate: What an int8 file must reach in every runtime.
        ignore_gate: Whether to write an int8 file all the same.

    Returns:
        By runtime, the largest difference of logits, in their standard deviations, or of an int8 file its agreement.

    Raises:
        GateError: An int8 file does not reach the gate.
        UserError: As for ``optimize_for_inference`` and ``check_format``; or the model cannot be exported, or the
            file's logits differ from the model's by more than 0.001 of their standard deviation in float32, 0.05 in
            float16, 0.25 in bfloat16.
    """
    weights = next(model.parameters())
    dtype = dtype or weights.dtype
    check_format(format, dtype, any_size, opset, calibration is not None, any_batch)
    folded = fold_for_inference(model, example_size, dtype)
    if format == 'executorch':  # XNNPACK lays out weights itself, and copies what is channels-last
        folded = folded.contiguous()
    batch, *size = map(int, [1, *example_size][-4:])
    if normalization is not None and {len(values) for values in normalization} != {size[0]}:
        raise UserError(f'normalization must have {size[0]} means and standard deviations, got {normalization!r}.')
    deployed = DeployedModel(folded, normalization, size if format == 'package' else None)
    batch_axis, *size_axes = AXES
    shape = [batch_axis if any_batch else batch,
             *deployed.size([size[0], *(size_axes if any_size else size[1:])])]
    values = dict(
        metadata or {}, format=format, dtype=str(dtype).split('.')[-1], input_size=size, input_shape=shape,
        input_dtype=str(deployed.dtype).split('.')[-1], normalize_inside=deployed.uint8)
    call_size = BATCH_SIZE if any_batch else batch
    # what a model in half precision rounds is no reference for a file in float32
    reference = model if weights.dtype == torch.float32 else copy.deepcopy(model).float()

    def measure(run: Callable[[torch.Tensor], Any]) -> Union[float, Agreement]:
        if calibration is not None:
            held_out = calibration.held_out
            measured = compare(
                lambda x: reference(x.to(weights.device)), lambda x: run(_raw(x, normalization)),
                held_out.split(call_size) if any_batch else whole_batches(held_out, call_size), gate.sure)
            if not ignore_gate:
                gate.check(measured)
            return measured
        return verify(
            lambda x: run(x.to(weights.device)),
            lambda x: reference(deployed.normalize(x.to(weights.device))),
            example_images(deployed, (batch, *size), any_batch, any_size),
            TOLERANCES[dtype])

    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_file(path)) for path in reversed(files_of(Path(output), format))]
        path, weights_path = paths[0], paths[-1]
        try:
            exported = trace(deployed, (batch, *size), any_batch, any_size)
            if format == 'onnx':
                exported = _to_onnx(exported, [name for name in shape if isinstance(name, str)], opset)
            elif format == 'openvino':
                exported = ov.convert(exported, [-1 if isinstance(n, str) else n for n in shape])
            if calibration is not None:
                raw = whole_batches(_raw(calibration.calibration, normalization), 1 if any_batch else batch)
                exported = quantize(exported, ({'images': x.numpy()} for x in raw))
                values.update(dtype='int8', calibration_images=len(calibration.calibration))
            SAVERS[format](exported, path, json.dumps(values))
            results = {name: measure(load_exported(path, format, name)) for name in installed_runtimes(format)}
            if calibration is not None:
                values['agreement'] = {
                    name: found.metadata() for name, found in results.items() if isinstance(found, Agreement)}
                SAVERS[format](exported, path, json.dumps(values))
            if format == 'openvino':
                path.with_suffix('.bin').replace(weights_path)
            return results
        except (OSError, ValueError):
            raise
        except Exception as e:  # torch.export, inductor, g++ and the runtimes raise any kind
            raise UserError(f'model cannot be exported as {format!r}: {error_line(e)}') from e


def _outputs(arrays: Sequence[Any]) -> Any:
    """Return a runtime's output as a tensor, of several a list."""
    tensors = [torch.tensor(array) for array in arrays]
    return tensors if len(tensors) > 1 else tensors[0]


def load_exported(path: Path, format: str, runtime: Optional[str] = None) -> Callable[[torch.Tensor], Any]:
    """Load an exported file as a callable from images to what the model returns, with the lines of docs/deployment.md.

    Args:
        path: The file.
        format: Its format.
        runtime: One of the format's; the first if None.
    """
    if format == 'program':
        return torch.export.load(path).module()
    if format == 'package':
        with warnings.catch_warnings():  # torch warns once in a process that what it calls is in beta
            warnings.simplefilter('ignore')
            check_images(torch.zeros(1, 1), (1,), torch.float32)
        return torch._inductor.aoti_load_package(str(path))
    if format == 'executorch':
        forward = executorch_method(path, 'forward')
        return lambda x: _outputs([y.numpy() for y in forward([x.contiguous()])])
    if (runtime or FORMATS[format][0]) == 'openvino':
        compiled = ov.compile_openvino(path)
        return lambda x: _outputs([*compiled(x.cpu().contiguous().numpy()).values()])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda x: _outputs(session.run(None, {'images': x.cpu().numpy()}))
