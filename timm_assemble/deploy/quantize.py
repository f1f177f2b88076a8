"""Post-training static quantization to int8: of an ONNX file by ONNX Runtime, of a torch model by torchao."""
import ast
import importlib.util
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, Dict, List, Sequence

import torch
from torch import nn

__all__ = ['check_quantizer', 'float_modules', 'quantize_onnx', 'quantize_torch']

BATCH_SIZE = 16  # of the images that calibrate
OPERATORS = ('Conv', 'Gemm')  # of ONNX that run in int8, and sums and pools between them


def check_quantizer(name: str) -> None:
    """Check before long work that a library is installed.

    Raises:
        ValueError: It is missing.
    """
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"calibration needs {name}: pip install 'timm-assemble[export]'")


@torch.no_grad()
def float_modules(model: nn.Module, images: torch.Tensor) -> List[str]:
    """Return the names of convolutions and linear layers that stay in float.

    They are the first convolution, whose input has few channels; those of gates, on a single spatial position; and the
    classifier. All are cheap; docs/deployment.md has the accuracy and speed of each choice.

    Args:
        model: Any network of convolutions.
        images: Of the usual size; the model is called with one.
    """
    calls: List[str] = []
    single: List[str] = []

    def record(name: str, output: torch.Tensor) -> None:
        calls.append(name)
        if output.ndim == 4 and output.shape[2] == output.shape[3] == 1:
            single.append(name)

    hooks = [module.register_forward_hook(lambda module, inputs, output, name=name: record(name, output))
             for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    try:
        model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys([*calls[:1], *single, *calls[-1:]]))


class _Reader:
    """Images in the form that ONNX Runtime's calibration takes."""

    def __init__(self, images: torch.Tensor, batch_size: int) -> None:
        self.batches = iter(images.split(batch_size))

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
        path: Path, output: Path, images: torch.Tensor, keep_float: Sequence[str] = (), batch_size: int = BATCH_SIZE,
) -> None:
    """Quantize an ONNX file of torch's exporter: QDQ format, weights int8 per channel, activations uint8.

    Args:
        path: The float file, with an input ``images``.
        output: File to write.
        images: As the file takes them.
        keep_float: Names of modules that stay in float.
        batch_size: Of the calls; must be the file's, if that is fixed.
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
                stripped, output, _Reader(images[:len(images) // batch_size * batch_size], batch_size),
                quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8, calibrate_method=CalibrationMethod.MinMax,
                nodes_to_exclude=_nodes_in(model, keep_float))
    finally:
        root.disabled = disabled


def quantize_torch(model: nn.Module, images: torch.Tensor, keep_float: Sequence[str] = ()) -> nn.Module:
    """Quantize a torch model for inductor on x86 processors: weights int8 per channel, activations uint8.

    Args:
        model: Folded, in float32.
        images: ``(N, C, H, W)``; the result takes any batch size of this size.
        keep_float: Names of modules that stay in float.

    Returns:
        A graph with the same call. Uncompiled, it simulates int8 in float32.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torchao and torch.export warn about their own deprecated code
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer, get_default_x86_inductor_quantization_config)

        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
        for name in keep_float:
            quantizer.set_module_name_qconfig(name, None)
        batches = images.contiguous(memory_format=torch.channels_last).split(BATCH_SIZE)
        with torch.no_grad():
            axes: Dict[int, Any] = {0: torch.export.Dim('batch', min=1)}
            graph: Any = torch.export.export(model, (batches[0],), dynamic_shapes=(axes,)).module()
            graph = prepare_pt2e(graph, quantizer)
            for batch in batches:
                graph(batch)
            return convert_pt2e(graph)
