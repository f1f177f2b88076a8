"""Models that OpenVINO runs in the process, against the original: sizes, threads, processes, copies."""
import copy
import ctypes
import gc
import multiprocessing
import pickle

import pytest
import torch
from timm.layers import create_conv2d
from torch import nn

import timm_assemble
from timm_assemble.deploy.export import export_model
from timm_assemble.deploy.openvino import OpenVINOModel, compile_openvino
from timm_assemble.deploy.optimize import OptimizedModel
from timm_assemble.deploy.quantize import quantize

from .test_optimize import error, make, tiny
from .test_servers import run_threads

pytest.importorskip('openvino')
small = {**tiny, 'layers': (1, 1, 1, 1), 'big_little': (), 'shortcut': 'd'}
SIZES = [(1, 3, 64, 64), (2, 3, 64, 64), (5, 3, 64, 96), (1, 3, 75, 101), (3, 3, 31, 40)]


@pytest.fixture(scope='module')
def model():
    return make(width=16, **small)


@pytest.fixture(scope='module')
def optimized(model):
    return timm_assemble.optimize_for_inference(model, (2, 3, 64, 64), backend='openvino')


def images(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def expected(model, x):
    with torch.no_grad():
        return model(x)


def test_threads_mix_sizes_and_modes_and_compile_nothing(model, optimized):
    wanted = {size: expected(model, images(*size)) for size in SIZES}
    optimized(images(1, 3, 64, 64))
    compiled = len(optimized._compiled)
    assert compiled == 2  # the size of the warm-up, and all others

    def call(i):
        for n in range(2 * len(SIZES)):
            size = SIZES[(i + n) % len(SIZES)]
            with torch.inference_mode(i % 2 == 1):
                assert error(optimized(images(*size)), wanted[size]) < 1e-4
    run_threads(call)
    assert len(optimized._compiled) == compiled


def work(optimized, x, queue):
    queue.put(optimized(x).numpy())


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_after_fork_and_spawn(method, model, optimized):
    """Also where models were freed before, whose idle threads OpenVINO would give to the fork's."""
    context, x = multiprocessing.get_context(method), images(3, 3, 64, 64)
    copies = [copy.deepcopy(optimized) for _ in range(2)]
    for other in copies:
        other(x)
    del copies, other
    gc.collect()
    queue = context.Queue()
    process = context.Process(target=work, args=(optimized, x, queue))
    process.start()
    found = queue.get(timeout=100)
    process.join()
    assert process.exitcode == 0 and error(torch.from_numpy(found), expected(model, x)) < 1e-4


class Padded(nn.Sequential):
    """With TensorFlow's padding, for which OpenVINO takes one size."""

    def __init__(self):
        super().__init__(create_conv2d(3, 8, 3, stride=2, padding='same'), nn.ReLU())


class TinyAttention(nn.Conv2d):
    """By its name, a network whose free sizes take minutes to trace."""

    def __init__(self):
        super().__init__(3, 8, 3, stride=2)


@pytest.mark.parametrize('network, kind', [
    (lambda: Features(), OpenVINOModel), (Padded, OptimizedModel), (TinyAttention, OptimizedModel),
    (lambda: nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1)), OptimizedModel),
    (lambda: make(width=16, **small), OptimizedModel)])
@torch.no_grad()
def test_float32_is_openvinos_without_winograd(network, kind):
    model, x = network().eval(), images(2, 3, 64, 64)
    optimized = timm_assemble.optimize_for_inference(model, x.shape)
    y, expected = optimized(x), model(x)
    assert type(optimized) is kind
    assert all(error(*pair) < 1e-4 for pair in (zip(y, expected) if kind is OpenVINOModel else [(y, expected)]))


@pytest.mark.filterwarnings('ignore')
def test_free_sizes_of_tensorflows_padding_are_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"^any_size must be False for a model with TensorFlow's padding"):
        export_model(Padded().eval(), tmp_path / 'x.onnx', (1, 3, 32, 32), 'onnx', any_size=True)


def test_copies_are_equal_and_the_number_of_threads_may_change(model, optimized):
    x = images(2, 3, 64, 64)
    for other in (copy.deepcopy(optimized), pickle.loads(pickle.dumps(optimized))):
        assert torch.equal(other(x), optimized(x)) and other.pretrained_cfg == model.pretrained_cfg
    torch.set_num_threads(2)
    try:
        assert error(optimized(x), expected(model, x)) < 1e-4
    finally:
        torch.set_num_threads(1)


class Features(nn.Module):
    """As create_model's features_only: several outputs, in a list."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 4, 3, 2)

    def forward(self, x):
        x = self.first(x)
        return [x, self.second(x)]


@torch.no_grad()
def test_features_and_bfloat16():
    model, x = Features().eval(), images(2, 3, 64, 64)
    optimized = timm_assemble.optimize_for_inference(model, x.shape, torch.bfloat16, backend='openvino')
    got = optimized(x)
    assert isinstance(got, list) and [y.shape for y in got] == [y.shape for y in model(x)]
    assert all(y.dtype == torch.float32 and 1e-6 < error(y, z) < 0.2 for y, z in zip(got, model(x)))
    assert optimized(x.bfloat16())[0].dtype == torch.bfloat16


@torch.no_grad()
def test_a_model_for_one_size_rejects_others():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 5)).eval(), images(2, 3, 16, 16)
    optimized = timm_assemble.optimize_for_inference(model, x.shape, backend='openvino')
    assert isinstance(optimized, OpenVINOModel) and error(optimized(x[:1]), model(x[:1])) < 1e-4
    with pytest.raises(ValueError, match=r'x must be .*, got \(2, 3, 16, 12\)'):
        optimized(x[..., :12])


class SignalStack(ctypes.Structure):
    _fields_ = [('address', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]


def signal_stack():
    """Where this thread handles signals."""
    stack = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.size


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), 'sigaltstack'), reason='signals have no stacks here')
def test_signals_keep_their_stack():
    """OpenVINO gives the thread one that it frees with the last model: the next signal would end the process."""
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    before = signal_stack()
    optimized = timm_assemble.optimize_for_inference(layer, (2, 3, 32, 32), backend='openvino')
    optimized(torch.zeros(2, 3, 32, 32))
    assert signal_stack() == before
    compile_openvino(quantize(optimized.ir, [torch.rand(2, 3, 32, 32).numpy()]))
    assert signal_stack() == before
