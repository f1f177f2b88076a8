"""OpenVINO: conversion, files, and models that it runs in the process."""
import functools
import importlib.util
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.utils._pytree import tree_unflatten

from ..errors import UserError, check_installed, error_line
from .fold import FoldedModel
from .gate import Agreement
from .graph import DeployedModel, free_sizes, trace

__all__ = ['OpenVINOModel', 'check_openvino', 'compile_openvino', 'convert', 'is_installed', 'save']

_importer = os.getpid()
PRECISIONS = {torch.float32: 'f32', torch.bfloat16: 'bf16'}  # in which float layers are computed


def is_installed() -> bool:
    """Return whether OpenVINO is installed."""
    return importlib.util.find_spec('openvino') is not None


def check_openvino(model: nn.Module, dtype: torch.dtype) -> None:
    """Check before long work that OpenVINO can run a model.

    Raises:
        UserError: OpenVINO is missing, or the model is not on a CPU or not to be computed in float32 or bfloat16.
    """
    device = next(model.parameters(), torch.empty(0)).device
    if device.type != 'cpu':
        raise UserError(f"backend must be 'inductor' for a model that is not on a CPU, got OpenVINO for {device}")
    if dtype not in PRECISIONS:
        raise UserError(f'dtype must be float32 or bfloat16 for OpenVINO, got {dtype}')
    check_installed("backend 'openvino'", 'openvino', 'openvino')


def convert(program: Any, shape: Optional[Sequence[int]] = None) -> Any:
    """Convert a torch.export program; its input is ``images``, its first output ``logits``.

    Args:
        program: The program.
        shape: Of the images, -1 for what is free; all that the program leaves free if None.
    """
    import openvino

    model = openvino.convert_model(program)
    if shape is not None:
        model.reshape(list(shape))
    for port, name in ((model.inputs[0], 'images'), (model.outputs[0], 'logits')):
        port.get_tensor().set_names({name})
    return model


@functools.cache
def _core(process: int) -> Any:
    """Return the only Core of a process, which outlives every model.

    The plugin of CPUs gives the thread that loads it another stack for signals, and frees that stack with the last
    model of the Core, in any thread: the next signal that Python handles, as a DataLoader's workers send, then ends the
    process. So the plugin is loaded in a thread of its own.
    """
    import openvino

    def load() -> Any:
        core = openvino.Core()
        core.get_property('CPU', 'FULL_DEVICE_NAME')  # loads the plugin
        return core
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(load).result()


def compile_openvino(model: Any, threads: int = 0, precision: str = 'f32', streams: int = 1) -> Any:
    """Compile a model or file for the CPU.

    Args:
        model: The model, or the path of an IR or ONNX file.
        threads: Of each call; torch's if 0.
        precision: In which float layers are computed; OpenVINO's default depends on the processor.
        streams: Calls that run at a time; one in a forked process.
    """
    forked = os.getpid() != _importer
    return _core(os.getpid()).compile_model(model, 'CPU', {
        'INFERENCE_PRECISION_HINT': precision,
        # OpenVINO gives a new model the threads of a freed one, which a fork does not inherit, and would wait for them
        # forever; without streams, the calling thread computes
        'NUM_STREAMS': 0 if forked else streams,
        # it would bind threads, the caller's too, to the first cores, which processes then share
        'ENABLE_CPU_PINNING': False,
        'INFERENCE_NUM_THREADS': streams * (threads or torch.get_num_threads())})


def save(model: Any, path: Path) -> None:
    """Write a model as ``path``, an XML file, and its weights beside it as ``*.bin``."""
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)


class OpenVINOModel(FoldedModel):
    """A model that OpenVINO runs, with the same call; no gradients.

    One conversion serves all batch sizes, heights and widths. The sizes of the warm-up are compiled for themselves as
    well, which is some percent faster. Threads may share the model: each has its own request. A process, also a forked
    one, and a number of threads of torch compile once, in a second. Threads of a forked process take turns.

    Args:
        model: Folded, in float32, on a CPU.
        dtype: float32 or bfloat16, in which float layers are computed.
        sizes: ``(B, C, H, W)`` of the warm-up.
    """

    memory_format = torch.contiguous_format
    agreement: Optional[Agreement] = None  # of a quantized model

    def __init__(self, model: FoldedModel, dtype: torch.dtype, sizes: Sequence[Sequence[int]]) -> None:
        super().__init__(model.model)
        self.sizes = {tuple([1, *size][-4:]) for size in sizes}
        for any_size in (True, False) if free_sizes(model) else (False,):
            self.size: Optional[Tuple[int, ...]] = None if any_size else tuple(sizes[0][-3:])  # the only (C, H, W)
            try:
                self._convert(model, sizes[0], any_size)
                break
            except Exception as e:  # of torch.export's and OpenVINO's own classes: perhaps the model is for one size
                if not any_size:
                    raise UserError(f"backend must be 'inductor' for this model, got OpenVINO: {error_line(e)}") from e
        self.precision = PRECISIONS[dtype]
        self.each_size = False  # of int8: compiled for any size, OpenVINO computes some networks wrongly
        self.model = nn.Identity()  # the weights are OpenVINO's
        self._forget()

    def _convert(self, model: FoldedModel, size: Sequence[int], any_size: bool) -> None:
        program = trace(DeployedModel(model), [1, *size][-4:], any_batch=True, any_size=any_size)
        self.outputs = program.call_spec.out_spec
        self.ir = convert(program)

    def _forget(self) -> None:
        self._compiled: Dict[Any, Any] = {}
        self._compiling, self._local = threading.Lock(), threading.local()

    def __getstate__(self) -> Dict[str, Any]:
        state = {name: value for name, value in super().__getstate__().items()
                 if name not in ('_compiled', '_compiling', '_local')}
        with tempfile.TemporaryDirectory() as folder:
            save(self.ir, Path(folder) / 'model.xml')
            state['ir'] = [(Path(folder) / f'model.{end}').read_bytes() for end in ('xml', 'bin')]
        return state

    def __setstate__(self, state: Dict[str, Any]) -> None:
        super().__setstate__(state)
        xml, weights = state['ir']
        self.ir = _core(os.getpid()).read_model(xml, weights)
        self._forget()

    def _compile(self, size: Optional[Tuple[int, ...]], threads: int) -> Any:
        model = self.ir
        if size is not None:
            model = model.clone()
            model.reshape(list(size))
        return compile_openvino(model, threads, self.precision, max(1, (os.cpu_count() or 1) // threads))

    def _request(self, size: Tuple[int, ...]) -> Any:
        """Return this thread's request; OpenVINO's threads do not survive a fork."""
        key = size if self.each_size or size in self.sizes else None, torch.get_num_threads(), os.getpid()
        requests: Dict[Any, Any] = vars(self._local)
        if key not in requests:
            with self._compiling:
                if key not in self._compiled:
                    self._compiled[key] = self._compile(*key[:2])
            requests[key] = self._compiled[key].create_infer_request()
        return requests[key]

    def forward(self, x: torch.Tensor) -> Any:
        if self.size not in (None, tuple(x.shape[1:])):
            raise UserError(f'x must be (B, {", ".join(map(str, self.size or ()))}), got {tuple(x.shape)}.')
        request = self._request(tuple(x.shape))
        try:
            request.infer(x.detach().float().numpy(), share_inputs=True, share_outputs=True)
            arrays = [tensor.data for tensor in request.output_tensors]  # of the request: the next call overwrites them
            if len(arrays[0]) != len(x):  # as where the process has one core: no error
                raise RuntimeError('the outputs are not of as many images')
        except RuntimeError as e:  # a size that the model does not take
            raise UserError(f'x must be of a size that the model takes, got {tuple(x.shape)}: {error_line(e)}') from e
        outputs: List[torch.Tensor] = [
            y.to(x.dtype) if y.is_floating_point() else y
            for y in (torch.from_numpy(array.copy()) for array in arrays)]
        return tree_unflatten(outputs, self.outputs)
