"""Export to int8: an ONNX file quantized by ONNX Runtime, and compared with the model on held-out images."""
import ast
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import torch
from torch import nn

from ..runtime.atomic import atomic_file
from .calibration import CalibrationImages, whole_batches
from .export import export_model, load_exported
from .gate import DEFAULT_GATE, Agreement, Gate, compare
from .graph import Normalization
from .metadata import METADATA_KEY
from .quantize import BATCH_SIZE, float_modules, reduce_range

__all__ = ['export_quantized', 'quantize_onnx']

# What runs in int8. Not MaxPool: what pads it has minus infinity; not Sigmoid: it is cheap
OPERATORS = ('Conv', 'Gemm', 'MatMul', 'Add', 'Mul', 'AveragePool', 'GlobalAveragePool', 'Resize', 'Concat', 'Split',
             'Relu', 'Clip')


class _Reader:
    """Images in the form that ONNX Runtime's calibration takes."""

    def __init__(self, images: torch.Tensor, batch_size: int) -> None:
        self.batches = iter(whole_batches(images, batch_size))

    def get_next(self) -> Any:
        batch = next(self.batches, None)
        return None if batch is None else {'images': batch.numpy()}


def _nodes_in(model: Any, modules: Sequence[str]) -> List[str]:
    """Return the nodes of an ONNX model that torch's exporter made of these modules."""
    names, nodes = set(modules), []
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == 'pkg.torch.onnx.name_scopes'), '[]')
        if names & {*ast.literal_eval(scopes)}:
            nodes.append(node.name)
    return nodes


def quantize_onnx(
        path: Path,
        output: Path,
        images: torch.Tensor,
        keep_float: Sequence[str] = (),
        batch_size: int = BATCH_SIZE,
        operators: Sequence[str] = OPERATORS,
        method: str = 'MinMax',
) -> None:
    """Quantize an ONNX file of torch's exporter: QDQ format, weights int8 per channel, activations uint8.

    Args:
        path: The float file, with an input ``images``.
        output: File to write.
        images: As the file takes them.
        keep_float: Names of modules that stay in float.
        batch_size: Of the calls; must be the file's, if that is fixed.
        operators: ONNX operators that run in int8.
        method: How ranges come from images, a name of ONNX Runtime's ``CalibrationMethod``.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(path)
    root = logging.getLogger()
    disabled, root.disabled = root.disabled, True  # onnxruntime advises a preprocessing that torch's exporter has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            stripped = Path(folder) / 'model.onnx'
            onnx.save(model, stripped)
            quantize_static(
                stripped, output, _Reader(images, batch_size), quant_format=QuantFormat.QDQ, per_channel=True,
                reduce_range=reduce_range(), weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod[method], op_types_to_quantize=[*operators],
                nodes_to_exclude=_nodes_in(model, keep_float))
    finally:
        root.disabled = disabled


def _raw(images: torch.Tensor, normalization: Optional[Normalization]) -> torch.Tensor:
    """Return images as the file takes them: uint8 ``(B, H, W, C)`` with a normalization."""
    if normalization is None:
        return images
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in normalization)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def export_quantized(
        model: nn.Module,
        output: Path,
        example_size: Sequence[int],
        images: CalibrationImages,
        gate: Gate = DEFAULT_GATE,
        any_batch: bool = True,
        any_size: bool = False,
        metadata: Optional[Mapping[str, Any]] = None,
        normalization: Optional[Normalization] = None,
        ignore_gate: bool = False,
) -> Agreement:
    """Write a model as an int8 ONNX file, if it passes the gate; the file is written atomically.

    Args:
        model: A classifier in eval mode.
        output: File to write or to replace.
        example_size, any_batch, any_size, metadata, normalization: As for
            :func:`~timm_assemble.deploy.export_model`. The metadata gets the measured agreement as well.
        images: For the ranges of activations, and held out for the gate; as the model takes them.
        gate: What the file must reach.
        ignore_gate: Whether to write the file all the same.

    Raises:
        GateError: The file does not reach the gate; nothing is written.
        UserError: As for ``export_model``.
    """
    import onnx

    batch = BATCH_SIZE if any_batch else example_size[0]
    with tempfile.TemporaryDirectory() as folder, atomic_file(Path(output)) as path:
        full = Path(folder) / 'float.onnx'
        export_model(model, full, example_size, 'onnx', torch.float32, any_batch, any_size, metadata, normalization)
        names = [f'model.model.{name}' for name in float_modules(model, images.calibration)]
        quantize_onnx(full, path, _raw(images.calibration, normalization), names, batch)
        run = load_exported(path, 'onnx')
        held_out = images.held_out.split(batch) if any_batch else whole_batches(images.held_out, batch)
        measured = compare(model, lambda x: run(_raw(x, normalization)), held_out, gate.sure)
        if not ignore_gate:
            gate.check(measured)
        quantized = onnx.load(path)
        values: Dict[str, Any] = json.loads({p.key: p.value for p in quantized.metadata_props}[METADATA_KEY])
        values |= dict(dtype='int8', calibration_images=len(images.calibration), **measured.metadata())
        onnx.helper.set_model_props(quantized, {METADATA_KEY: json.dumps(values)})
        onnx.save(quantized, path)
    return measured
