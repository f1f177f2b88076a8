"""Post-training static quantization to int8: which layers stay in float, and torch models by torchao."""
import importlib.util
import pickle
import platform
import warnings
from typing import Any, Dict, List, Optional, Sequence

import torch
from torch import nn

from ..errors import UserError, install_extra

__all__ = ['BATCH_SIZE', 'check_quantizable', 'float_modules', 'quantize_torch', 'reduce_range']

X86 = ('x86_64', 'AMD64')
BATCH_SIZE = 16  # of the images that calibrate


def check_quantizable(model: nn.Module, dtype: Optional[torch.dtype]) -> None:
    """Check before long work that a model can be quantized for this process.

    Raises:
        UserError: It is not in float32 or not on a CPU, or torchao is missing.
    """
    weights = next(model.parameters())
    if (dtype or weights.dtype) != torch.float32:
        raise UserError(f'dtype must be float32 with `calibration`, got {dtype or weights.dtype}.')
    if weights.device.type != 'cpu' or platform.machine() not in X86:
        raise UserError(
            f'calibration needs a model on an x86 processor, got {weights.device} on {platform.machine()}.')
    if getattr(model, 'agreement', None) is not None:
        raise UserError('model must be in float, got one that is quantized already.')
    if importlib.util.find_spec('torchao') is None:
        raise UserError(f'calibration needs torchao: {install_extra("int8")}')


def reduce_range() -> bool:
    """Return whether sums of two int8 products can overflow on this processor: on x86 without VNNI, into 16 bits."""
    return platform.machine() in X86 and not torch.cpu._is_vnni_supported()


@torch.no_grad()
def float_modules(model: nn.Module, images: torch.Tensor) -> List[str]:
    """Return the names of the first convolution and the classifier, which stay in float.

    Both are cheap; docs/deployment.md has the accuracy and speed of this choice and others.

    Args:
        model: Any network of convolutions and linear layers, in the order of their calls.
        images: Of the usual size; the model is called with one.
    """
    calls: List[str] = []
    hooks = [module.register_forward_hook(lambda *_, name=name: calls.append(name))
             for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    try:
        model(images[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys([*calls[:1], *calls[-1:]]))


class _Tracer(torch.fx.Tracer):
    """Unpickle graphs with their int8 weights: torch's tracer computes float weights of them."""

    proxy_buffer_attributes = True


class QuantizedGraph(nn.Module):
    """A quantized graph of torch.export, for any batch size of one size."""

    def __init__(self, graph: nn.Module, size: Sequence[int]) -> None:
        super().__init__()
        self.graph = graph
        self.size = tuple(size)

    def __getstate__(self) -> Dict[str, Any]:
        return dict(graph=pickle.dumps(self.graph), size=self.size)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        import torchao.quantization.pt2e  # noqa: F401, its operators

        self.__init__(pickle.loads(state['graph']), state['size'])  # type: ignore[misc]

    def forward(self, x: torch.Tensor) -> Any:
        if tuple(x.shape[1:]) != self.size:
            raise UserError(
                f'x must be images of {self.size}, for which the model was quantized, got {tuple(x.shape)}.')
        return self.graph(x)


def quantize_torch(
        model: nn.Module, images: torch.Tensor, keep_float: Optional[Sequence[str]] = None) -> QuantizedGraph:
    """Quantize a torch model for inductor on x86 processors: weights int8 per channel, activations uint8.

    Args:
        model: Folded, in float32.
        images: ``(N, C, H, W)``; the result takes any batch size of this size.
        keep_float: Names of modules that stay in float; :func:`float_modules` if None.

    Returns:
        A module with the same call. Uncompiled, it simulates int8 in float32.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torchao and torch.export warn about their own deprecated code
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer, get_default_x86_inductor_quantization_config)

        quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config(
            reduce_range=reduce_range()))
        for name in float_modules(model, images) if keep_float is None else keep_float:
            quantizer.set_module_name_qconfig(name, None)
        batches = images.contiguous(memory_format=torch.channels_last).split(BATCH_SIZE)
        with torch.no_grad():
            axes: Dict[int, Any] = {0: torch.export.Dim('batch', min=1)}
            graph: Any = torch.export.export(model, (batches[0],), dynamic_shapes=(axes,)).module()
            graph = prepare_pt2e(graph, quantizer)
            for batch in batches:
                graph(batch)
            graph = convert_pt2e(graph)
        for node in [node for node in graph.graph.nodes if node.op == 'call_module' and not node.users]:
            graph.graph.erase_node(node)  # export's checks of the size, which cannot be pickled
        graph.graph._tracer_cls = _Tracer  # export's own cannot be created again by unpickling
        return QuantizedGraph(torch.fx.GraphModule(graph, graph.graph), images.shape[1:])
