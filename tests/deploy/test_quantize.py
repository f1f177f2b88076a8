"""int8 in the process: the operators that run, what stays in float, copies, and bad input."""
import copy
import importlib.util
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

import timm_assemble
from timm_assemble.deploy.gate import Gate, GateError
from timm_assemble.deploy.quantize import float_modules

from ._trained import SIZE, make_images, make_trained, spoil

SMALL = (3, 16, 16)
UNPICKLE = """
import pickle, sys, torch
with open(sys.argv[1], 'rb') as file:
    model, x, y = pickle.load(file)
assert torch.equal(model(x), y)
assert 'dequantize_per_channel' in model.model.graph.code  # of the int8 weights, which the compiler needs
"""


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)).eval()


def quantize(model, size=SMALL, compile=False, images=None, **gate):
    images = torch.randn(60, *size) if images is None else images
    return timm_assemble.optimize_for_inference(
        model, (4, *size), compile=compile, calibration=images.split(16), gate=Gate(**gate))


@pytest.mark.timeout(600)  # it compiles
def test_compiled_convolutions_run_in_int8_but_the_first_and_the_classifier():
    model, x = small(), torch.randn(4, *SMALL)
    optimized = quantize(model, compile=True, agreement=0, sure=0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        y = optimized(x)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls['onednn::qconv_pointwise'] == 2 and calls['mkldnn::_convolution_pointwise'] == 1
    assert 'onednn::qlinear_pointwise' not in calls
    assert y.dtype == torch.float32 and not y.requires_grad and optimized.agreement.sqnr > 30
    with torch.no_grad():
        assert (y - model(x)).abs().max() < 0.1 * model(x).std()


def test_trained_network_passes_the_gate_and_a_spoiled_one_does_not():
    model, (images, _) = make_trained(), make_images(80, 2)
    optimized = quantize(model, SIZE, images=images)
    assert optimized.agreement.images == 60 and optimized.agreement.top1 >= 99
    assert optimized.num_classes == 4 and optimized.pretrained_cfg == model.pretrained_cfg
    x = make_images(7, 3)[0]
    with torch.no_grad():
        assert torch.equal(optimized(x).argmax(1), model(x).argmax(1))
    with pytest.raises(GateError, match='must keep the top-1'):
        quantize(spoil(model), SIZE, images=images)


def test_copies_equal_the_quantized_model_in_another_process_too(tmp_path):
    optimized, x = quantize(small(), agreement=0, sure=0), torch.randn(3, *SMALL)
    y = optimized(x)
    copied = copy.deepcopy(optimized)
    assert torch.equal(copied(x), y) and len(optimized(x[:1])) == 1
    assert [node.target for node in copied.model.graph.graph.nodes if node.op == 'call_function'].count(
        torch.ops.quantized_decomposed.dequantize_per_channel.default) == 2
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps((optimized, x, y)))
    subprocess.run([sys.executable, '-c', UNPICKLE, path], check=True, timeout=120,
                   env={**os.environ, 'OMP_NUM_THREADS': '1'})
    optimized.load_state_dict(optimized.state_dict())
    with pytest.raises(RuntimeError, match='Missing key'):  # of a model in float
        optimized.load_state_dict(small().state_dict())
    with pytest.raises(ValueError, match=r'x must be images of \(3, 16, 16\), for which the model was quantized, got'):
        optimized(x[..., 1:])
    with pytest.raises(ValueError, match='model must be in float, got one that is quantized already'):
        quantize(optimized)


def test_first_and_last_of_the_called_layers_stay_in_float():
    model = nn.Sequential()
    model.unused = nn.Conv2d(3, 3, 1)
    layers = small()
    model.forward = layers.forward
    model.body = layers
    assert float_modules(model, torch.zeros(2, *SMALL)) == ['body.0', 'body.8']


@pytest.mark.parametrize('kwargs, message', [
    (dict(dtype=torch.bfloat16), r'dtype must be float32 with `calibration`, got torch.bfloat16'),
    (dict(calibration=[torch.zeros(5, *SMALL)]), 'calibration must have at least 40 images, got 5'),
])
def test_bad_input_is_rejected(kwargs, message):
    with pytest.raises(ValueError, match=message):
        timm_assemble.optimize_for_inference(
            small(), (1, *SMALL), **{'compile': False, 'calibration': [torch.zeros(50, *SMALL)], **kwargs})


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r"calibration needs torchao: pip install '\.\[int8\]'"):
        quantize(small())
