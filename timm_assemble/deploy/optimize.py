"""``optimize_for_inference``: a trained model folded, cast and compiled, by inductor or OpenVINO."""
import copy
import itertools
import os
import threading
import types
import warnings
from typing import Any, Callable, Dict, Iterable, Optional, Sequence, Tuple, Union

import torch
import torch._inductor.config
from torch import nn

from ..errors import UserError, check, check_installed
from .calibration import split_images
from .fold import FoldedModel, check_size, fold_for_inference
from .gate import DEFAULT_GATE, Gate, compare
from .graph import free_sizes
from .openvino import OpenVINOModel, check_openvino, is_installed
from .quantize import BATCH_SIZE, quantize
from .winograd import WinogradConv2d, is_available, use_winograd

__all__ = ['BACKENDS', 'OptimizedModel', 'optimize_for_inference']

BACKENDS = ('inductor', 'openvino')
COMPILE: Dict[str, Any] = {}  # arguments of torch.compile
# a fork does not inherit the threads of inductor's pool, and would wait for them forever
FORKED: Dict[str, Any] = dict(compile_threads=1)
MAX_SIZES = 8  # compiled heights and widths; each holds the weights once more

_importer = os.getpid()
_copies = itertools.count()
_compiling = threading.RLock()  # two threads would both compile what both call first


def _call(model: FoldedModel, x: torch.Tensor) -> Any:
    return model.forward(x)


def _separately_compiled_call() -> types.FunctionType:
    """Return a copy of :func:`_call` with its own code object.

    torch.compile counts recompilations, and detects dynamic sizes, per code object: with a shared one, the second size
    would be compiled for all sizes, and the ninth model would run uncompiled.
    """
    code = _call.__code__.replace(co_name=f'call_{next(_copies)}')  # equal code objects count as one
    return types.FunctionType(code, _call.__globals__)


class _CompiledBySize:
    """Calls of a model, compiled separately for each height and width.

    One compilation for all sizes would do, but symbolic sizes take a compiler many times longer than numbers.
    """

    def __init__(self, model: nn.Module) -> None:
        # compiled code holds packed copies of most weights but the biases themselves: with copies, no edit changes it
        self.model = FoldedModel(copy.deepcopy(
            model, {id(p): p for p in (*model.parameters(), *model.buffers()) if p.ndim > 1}))
        self.first_batch_sizes: Dict[Tuple[int, ...], int] = {}  # by height and width
        self.calls: Dict[Any, Callable[[torch.Tensor], Any]] = {}
        self.warned = False

    def _key(self, x: torch.Tensor) -> Tuple[Any, ...]:
        """Return what is compiled separately; a bool instead of the batch size stands for all others from 2.

        On one thread, it says whether they are 16 or more, from which torch chooses other convolutions.

        Each key has a code object of its own: torch reorders a code object's several compilations while other threads
        look for theirs, which they then miss and compile again.
        """
        size, batch = tuple(x.shape[-2:]), x.shape[0]
        threads = torch.get_num_threads()
        fixed = batch if batch in (1, self.first_batch_sizes.get(size)) else threads == 1 and batch >= 16
        return size, str(fixed), x.dtype, threads  # as a dictionary's keys, True is 1

    def _first_call(self, x: torch.Tensor) -> Any:
        size = tuple(x.shape[-2:])
        if size not in self.first_batch_sizes:
            self.first_batch_sizes[size] = x.shape[0]
        key = self._key(x)
        if key in self.calls:
            return self.calls[key](x)  # compiled by another thread in the meantime
        if key[1] in ('True', 'False'):
            torch._dynamo.maybe_mark_dynamic(x, 0)
        call = torch.compile(types.MethodType(_separately_compiled_call(), self.model), **COMPILE)
        y = call(x)
        self.calls[key] = call
        return y

    def __call__(self, x: torch.Tensor) -> Any:
        size, key = tuple(x.shape[-2:]), self._key(x)
        # torch.compile applies its `options` after tracing, which without freezing makes the weights inputs
        with torch._inductor.config.patch(freezing=True, **(FORKED if os.getpid() != _importer else {})):
            if key in self.calls:
                return self.calls[key](x)
            with _compiling:
                if size in self.first_batch_sizes or len(self.first_batch_sizes) < MAX_SIZES:
                    return self._first_call(x)
                warned, self.warned = self.warned, True
        if not warned:
            warnings.warn(
                f'Calls of {MAX_SIZES} sizes are compiled; {size[0]}x{size[1]} and other new sizes run uncompiled. '
                'Optimize another copy for them, or use compile=False.', stacklevel=5)
        return self.model.forward(x)


class OptimizedModel(FoldedModel):
    """Result of :func:`optimize_for_inference`; a copy, by deepcopy or pickle, compiles at its first call.

    Threads may share it. Its weights are constants: edits in place change nothing, ``to`` and ``load_state_dict`` are
    errors.
    """

    agreement = None  # of a quantized model

    def __init__(self, model: nn.Module, compiled: bool) -> None:
        super().__init__(model)
        self.compiled = compiled
        self._compile_calls()

    def _compile_calls(self) -> None:
        if self.compiled:
            self._compiled_call_impl = _CompiledBySize(self.model)  # Module.compile's attribute, which no state has

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._compile_calls()

    def __call__(self, x: torch.Tensor) -> Any:
        # one state for all callers: in another mode, or from tensors made in another mode, torch compiles once more
        device = next(self.parameters(), torch.empty(0)).device.type
        with torch.inference_mode(False), torch.autocast(device, enabled=False):
            plain = x if not isinstance(x, torch.Tensor) else x.clone() if x.is_inference() else x.detach()
            return super().__call__(plain)


def choose_backend(model: nn.Module, dtype: torch.dtype, int8: bool) -> str:
    """Return what is fastest, by docs/deployment.md.

    inductor, but OpenVINO for int8, for bfloat16 without AMX, and for float32 without convolutions for Winograd.
    """
    if int8:
        return 'openvino'
    if (next(model.parameters(), torch.empty(0)).device.type != 'cpu' or not is_installed()
            or not free_sizes(model)):
        return 'inductor'
    if dtype == torch.float32:
        return 'inductor' if any(map(WinogradConv2d.suits, model.modules())) and is_available() else 'openvino'
    half = dtype == torch.bfloat16 and torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
    return 'openvino' if half else 'inductor'


def optimize_for_inference(
        model: nn.Module,
        example_size: Sequence[int],
        dtype: Optional[torch.dtype] = None,
        compile: bool = True,
        example_sizes: Sequence[Sequence[int]] = (),
        calibration: Optional[Iterable[Any]] = None,
        gate: Gate = DEFAULT_GATE,
        backend: Optional[str] = None,
) -> Union[OptimizedModel, OpenVINOModel]:
    """Return a fast copy of a trained model with the same outputs, compiled and warmed up.

    Batch norms are folded (:func:`~timm_assemble.deploy.fold_batch_norms`). Then one of two compilers runs the model:

    - inductor, with weights cast, channels-last and as constants ("freezing"): it packs them for the processor and
      fuses everything but the convolutions. In float32 on a CPU, wide 3x3 convolutions become
      :class:`~timm_assemble.deploy.winograd.WinogradConv2d`. A height and width compiles at its first call; once more
      at the first call with another batch size, for all batch sizes from 2 (on one thread once for 2 to 15 and once
      from 16); and once for a single image, whatever the calling thread, its grad or inference mode and autocast. Each
      compilation holds the packed weights. After eight heights and widths, further ones run uncompiled, with a warning.
    - OpenVINO, on a CPU: one conversion serves all batch sizes, heights and widths.

    Args:
        model: A model in eval mode from ``create_model``, also with ``features_only``, or any module that takes one
            image tensor. It stays unchanged, the copy stays on its device.
        example_size: ``(B, C, H, W)`` of the warm-up, or ``(C, H, W)`` for a single image.
        dtype: ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``; the model's own if None. Images and outputs
            keep the caller's dtype. The gain depends on the processor, see docs/deployment.md.
        compile: Whether to compile; inductor needs a C++ compiler on a CPU.
        example_sizes: Further sizes to warm up, so that a server compiles nothing later.
        calibration: For int8, on a CPU by OpenVINO: batches of images as the model sees them, tensors or tuples that
            begin with one, such as a loader. Up to 512 images are used: a quarter for the ranges of activations, the
            others for the gate. ``dtype`` is then that of what stays in float.
        gate: What the quantized model must reach.
        backend: ``'inductor'`` or ``'openvino'``; if None, the faster one: OpenVINO for int8 and, where it is installed
            and takes all sizes of the model, on a CPU for bfloat16 with AVX512-BF16 and without AMX, and for float32
            without wide 3x3 convolutions.

    Returns:
        A module with the same call and a copy of the weights; what is not a number in the images may become 0, by the
        ReLUs of both compilers. Its ``agreement`` is what the gate measured, or None.

    Raises:
        UserError: The model is in training mode or optimized already, a size is not 3 or 4 positive integers or has
            other channels than the model, ``dtype`` or ``backend`` is not supported, or unsuitable images of
            ``calibration``. A GateError if the quantized model does not reach the gate.
    """
    check(backend is None or backend in BACKENDS, 'backend', backend, f'None or one of {BACKENDS}')
    check(compile or backend != 'openvino', 'compile', compile, "True with backend='openvino'")
    for size in example_sizes:
        check_size(model, size, 'example_sizes')
    own = next((p.dtype for p in model.parameters()), torch.float32)
    kind = backend or choose_backend(model, dtype or own, calibration is not None)
    if kind == 'inductor' or not compile:
        check(calibration is None, 'calibration', f'backend={kind!r}, compile={compile}', 'compiled by OpenVINO')
    sizes = [example_size, *example_sizes]
    with torch.inference_mode(False):  # its tensors would make every call compile once more
        if kind == 'openvino' and compile:
            try:
                optimized: Any = _optimize_openvino(model, sizes, dtype or own, calibration, gate)
                if backend or calibration is not None or optimized.size is None:
                    return optimized
            except UserError:
                if backend or calibration is not None:
                    raise
        folded = fold_for_inference(model, example_size, dtype)
        device = next(folded.parameters()).device
        if compile:
            use_winograd(folded, torch.zeros([1, *example_size][-4:], device=device))
        optimized = OptimizedModel(folded.model, compile)
        for size in sizes:
            optimized(torch.zeros([1, *size][-4:], device=device))
    return optimized


def _optimize_openvino(
        model: nn.Module, sizes: Sequence[Sequence[int]], dtype: torch.dtype, calibration: Optional[Iterable[Any]],
        gate: Gate,
) -> OpenVINOModel:
    check_openvino(model, dtype)
    images = None
    if calibration is not None:
        check_installed('calibration', 'openvino', 'nncf')
        images = split_images(calibration, sizes[0][-3:])
    folded = fold_for_inference(model, sizes[0], torch.float32)
    optimized = OpenVINOModel(folded, dtype, sizes)
    if images is not None:
        optimized.each_size = True
        optimized.ir = quantize(optimized.ir, (x.numpy() for x in images.calibration.split(1)))
        optimized.agreement = compare(folded, optimized, images.held_out.split(BATCH_SIZE), gate.sure)
        gate.check(optimized.agreement)
    for size in sizes:
        optimized(torch.zeros([1, *size][-4:]))
    return optimized
