"""Post-training static quantization to int8: which layers stay in float, and torch models by torchao."""
import importlib.util
import platform
import warnings
from typing import Any, Dict, List, Sequence

import torch
from torch import nn

__all__ = ['BATCH_SIZE', 'check_quantizer', 'float_modules', 'quantize_torch', 'reduce_range']

BATCH_SIZE = 16  # of the images that calibrate


def check_quantizer(name: str) -> None:
    """Check before long work that a library is installed.

    Raises:
        ValueError: It is missing.
    """
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"calibration needs {name}: pip install 'timm-assemble[export]'")


def reduce_range() -> bool:
    """Return whether sums of two int8 products can overflow on this processor: on x86 without VNNI, into 16 bits."""
    return platform.machine() in ('x86_64', 'AMD64') and not torch.cpu._is_vnni_supported()


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

        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(
            reduce_range=reduce_range()))
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
