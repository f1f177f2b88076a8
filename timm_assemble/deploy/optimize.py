"""The fast form of a trained model: batch norms folded, channels-last, a half precision, compiled with its constants.

Knows torch, timm's layers and Winograd's convolution; takes any module, and folds what timm's ``ConvNormAct`` holds,
which is every batch norm of this package's models.
"""
import copy
import itertools
import types
import warnings
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import torch
import torch._inductor.config
from timm.layers import ConvNormAct
from torch import nn
from torch.utils._pytree import tree_map_only

from .winograd import use_direct, use_winograd

__all__ = ['fold_batch_norms', 'fold_for_inference', 'OptimizedModel', 'optimize_for_inference']

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
COMPILE: Dict[str, Any] = {}  # torch.compile's arguments
MAX_SIZES = 8  # of height and width: each is compiled apart, and holds the weights once more
DESCRIPTION = ('pretrained_cfg', 'default_cfg', 'num_classes', 'num_features', 'feature_info')


def _fold(layer: ConvNormAct) -> None:
    conv, bn = layer.conv, layer.bn
    if getattr(bn, 'running_var', None) is None:
        return  # folded before, none, or of the batch's own statistics: nothing that is constant
    scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    bias = bn.bias.double() - bn.running_mean.double() * scale
    if conv.bias is not None:
        bias += conv.bias.double() * scale
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
    layer.bn = bn.act  # DropBlock, which stands between, is the identity in eval mode


def fold_batch_norms(model: nn.Module) -> nn.Module:
    r"""Fold the batch norms of all ``ConvNormAct`` of a model in eval mode into their convolutions, in place.

    .. math:: w' = w\,\frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad
        b' = \beta + (b - \mu)\,\frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}

    computed in float64 and rounded to the weights' dtype once. Selective kernels' gates, little branches, shortcuts
    and the head's embedding are among them.

    Args:
        model: Changed: its convolutions get biases, and its norms give way to their activations.

    Returns:
        ``model``.

    Raises:
        ValueError: The model, or a part of it, is in training mode, where statistics are the batch's own.
    """
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(f'model must be in eval mode, call model.eval(); in training mode: {", ".join(training[:3])}'
                         f'{" and more" if len(training) > 3 else ""}.')
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, ConvNormAct):
                _fold(module)
    return model


_numbers = itertools.count()


def _call(model: nn.Module, x: torch.Tensor) -> Any:
    return model._call_impl(x)  # with hooks


def _call_of_its_own() -> types.FunctionType:
    """A copy of :func:`_call` with code of its own.

    What torch.compile knows of sizes, and how often it compiles before it gives up and runs eager, it counts by code:
    of one code the second size would be compiled for any size, and the ninth model not at all.
    """
    code = _call.__code__.replace(co_name=f'call_{next(_numbers)}')
    return types.FunctionType(code, _call.__globals__)


class _CompiledBySize:
    """Calls of a model, compiled apart for each height and width.

    One code for any of them would do for all, but with the sizes on the way through a network as symbols a compiler
    takes many times as long as with numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.calls: Dict[Tuple[int, ...], Callable[[torch.Tensor], Any]] = {}
        self.warned = False

    def __call__(self, x: torch.Tensor) -> Any:
        size = tuple(x.shape[-2:])
        if size not in self.calls:
            if len(self.calls) == MAX_SIZES:
                if not self.warned:
                    warnings.warn(
                        f'Calls of {MAX_SIZES} sizes are compiled; {size[0]}x{size[1]} and other new ones run '
                        'uncompiled. Optimize another copy for them, or with compile=False.', stacklevel=4)
                self.warned = True
                return self.model._call_impl(x)
            self.calls[size] = torch.compile(types.MethodType(_call_of_its_own(), self.model), **COMPILE)
        # Not as an option of torch.compile: options begin after the tracing, which has then made inputs of the weights
        # already, and nothing is a constant.
        with torch._inductor.config.patch(freezing=True):
            return self.calls[size](x)


class OptimizedModel(nn.Module):
    """What :func:`optimize_for_inference` gives: the same call, without gradients.

    The cast of the picture to the weights' dtype and of the output back are of one graph with the model where it is
    compiled. A copy, by deepcopy or through pickle, compiles at its first call.

    Args:
        model: In eval mode; its dtype is that of its first floating parameter.
        compiled: Whether calls are compiled.
    """

    def __init__(self, model: nn.Module, compiled: bool) -> None:
        super().__init__()
        self.model = model
        self.compiled = compiled
        for name in DESCRIPTION:  # so that timm's functions still know what it is, and how to prepare its pictures
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.training = False
        self._start()

    def _start(self) -> None:
        if self.compiled:
            self._compiled_call_impl = _CompiledBySize(self)  # Module.compile's place, which Module keeps out of states

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._start()  # the compiled call is in no state

    def train(self, mode: bool = True) -> 'OptimizedModel':
        """Stay in eval mode; asking for the training mode is a ValueError."""
        if mode:
            raise ValueError('mode must be False: an optimized model has no batch norms left to train.')
        return self

    def __call__(self, x: torch.Tensor) -> Any:
        with torch.no_grad():  # constants are folded only where no gradient is asked for
            return super().__call__(x.contiguous(memory_format=torch.channels_last))  # so that one layout is compiled

    def forward(self, x: torch.Tensor) -> Any:
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        y = self.model(x.to(dtype, memory_format=torch.channels_last))
        return tree_map_only(torch.Tensor, lambda part: part.to(x.dtype), y)


def fold_for_inference(
        model: nn.Module, example_size: Sequence[int], dtype: Optional[torch.dtype] = None) -> OptimizedModel:
    """What :func:`optimize_for_inference` compiles, of the same arguments: folded, channels-last and cast."""
    size = tuple(example_size)
    if len(size) not in (3, 4) or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f'example_size must be (B, C, H, W) or (C, H, W), whole numbers from 1, got {example_size!r}.')
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f'dtype must be one of {DTYPES} or None, got {dtype!r}.')
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), size[-3])
    if channels != size[-3]:
        raise ValueError(f"example_size must have the model's {channels} channels, got {example_size!r}.")
    if isinstance(model, OptimizedModel):
        model = model.model
    folded = use_direct(fold_batch_norms(copy.deepcopy(model))).requires_grad_(False)
    folded = folded.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return OptimizedModel(folded, compiled=False)


def optimize_for_inference(
        model: nn.Module,
        example_size: Sequence[int],
        dtype: Optional[torch.dtype] = None,
        compile: bool = True,
) -> OptimizedModel:
    """The fastest form of a trained model that has its numbers, warmed up; the model itself stays as it was.

    Batch norms are folded (:func:`fold_batch_norms`), weights laid out channels-last and cast, and calls compiled by
    inductor with weights as constants ("freezing"), which packs them for the processor and fuses what is not a
    convolution. In float32 on a CPU, wide 3x3 convolutions are computed by Winograd's filtering
    (:class:`~timm_assemble.deploy.winograd.WinogradConv2d`). Merges that were not taken are in docs/deployment.md.

    Any batch and size can be called. Compiled, every height and width compiles at its first call; of each, the first
    other batch size compiles once more, for all from 2, and so does the first single picture. Each holds the weights
    once more in packed form. After eight heights and widths further ones run uncompiled, with a warning: where pictures
    come in many sizes, use ``compile=False``.

    Args:
        model: A model in eval mode, from ``create_model``, also with ``features_only``, or any other module of one
            picture tensor. Its device is kept. An optimized model may be optimized again.
        example_size: ``(B, C, H, W)`` of the warm-up, or ``(C, H, W)`` for a single picture.
        dtype: ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``; the model's own if None. Pictures come and
            results go in the caller's dtype all the same. What it brings depends on the processor.
        compile: Off, nothing is compiled, and the model is folded, laid out and cast alone. On a CPU it takes a C++
            compiler, as all of ``torch.compile`` does.

    Returns:
        A module with the same call. It holds a copy of the weights.

    Raises:
        ValueError: The model is in training mode, ``example_size`` has other than 3 or 4 positive numbers or other
            channels than the model, or ``dtype`` is another.
    """
    folded = fold_for_inference(model, example_size, dtype)
    example = torch.zeros([1, *example_size][-4:], device=next(folded.parameters()).device)
    if compile:
        use_winograd(folded, example)
    optimized = OptimizedModel(folded.model, compile)
    optimized(example)
    return optimized
