"""What a GPU runs: logits of the CPU, training in mixed precision, compiled and captured calls, evaluation."""
import copy
import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

import timm_assemble
from timm_assemble.__main__ import main
from timm_assemble.layers import drop_block_2d

from ..deploy.test_optimize import CASES, error, make
from ..robustness._samples import arguments, make_samples

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
    pytest.mark.filterwarnings('ignore:TensorFloat32', 'ignore:Synchronization debug mode')]

PRECISIONS = {'float32': (torch.float32, 1e-3), 'bfloat16': (torch.bfloat16, 0.1), 'float16': (torch.float16, 0.02)}


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch):
    """By default, convolutions round float32 to the 10 bits of TensorFloat32."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def images(batch=4, side=64, chans=3, dtype=torch.float32):
    torch.manual_seed(1)
    return torch.randn(batch, chans, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('name, kwargs', CASES.values(), ids=CASES)
def test_logits_and_gradients_equal_those_of_the_cpu(name, kwargs):
    model = make(name, **kwargs).double()
    there = copy.deepcopy(model).cuda().to(memory_format=torch.channels_last)
    x = images(chans=model.in_chans, dtype=torch.float64)
    got, expected = there(x.cuda()), model(x)
    assert error(got.cpu(), expected) < 1e-9
    got.square().mean().backward(), expected.square().mean().backward()
    for (key, a), b in zip(there.named_parameters(), model.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        if b.grad is not None:
            torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-6, atol=1e-9 * b.grad.abs().max().item() + 1e-12)


@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('compiled', [False, True], ids=['eager', 'compiled'])
def test_training_lowers_the_loss(precision, compiled):
    """Autocast, DropBlock on channels-last tensors, and for float16 a gradient scaler."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = timm.create_model('test_assemble_resnet', num_classes=4, drop_block_rate=0.05).cuda()
    model = model.to(memory_format=torch.channels_last).train()
    forward = torch.compile(model, fullgraph=True) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler(enabled=precision == 'float16')
    x, target, losses = images(16).cuda(), torch.arange(16, device='cuda') % 4, []
    for _ in range(12):
        with torch.autocast('cuda', PRECISIONS[precision][0], enabled=precision != 'float32'):
            loss = F.cross_entropy(forward(x), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2, losses


def test_training_step_never_waits_for_the_gpu():
    """A wait in DropBlock would stall every step, once a block."""
    model = timm.create_model('test_assemble_resnet', drop_block_rate=0.1).cuda().train()
    x, target = images().cuda(), torch.zeros(4, dtype=torch.long, device='cuda')
    F.cross_entropy(model(x), target).backward()
    try:
        torch.cuda.set_sync_debug_mode('error')
        F.cross_entropy(model(x), target).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_drop_block_keeps_dtype_layout_and_mean(dtype):
    torch.manual_seed(0)
    x = torch.ones(8, 64, 14, 14, device='cuda', dtype=dtype).contiguous(memory_format=torch.channels_last)
    y = drop_block_2d(x, 0.1)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)
    assert 0 < (y == 0).float().mean().item() < 0.3
    assert y.float().mean().item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('compiled', [False, True], ids=['folded', 'compiled'])
def test_optimized_model_equals_the_original(precision, compiled):
    dtype, tolerance = PRECISIONS[precision]
    torch._dynamo.reset()
    model = make(num_classes=10)
    optimized = timm_assemble.optimize_for_inference(model.cuda(), (4, 3, 64, 64), dtype, compile=compiled)
    expected = model.double()(images(dtype=torch.float64).cuda()).float()
    for x in (images(), images().contiguous()):
        got = optimized(x.cuda())
        assert got.device.type == 'cuda' and got.dtype == torch.float32
        assert error(got, expected) < tolerance
    with torch.inference_mode():
        assert error(optimized(images(1).cuda()), expected[:1]) < 2 * tolerance


def test_optimized_model_is_captured_in_a_cuda_graph():
    model = timm_assemble.optimize_for_inference(make(num_classes=10).cuda(), (4, 3, 64, 64), torch.float16)
    x = images().cuda()
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        model(x), model(x)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        y = model(x)
    x.copy_(images(side=64).flip(0))
    graph.replay()
    torch.testing.assert_close(y, model(x))


def test_calibration_needs_a_processor():
    with pytest.raises(ValueError, match='a model that is not on a CPU, got OpenVINO for cuda'):
        timm_assemble.optimize_for_inference(make().cuda(), (4, 3, 64, 64), calibration=[images(64)])


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    """Return two models and images of three classes, in one folder and as a data set."""
    root = make_samples(tmp_path_factory.mktemp('samples'))
    (root / 'data').mkdir()
    for split in ('train', 'validation'):
        (root / 'data' / split).symlink_to(root / 'clean')
    return root


def both_devices(output, argv):
    """Run a command on the GPU, its default, and on the CPU."""
    for name, more in (('gpu', ()), ('cpu', ('--device', 'cpu'))):
        gc.collect()  # what is left of other tests
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        assert main([*map(str, argv), '--output', str(output / name), *more]) == 0
        assert (torch.cuda.max_memory_allocated() > before) == (name == 'gpu')
    return output / 'gpu', output / 'cpu'


def test_robustness_is_that_of_the_cpu(samples, tmp_path):
    folders = both_devices(
        tmp_path, arguments(samples, '--generate', samples / 'clean', '--corruptions', 'fog', 'snow'))
    gpu, cpu = ([line.split(',')[:6] for line in (folder / 'results.csv').read_text().splitlines()]
                for folder in folders)
    assert gpu == cpu and len(gpu) > 20


def test_retrieval_is_that_of_the_cpu(samples, tmp_path):
    names = [f'{name}=test_assemble_resnet={samples / name}.safetensors' for name in 'ab']
    gpu, cpu = both_devices(tmp_path, [
        'retrieval', *names, '--data-dir', samples / 'clean', '--workers', 0, '--input-size', 32, '--examples', 0])
    assert (gpu / 'results.csv').read_text() == (cpu / 'results.csv').read_text()


@pytest.mark.parametrize('views', [(), ('--views', 3, '--student', 'test_assemble_resnet')], ids=['logits', 'views'])
def test_teacher_logits_are_those_of_the_cpu(samples, tmp_path, views):
    model = ('--model', 'test_assemble_resnet', '--checkpoint', samples / 'a.safetensors', '--num-classes', 3)
    folders = both_devices(tmp_path, ['teacher-logits', *model, '--data-dir', samples / 'data', '--img-size', 64,
                                      '--batch-size', 2, '--workers', 0, *views])
    gpu, cpu = ({file.name: np.load(file) for file in folder.glob('*.npy')} for folder in folders)
    assert gpu and gpu.keys() == cpu.keys()
    for name, rows in gpu.items():
        for field in rows.dtype.names or ('',):
            got, expected = (rows[field], cpu[name][field]) if field else (rows, cpu[name])
            np.testing.assert_allclose(got, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.skipif('TIMM_SCRIPTS' not in os.environ, reason="TIMM_SCRIPTS, a folder with timm's train.py, is not set")
@pytest.mark.parametrize(
    'options', [('--amp',), ('--amp', '--amp-dtype', 'bfloat16'), ('--torchcompile',)], ids=' '.join)
def test_train_script_trains_on_the_gpu(samples, tmp_path, options):
    run = subprocess.run([
        sys.executable, '-m', 'timm_assemble', 'train', '--data-dir', samples / 'data',
        '--model', 'test_assemble_resnet', '--num-classes', '3',
        '--img-size', '64', '--batch-size', '2', '--epochs', '2', '--warmup-epochs', '0',
        '--drop-block', '0.1', '--mixup', '0.2', '--smoothing', '0.1', '--workers', '0', '--channels-last',
        '--output', tmp_path, *options], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    assert 'Best metric' in run.stdout + run.stderr and 'cuda' in run.stdout + run.stderr
