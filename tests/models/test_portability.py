"""What others do to a model: half precision, compile, export, ONNX, fx, channels-last. On the smallest model, whole."""
import warnings
from functools import partial

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.layers import create_feature_extractor
from torch._dynamo.testing import CompileCounterWithBackend

from timm_assemble.layers import big_little_sum

# as few blocks as there can be: tracing and compiling cost seconds a block
tiny = partial(timm.create_model, 'test_assemble_resnet', num_classes=10, layers=(2, 2, 2, 1))
VARIANTS = {
    'assembled': {},
    'd_se': dict(big_little=(), shortcut='d', deep_stem=True, attn='se', layers=(1, 1, 1, 1)),
    'gem_embedding': dict(attn='', global_pool='gem', embedding_size=16, aa_size=4),
}


@pytest.fixture(params=VARIANTS)
def kwargs(request):
    torch.manual_seed(0)
    torch._dynamo.reset()
    return VARIANTS[request.param]


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision(kwargs, dtype, tolerance):
    model, x = tiny(**kwargs).eval(), torch.randn(2, 3, 64, 64)
    expected = model(x)
    y = model.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert (y.float() - expected).abs().max() < tolerance * expected.std()


def test_autocast_trains(kwargs):
    model, x = tiny(drop_block_rate=0.1, **kwargs).train(), torch.randn(4, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_channels_last_stays_throughout(kwargs):
    """Blur, pooling, resizing and DropBlock included: no layer may fall back to the other layout."""
    model = tiny(drop_block_rate=0.1, **kwargs).to(memory_format=torch.channels_last).train()
    seen = []

    def look(name, module, args, output):
        if output.ndim == 4 and output.shape[1] > 1 and output.shape[2] * output.shape[3] > 1:
            seen.append(name)
            assert output.is_contiguous(memory_format=torch.channels_last), name

    for name, module in model.named_modules():
        module.register_forward_hook(partial(look, name))
    model(torch.randn(2, 3, 96, 64).contiguous(memory_format=torch.channels_last))
    assert len(seen) > 30


@pytest.mark.parametrize('training', [False, True])
def test_compiles_to_one_graph(kwargs, training):
    model = tiny(drop_block_rate=0.1, **kwargs).train(training)
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = torch.randn(2, 3, 64, 64)
    for rate in (0.0, 0.05, 0.1):  # a schedule moves the rate: the same graph must serve
        model.set_drop_block_rate(rate)
        y = compiled(x)
        y.sum().backward()
    assert counter.frame_count == 1
    if not training:
        torch.testing.assert_close(y, model(x))


def test_compiled_by_inductor():
    """Generated code, forward and backward, of a block with selective kernel, DropBlock and blur, and of the resize."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    block = tiny(drop_block_rate=0.1).stage4[0].train()
    x = torch.randn(2, 128, 7, 7, requires_grad=True)
    compiled = torch.compile(lambda x: big_little_sum(block(x)[:, :128], x), fullgraph=True)
    compiled(x).square().mean().backward()
    assert torch.isfinite(x.grad).all() and all(p.grad is not None for p in block.parameters())
    block.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), big_little_sum(block(x)[:, :128], x), rtol=1e-3, atol=1e-4)


def test_export_and_onnx_with_dynamic_batch_and_size(kwargs, tmp_path):
    model, path = tiny(**kwargs).eval(), str(tmp_path / 'model.onnx')
    axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes={'x': axes})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter's own
        torch.onnx.export(program, (), path, input_names=['x'], dynamo=True, verbose=False)
    session, exported = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']), program.module()
    for shape in ((1, 3, 64, 64), (3, 3, 96, 128), (2, 3, 75, 101)):
        x = torch.randn(shape)
        expected = model(x)
        torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)
        y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        np.testing.assert_allclose(y, expected.detach(), rtol=1e-3, atol=1e-4)


def test_fx(kwargs):
    model, x = tiny(**kwargs).eval(), torch.randn(2, 3, 64, 64)
    extracted = create_feature_extractor(model, ['stage3', 'head'])(x)
    torch.testing.assert_close(extracted['head'], model(x))
    assert extracted['stage3'].shape == (2, 128, 4, 4)


def test_torchscript(kwargs):
    model, x = tiny(drop_block_rate=0.5, **kwargs).train(), torch.randn(2, 3, 64, 64)
    scripted = torch.jit.script(model)
    assert not torch.equal(scripted(x), scripted(x))  # DropBlock is in it
    scripted.eval(), model.eval()
    torch.testing.assert_close(scripted(x), model(x))
    torch.testing.assert_close(scripted(x[:, :, :45, :51]), model(x[:, :, :45, :51]))
