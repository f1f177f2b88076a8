"""Optimized models as servers use them: modes, threads, processes, batch sizes, new weights, the page's batching."""
import asyncio
import multiprocessing
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

import timm_assemble
from timm_assemble.deploy import optimize

from ..tools.test_docs import code_blocks
from .test_optimize import by_inductor, error

PAGE = Path(__file__).parents[2] / 'docs' / 'deployment.md'
SIZES = [(2, 3, 16, 16), (5, 3, 16, 16), (1, 3, 16, 16), (3, 3, 24, 16)]  # each compiles


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()).eval()


def images(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def run_threads(call, n=8):
    """Run ``call(i)`` in threads that start together; raise what they raise."""
    barrier, errors = threading.Barrier(n), []

    def run(i):
        barrier.wait()
        try:
            call(i)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_all_modes_and_kinds_of_inputs_share_a_compilation(compiled):
    optimized, x = by_inductor(make(), (2, 3, 16, 16)), images(2, 3, 16, 16)
    expected = make()(x)
    with torch.inference_mode():
        kinds = [x, x.clone(), x.clone(memory_format=torch.channels_last)]
    kinds += [x.to(memory_format=torch.channels_last), x.clone().requires_grad_(), nn.Parameter(x)]
    assert [kind.is_inference() for kind in kinds] == [False, True, True, False, False, False]
    for mode in (torch.inference_mode(), torch.no_grad(), torch.enable_grad(), torch.autocast('cpu', torch.bfloat16)):
        for kind in kinds:
            with mode:
                y = optimized(kind)
            assert error(y, expected) < 1e-4 and not y.is_inference() and not y.requires_grad
    assert len(compiled) == 1


def test_a_model_optimized_in_inference_mode_serves_all_modes(compiled):
    with torch.inference_mode():
        optimized = by_inductor(make(), (2, 3, 16, 16))
        optimized(images(2, 3, 16, 16))
    optimized(images(2, 3, 16, 16))
    assert len(compiled) == 1


def test_example_sizes_are_warmed_up(compiled):
    optimized = by_inductor(make(), SIZES[0], example_sizes=SIZES[1:])
    assert len(compiled) == 4
    for size in [*SIZES, (7, 3, 16, 16)]:
        optimized(images(*size))
    assert len(compiled) == 4
    with pytest.raises(ValueError, match=r"example_sizes must have the model's 3 channels, got \(1, 4, 8, 8\)"):
        by_inductor(make(), SIZES[0], example_sizes=[(1, 4, 8, 8)])


def test_threads_share_compilations_also_of_new_sizes(compiled):
    optimized = by_inductor(make(), SIZES[0])
    expected = {size: make()(images(*size)) for size in SIZES}

    def call(i):
        for n in range(3 * len(SIZES)):
            size = SIZES[(i + n) % len(SIZES)]
            with torch.inference_mode(i % 2 == 1):
                assert error(optimized(images(*size)), expected[size]) < 1e-4

    run_threads(call)
    assert len(compiled) == len(SIZES)
    assert not torch._inductor.config.freezing


def outputs(optimized, sizes):
    """Return outputs of each size, plain and in inference mode."""
    found = []
    for size in sizes:
        for mode in (False, True):
            with torch.inference_mode(mode):
                found.append(optimized(images(*size)).numpy())
    return found


def work(optimized, sizes, queue):
    torch.set_num_threads(1)
    queue.put(outputs(optimized, sizes))


@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_generated_code_after_fork_and_spawn(fresh):
    """A fork goes on with the compiled code; spawned processes compile a copy; both take new sizes."""
    optimized = by_inductor(make(), SIZES[0])
    sizes = [SIZES[0], SIZES[3]]
    for method in ('fork', 'spawn'):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=work, args=(optimized, sizes, queue))
        process.start()
        found = queue.get(timeout=200)
        process.join()
        assert process.exitcode == 0
        for size, i in ((sizes[0], 0), (sizes[0], 1), (sizes[1], 2), (sizes[1], 3)):
            assert error(torch.from_numpy(found[i]), make()(images(*size)).detach()) < 1e-4


def test_edits_in_place_change_nothing(fresh):
    """Of the generated code, which holds packed copies of most weights and the biases themselves."""
    model = nn.Sequential(*make(), nn.Conv2d(64, 64, 3, groups=64), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(64, 5)).eval()
    optimized, x = by_inductor(model, (2, 3, 16, 16)), images(2, 3, 16, 16)
    expected = optimized(x).clone()
    for name, parameter in optimized.named_parameters():
        before = parameter.clone()
        with torch.no_grad():
            parameter.add_(1)
            assert torch.equal(optimized(x), expected), name
            parameter.copy_(before)


def test_another_dtype_device_or_state_is_rejected(compiled):
    optimized = by_inductor(make(), (2, 3, 16, 16), compile=False)
    for change in (lambda: optimized.to(torch.bfloat16), lambda: nn.Sequential(optimized).double(),
                   lambda: optimized.load_state_dict(optimized.state_dict())):
        with pytest.raises(ValueError, match='model must be optimized again, from the original, for'):
            change()


def test_sixteen_images_compile_once_more_on_one_thread(fresh):
    """As torch chooses other convolutions; known before, so that only one thread compiles it, which takes its turn."""
    counter = torch._dynamo.testing.CompileCounterWithBackend('inductor')
    with mock.patch.dict(optimize.COMPILE, backend=counter):
        optimized, counts = by_inductor(make(), (4, 3, 16, 16)), []
        for batch in (2, 15, 16, 40, 3):
            assert error(optimized(images(batch, 3, 16, 16)), make()(images(batch, 3, 16, 16)).detach()) < 1e-4
            counts.append(counter.frame_count)
    assert counts == [2, 2, 3, 3, 3] and len(optimized._compiled_call_impl.calls) == 3


@pytest.mark.parametrize('compile', [True, False])
def test_an_empty_batch_has_no_logits_and_wrong_images_are_one_line(compile, compiled):
    optimized = by_inductor(make(), (2, 3, 16, 16), compile=compile)
    assert optimized(images(0, 3, 16, 16)).shape == (0, 64, 16, 16)
    for x, message in ((torch.zeros(2, 3, 16, 16, dtype=torch.uint8), 'x must be a tensor of .*, got torch.uint8'),
                       (None, 'x must be a tensor of floating point, .*, got NoneType'),
                       (images(2, 1, 16, 16), r'x must be \(B, 3, H, W\), got \(2, 1, 16, 16\)'),
                       (images(3, 16, 16), r'x must be \(B, 3, H, W\), got \(3, 16, 16\)')):
        with pytest.raises(ValueError, match=message):
            optimized(x)


class Choices(nn.Module):
    """Outputs that are no logits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        y = self.conv(x)
        return y.flatten(1), y.flatten(1).argmax(1), y.flatten(1) > 0


@pytest.mark.parametrize('options', [dict(backend='inductor'), dict(backend='openvino'), dict(compile=False)])
def test_other_outputs_than_floating_point_keep_their_dtype(options):
    if options.get('backend') == 'openvino':
        pytest.importorskip('openvino')
    model, x = Choices().eval(), images(2, 3, 16, 16)
    optimized = timm_assemble.optimize_for_inference(model, x.shape, **options)
    assert [y.dtype for y in optimized(x)] == [torch.float32, torch.int64, torch.bool]
    assert torch.equal(optimized(x)[1], model(x)[1])


def test_a_model_in_float64_is_rejected():
    with pytest.raises(ValueError, match=r'dtype must be one of .* for a model in torch.float64, got None'):
        timm_assemble.optimize_for_inference(Choices().double().eval(), (2, 3, 16, 16), backend='inductor')


def test_batching_of_the_page_gives_every_request_its_logits():
    [code] = [code for code in code_blocks(PAGE, 'python') if 'class Batcher' in code]
    model, image, batch_sizes = make(), images(3, 8, 8), []

    def fast(x):
        batch_sizes.append(len(x))
        with torch.no_grad():
            return model(x)

    names = dict(fast=fast, image=image)
    exec(code, names)
    batcher = names['Batcher'](fast, max_wait=0.5)
    expected = [fast(image[None] + i)[0] for i in range(12)]
    assert error(names['logits'], expected[0]) < 1e-4
    batch_sizes.clear()

    def call(i):
        assert error(batcher.submit(image + i).result(timeout=60), expected[i]) < 1e-4

    run_threads(call, n=12)
    assert sum(batch_sizes) == 12 and max(batch_sizes) > 1 and max(batch_sizes) <= 8

    async def serve():
        cancelled = batcher.submit(image)
        assert cancelled.cancel()
        futures = [batcher.submit(image + i) for i in range(3)]
        return await asyncio.gather(*map(asyncio.wrap_future, futures))

    for y, z in zip(asyncio.run(serve()), expected):
        assert error(y, z) < 1e-4
    mixed = [batcher.submit(x) for x in (image, image[:, :4])]
    for future in mixed:
        with pytest.raises(RuntimeError, match='stack expects each tensor to be equal size'):
            future.result(timeout=60)
    assert error(batcher.submit(image).result(timeout=60), expected[0]) < 1e-4
