"""Complete small models in half precision, channels-last, TorchScript, fx, torch.compile, torch.export and ONNX."""
import warnings
from functools import partial

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.layers import create_feature_extractor
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.models import feature_extraction

from timm_assemble import layers
from timm_assemble.layers import big_little_sum

# as few blocks as possible: tracing and compiling take seconds per block
tiny = partial(timm.create_model, 'test_assemble_resnet', num_classes=10, layers=(2, 2, 2, 1))
VARIANTS = {
    'assembled': {},
    'plain_gem_embedding': dict(
        big_little=(), shortcut='plain', aa_shortcut=True, attn='', global_pool='gem', embedding_size=16, aa_size=4,
        layers=(1, 1, 1, 1), output_stride=8),
    'd_se': dict(big_little=(), shortcut='d', deep_stem=True, attn='se', layers=(1, 1, 1, 1), output_stride=8),
}


@pytest.fixture(params=VARIANTS)
def kwargs(request):
    torch.manual_seed(0)
    torch._dynamo.reset()
    return VARIANTS[request.param]


def test_variants_have_every_public_layer():
    models = [tiny(drop_block_rate=0.1, device='meta', **kwargs) for kwargs in VARIANTS.values()]
    models.append(timm.create_model('assemble_mobilenet', device='meta'))
    public = {v for v in vars(layers).values() if isinstance(v, type) and issubclass(v, torch.nn.Module)}
    assert public <= {type(module) for model in models for module in model.modules()}


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_precision_is_close_to_float32(kwargs, dtype, tolerance):
    model, x = tiny(**kwargs).eval(), torch.randn(2, 3, 64, 64)
    expected = model(x)
    y = model.to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    assert (y.float() - expected).abs().max() < tolerance * expected.std()


def test_autocast_gives_float32_gradients(kwargs):
    model, x = tiny(drop_block_rate=0.1, **kwargs).train(), torch.randn(4, 3, 64, 64)
    with torch.autocast('cpu', torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_every_layer_stays_channels_last(kwargs):
    model = tiny(drop_block_rate=0.1, **kwargs).to(memory_format=torch.channels_last).train()
    names = []

    def check(name, module, args, output):
        if output.ndim == 4 and output.shape[1] > 1 and output.shape[2] * output.shape[3] > 1:
            names.append(name)
            assert output.is_contiguous(memory_format=torch.channels_last), name

    for name, module in model.named_modules():
        module.register_forward_hook(partial(check, name))
    model(torch.randn(2, 3, 96, 64).contiguous(memory_format=torch.channels_last))
    assert len(names) > 30


def test_compiles_to_one_graph_for_every_drop_block_rate(kwargs):
    """In training; tests/deploy compiles the models in eval mode."""
    model = tiny(drop_block_rate=0.1, **kwargs).train()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = torch.randn(2, 3, 64, 64)
    for rate in (0.0, 0.05, 0.1):
        model.set_drop_block_rate(rate)
        torch.manual_seed(1)  # of DropBlock
        y = compiled(x)
        y.sum().backward()
    assert counter.frame_count == 1
    torch.manual_seed(1)
    torch.testing.assert_close(y, model(x))


def test_compiler_decomposes_and_partitions_forward_and_backward():
    """A block with selective kernel, DropBlock and blur, and the Big-Little resize; generating code would be slow."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    block = tiny(drop_block_rate=0.1).stages[3][1].train()
    x = torch.randn(2, 128, 7, 7, requires_grad=True)

    def call(x):
        return big_little_sum(block(x)[:, :128], x)
    gradients = []
    for function in (torch.compile(call, fullgraph=True, backend='aot_eager_decomp_partition'), call):
        torch.manual_seed(1)  # of DropBlock
        gradients.append(torch.autograd.grad(function(x).square().mean(), [x, *block.parameters()]))
    for got, expected in zip(*gradients):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)


def test_export_and_onnx_give_equal_outputs_for_every_batch_and_size(tmp_path):
    """A Big-Little stage; tests/deploy exports whole networks with shortcut d, and the MobileNet."""
    torch.manual_seed(0)
    model, path = tiny(), str(tmp_path / 'model.onnx')
    model.prune_intermediate_layers([1])
    model.reset_classifier(10, 'gem')
    model.eval()
    axes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes={'x': axes})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # from the exporter
        torch.onnx.export(program, (), path, input_names=['x'], dynamo=True, verbose=False)
    session, exported = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']), program.module()
    for shape in ((1, 3, 64, 64), (3, 3, 96, 128), (2, 3, 75, 101)):
        x = torch.randn(shape)
        expected = model(x)
        torch.testing.assert_close(exported(x), expected, rtol=1e-4, atol=1e-5)
        y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        np.testing.assert_allclose(y, expected.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('training', [False, True])
def test_symbolic_trace_gives_equal_outputs_for_every_size_and_dtype(kwargs, training):
    model = tiny(drop_block_rate=0.5, drop_path_rate=0.5, **kwargs).train(training)
    traced = torch.fx.symbolic_trace(model)
    for dtype, size in ((torch.float32, (4, 3, 64, 64)), (torch.bfloat16, (2, 3, 45, 7))):
        outputs, x = [], torch.randn(size, dtype=dtype)
        for m in (model, traced):
            torch.manual_seed(1)  # of DropBlock
            outputs.append(m.to(dtype)(x))
        assert torch.equal(*outputs)


@pytest.mark.parametrize('extractor', [create_feature_extractor, feature_extraction.create_feature_extractor])
def test_fx_extracts_features(kwargs, extractor):
    """With timm's function and torchvision's."""
    model, x = tiny(**kwargs).eval(), torch.randn(2, 3, 64, 64)
    extracted = extractor(model, ['stages.2', 'fc'])(x)
    torch.testing.assert_close(extracted['fc'], model(x))
    assert extracted['stages.2'].shape[:2] == (2, 128)


def test_tracing_to_onnx_gives_equal_outputs(kwargs, tmp_path):
    model, x, path = tiny(**kwargs).eval(), torch.randn(2, 3, 64, 96), str(tmp_path / 'model.onnx')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # from the exporter
        torch.onnx.export(model, (x,), path, input_names=['x'], dynamo=False)
    y = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']).run(None, {'x': x.numpy()})[0]
    np.testing.assert_allclose(y, model(x).detach(), rtol=1e-3, atol=1e-4)


def test_saved_torchscript_gives_equal_outputs_and_drops_blocks(kwargs, tmp_path):
    model, x = tiny(drop_block_rate=0.5, **kwargs).train(), torch.randn(2, 3, 64, 64)
    scripted = torch.jit.script(model)
    assert not torch.equal(scripted(x), scripted(x))
    scripted.set_drop_block_rate(0.0)
    assert torch.equal(scripted(x), scripted(x))
    scripted.eval(), model.eval()
    torch.testing.assert_close(scripted(x), model(x))
    torch.jit.save(scripted, tmp_path / 'model.pt')
    torch.testing.assert_close(torch.jit.load(tmp_path / 'model.pt')(x[:, :, :45, :51]), model(x[:, :, :45, :51]))
