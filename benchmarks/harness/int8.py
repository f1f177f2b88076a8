"""int8 forms of a network, beside its float forms: calls, time to be ready, size of the file, agreement."""
import copy
import importlib.util
import time
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NamedTuple, Tuple

import timm
import torch
import torch.nn.functional as F
from torch import nn

import timm_assemble
from timm_assemble.deploy.calibration import CalibrationImages, split_images, whole_batches
from timm_assemble.deploy.export import export_model
from timm_assemble.deploy.gate import Gate, compare
from timm_assemble.deploy.optimize import OptimizedModel
from timm_assemble.deploy.quantize_onnx import export_quantized

__all__ = [
    'ANY', 'IMAGES', 'Form', 'agreement_details', 'fitted_network', 'int8_forms', 'network_and_images', 'noise_images',
    'onnx_files', 'onnx_call', 'openvino_call']

ANY = Gate(agreement=0, sqnr=-1e9, sure=0)  # of random weights, no model is sure
IMAGES = 64  # a quarter of them calibrates
Call = Callable[[torch.Tensor], torch.Tensor]


class Form(NamedTuple):
    """A form of a network.

    Attributes:
        run: From images to logits.
        details: Columns of the table.
    """

    run: Call
    details: Dict[str, Any]


def noise_images(count: int, size: int, seed: int) -> torch.Tensor:
    """Return random images with noise of all scales, as photographs have it.

    White noise is one of them because exports are verified on it: in an EfficientNet fitted to smooth images alone, it
    grows until float32 loses it.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [F.interpolate(torch.randn(count, 3, side, side, generator=generator), (size, size), mode='bilinear')
              for side in (2, 4, 8, 16, 64, size)]
    return torch.stack(layers).sum(0).div(2.4).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def fitted_network(name: str, size: int) -> nn.Module:
    """Create a model with random weights whose norms have the statistics of :func:`noise_images`.

    With random statistics, the signal fades with depth, and the logits hardly depend on the image.
    """
    torch.manual_seed(0)
    model: Any = timm.create_model(name).to(memory_format=torch.channels_last)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith('gamma'):
            nn.init.uniform_(parameter, 0.1, 0.3)  # layer scales of ConvNeXt begin at almost zero
    # the last norms of residual branches, which would amplify any noise; those of EfficientNets do not begin at zero
    last = {block.bn3 for block in model.modules() if getattr(block, 'has_skip', False) and hasattr(block, 'bn3')}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            low, high = (0.5, 1.5) if module.weight.any() and module not in last else (0.1, 0.3)
            nn.init.uniform_(module.weight, low, high)
            nn.init.uniform_(module.bias, -low, low)
            module.momentum = None  # the mean over batches
            module.reset_running_stats()
    model.train()
    for seed in (100, 101):
        model(noise_images(8, size, seed))
    return model.eval()


def onnx_call(path: Path, threads: int) -> Call:
    """Return the call of a file in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {'images': x.contiguous().numpy()})[0])


def openvino_call(model: Any, threads: int) -> Call:
    """Return the call of a file or model in OpenVINO."""
    import openvino

    source = str(model) if isinstance(model, Path) else model
    compiled = openvino.Core().compile_model(
        source, 'CPU', {'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda x: torch.from_numpy(compiled(x.contiguous().numpy())[0])


def onnx_files(
        model: nn.Module, size: int, images: CalibrationImages, folder: Path, full: bool,
) -> Dict[str, Tuple[Path, Dict[str, Any]]]:
    """Export a model to ONNX in int8 and, if ``full``, in float32; return the files and their columns of the table."""
    files: Dict[str, Tuple[Path, Dict[str, Any]]] = {}
    for dtype in ('float32', 'int8') if full else ('int8',):
        path, start = folder / f'{dtype}.onnx', time.perf_counter()
        if dtype == 'int8':
            export_quantized(model, path, (1, 3, size, size), images, ANY)
        else:
            export_model(model, path, (1, 3, size, size), 'onnx')
        files[dtype] = path, {'ready after (s, wall)': time.perf_counter() - start,
                              'file (MB)': path.stat().st_size / 1e6}
    return files


def int8_forms(
        model: nn.Module, size: Tuple[int, ...], images: CalibrationImages, threads: int,
        files: Mapping[str, Tuple[Path, Dict[str, Any]]],
) -> Dict[str, Form]:
    """Return the int8 forms of a model and its ONNX files.

    Args:
        model: In eval mode, in float32.
        size: ``(B, C, H, W)`` of the calls.
        images: For calibration.
        threads: Of ONNX Runtime and OpenVINO; torch's are those of the process.
        files: From :func:`onnx_files`.
    """
    forms: Dict[str, Form] = {}
    if importlib.util.find_spec('torchao') is None:
        print('optimized, int8: skipped, torchao is not installed')
    else:
        start = time.perf_counter()
        optimized = timm_assemble.optimize_for_inference(
            model, size, compile=False, calibration=[torch.cat([*images])], gate=ANY)
        optimized = OptimizedModel(copy.deepcopy(optimized.model), compiled=True)
        optimized(torch.zeros(size))
        forms['optimized, int8'] = Form(optimized, {'ready after (s, wall)': time.perf_counter() - start})
    for dtype, (path, details) in files.items():
        forms[f'onnxruntime, {dtype}'] = Form(onnx_call(path, threads), details)
    if importlib.util.find_spec('openvino') is None:
        print('the int8 file in OpenVINO: skipped, openvino is not installed')
    else:
        forms['the same file in OpenVINO, int8'] = Form(openvino_call(files['int8'][0], threads), {})
    return forms


def agreement_details(model: Call, run: Call, images: torch.Tensor, batch_size: int) -> Dict[str, Any]:
    """Return equal predictions and SQNR on images, in batches of the size that is compiled."""
    measured = compare(model, run, whole_batches(images, batch_size), sure=0)
    return {'same top-1 (%)': measured.top1, 'SQNR (dB)': min(measured.sqnr, 999.0)} if measured.sqnr > 0 else {
        'same top-1 (%)': measured.top1, 'SQNR (dB)': f'{measured.sqnr:.1f}'}


def network_and_images(name: str, size: int) -> Tuple[nn.Module, CalibrationImages]:
    """Return a fitted network and images for it."""
    return fitted_network(name, size), split_images([noise_images(IMAGES, size, 1)], (3, size, size))
