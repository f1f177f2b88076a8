"""Speed and cost of folding, compiling, half precision and int8: ``python -m benchmarks.deployment``.

With ``--demo FOLDER``, the output of ``timm-assemble demo --output FOLDER``, also how often the top-1 stays the same on
512 of its images. ``--only PART`` measures some parts; the rows of the others stay as they are in the results file.
"""
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import timm_assemble
from timm_assemble.deploy.calibration import split_images
from timm_assemble.deploy.export import export_model
from timm_assemble.deploy.fold import fold_for_inference
from timm_assemble.deploy.gate import signal_to_noise
from timm_assemble.deploy.optimize import OptimizedModel
from timm_assemble.deploy.quantize_onnx import export_quantized

from .harness.cli import finish, parse_args
from .harness.int8 import ANY, Form, agreement_details, int8_forms, network_and_images, noise_images, onnx_files
from .harness.int8 import IMAGES as INT8_IMAGES
from .harness.measure import make_row, read_results, write_results
from .harness.networks import forget_compiled
from .inference import Network

QUESTION = 'How much faster are folded, compiled, half-precision and int8 models, and how close are their logits?'
MAIN, SIZE, BATCH_SIZE = 'assemble_resnet50', 256, 4
SIDE = 1024  # of the matrices whose product gives the machine's rate
MODELS = ('assemble_resnet50_base', 'assemble_resnet50_d', 'assemble_resnet50_d_se', 'assemble_resnet50_d_sk',
          'assemble_resnet50_bl', 'assemble_resnet50_bl_sk', MAIN, 'assemble_resnet101', 'assemble_resnet152',
          'test_assemble_resnet')
ERROR, AGREEMENT = 1e-4, 99.0  # largest float32 error, least equal top-1 in percent
IMAGES, CALIBRATION = 512, 256  # of the demo, compared, and others for calibration
PARTS = ('steps', 'demo', 'batches', 'threads', 'int8', 'start', 'models')
BATCH_SIZES = (1, 4, 32)
# further networks in int8 and their sizes; the last three are peers
INT8_SIZES = {'assemble_resnet152': 256, 'resnet50': 224, 'convnext_tiny': 224, 'tf_efficientnet_b4': 380}
INT8_SPEED = 2.5 if torch.cpu._is_vnni_supported() else 1.5  # least, over eager float32, of our networks
START = {
    'eager': """
import timm, timm_assemble, torch
model = timm.create_model('assemble_resnet50', checkpoint_path=path).eval()
run = torch.no_grad()(model)
""",
    'optimized': """
import timm, timm_assemble, torch
model = timm.create_model('assemble_resnet50', checkpoint_path=path).eval()
run = timm_assemble.optimize_for_inference(model, (4, 3, 256, 256))
""",
    'program': 'import torch; run = torch.no_grad()(torch.export.load(path).module())',
    'package': 'import torch; run = torch._inductor.aoti_load_package(path)',
    'onnx': """
import onnxruntime, torch
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(path, options)
run = lambda x: session.run(None, {'images': x.numpy()})
""",
}
START['onnx, int8'] = START['onnx']
FIRST = """
import sys
path, threads = sys.argv[1], int(sys.argv[2])
import torch
torch.set_num_threads(threads)
torch._inductor.config.force_disable_caches = True
%s
run(torch.zeros(4, 3, 256, 256))
"""


def difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference in standard deviations of the expected output."""
    return ((got - expected).abs().max() / expected.std()).item()


def make_network(name: str, size: int, device: str) -> Network:
    """Create a model with statistics as after training: a fresh model's residual branches are zero, and hide errors."""
    model: Any = timm.create_model(name).to(device).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value, low, high in ((module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5),
                                         (module.running_mean, -1, 1), (module.running_var, 0.5, 2)):
                    nn.init.uniform_(value, low, high)  # type: ignore[arg-type]
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, size, size, device=device))
    return Network(model, size, sum(p.numel() for p in model.parameters()), counter.get_total_flops() / 2)


def forms_of(model: nn.Module, size: Tuple[int, ...]) -> Dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return forms of one model; the last of each precision is the optimized model."""
    def autocast(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return model(x).float()

    optimize = timm_assemble.optimize_for_inference
    forget_compiled()
    return {
        'eager, float32': model,
        'folded, float32': optimize(model, size, compile=False),
        'compiled and not folded, float32': torch.compile(model),
        'optimized but for Winograd, float32': OptimizedModel(fold_for_inference(model, size).model, compiled=True),
        'optimized, float32': optimize(model, size),
        'eager, autocast to bfloat16': autocast,
        'folded, bfloat16': optimize(model, size, torch.bfloat16, compile=False),
        'optimized, bfloat16': optimize(model, size, torch.bfloat16),
    }


def step_rows(device: str, measure: Callable[..., Any]) -> List[Dict[str, Any]]:
    """Measure each step, beside the rate of the machine's matrix product."""
    network = make_network(MAIN, SIZE, device)
    x = torch.randn(BATCH_SIZE, 3, SIZE, SIZE, device=device).to(memory_format=torch.channels_last)
    forms = forms_of(network.model, tuple(x.shape))
    cases: Dict[str, Callable[[], Any]] = {name: partial(form, x) for name, form in forms.items()}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2, SIDE, SIDE, device=device, dtype=dtype)
        cases[f'matrix product, {str(dtype)[6:]}'] = partial(torch.mm, a, b)
    with torch.no_grad():
        expected = network.model(x)
        errors = {name: difference(form(x), expected) for name, form in forms.items()}
        seconds = measure(cases)
    group, first = f'{MAIN} at {SIZE}, batch size {BATCH_SIZE}', 'eager, float32'
    rows = []
    for name in cases:
        is_form = name in forms
        row = make_row(group, name, seconds, first if is_form and name != first else None, of='speed')
        product = seconds[f'matrix product, {name.rsplit(" ", 1)[1]}']
        rate = (BATCH_SIZE * network.macs if is_form else SIDE ** 3) / row['median_s']
        row['details'] = {'GMAC/s': rate / 1e9, 'share of the matrix product': rate * sorted(product)[
            len(product) // 2] / SIDE ** 3}
        if is_form:
            row['details'] |= {'images/s': BATCH_SIZE / row['median_s'], 'logits differ by': f'{errors[name]:.1e}'}
        rows.append(row)
    return rows


def model_rows(device: str, measure: Callable[..., Any], name: str) -> List[Dict[str, Any]]:
    """Measure a model optimized in both precisions: error, speed, and time to be ready."""
    forget_compiled()
    cfg: Any = timm.get_pretrained_cfg(name)
    size = cfg.test_input_size or cfg.input_size
    network = make_network(name, size[-1], device)
    x = torch.randn(1, *size, device=device).to(memory_format=torch.channels_last)
    cases: Dict[str, Callable[[], Any]] = {'eager, float32': partial(network.model, x)}
    details: Dict[str, Dict[str, Any]] = {'eager, float32': {}}
    with torch.no_grad():
        expected = network.model(x)
        for dtype in (torch.float32, torch.bfloat16):
            start = time.perf_counter()
            optimized = timm_assemble.optimize_for_inference(network.model, x.shape, dtype)
            ready, form = time.perf_counter() - start, f'optimized, {str(dtype)[6:]}'
            details[form] = {'logits differ by': f'{difference(optimized(x), expected):.1e}',
                             'ready after (s, wall)': ready}
            cases[form] = partial(optimized, x)
        seconds = measure(cases, warmup=1)
    rows = []
    for form in cases:
        row = make_row(f'{name} at {size[-1]}, batch size 1', form, seconds,
                       None if form.startswith('eager') else 'eager, float32', of='speed')
        row['details'] = {'images/s': 1 / row['median_s'], **details[form]}
        rows.append(row)
    return rows


def agreement_rows(folder: Path, measure: Callable[..., Any]) -> List[Dict[str, Any]]:
    """Measure how often optimized models agree with the trained one on images of the demo, validation first."""
    model = timm.create_model(f'local-dir:{folder / "trained"}', pretrained=True).eval()
    config = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**config)
    files = sorted((folder / 'digits' / 'validation').glob('*/*')) + sorted((folder / 'digits' / 'train').glob('*/*'))
    images = [transform(Image.open(path).convert('RGB')) for path in files[:IMAGES + CALIBRATION]]
    images, calibration = images[:IMAGES], images[IMAGES:]
    batches = torch.stack(images).split(64)
    forms = forms_of(model, tuple(batches[0].shape))
    chosen = split_images([torch.stack(calibration)], config['input_size'])
    with tempfile.TemporaryDirectory() as name:
        exported = onnx_files(model, config['input_size'][-1], chosen, Path(name), full=False)
        int8 = int8_forms(model, tuple(batches[0].shape), chosen, 1, exported)
    forms |= {name: form.run for name, form in int8.items()}
    with torch.no_grad():
        expected = torch.cat([model(x) for x in batches])
        seconds = measure({name: partial(form, batches[0]) for name, form in forms.items()}, warmup=1)
        rows = []
        for name, form in forms.items():
            got = torch.cat([form(x) for x in batches])
            same = (got.argmax(1) == expected.argmax(1)).double().mean().item() * 100
            row = make_row(f"The demo's trained {MAIN}, {len(images)} images of {config['input_size'][-1]}", name,
                           seconds, None if name.startswith('eager, f') else 'eager, float32', of='speed')
            row['details'] = {'same top-1 (%)': same, 'logits differ by': f'{difference(got, expected):.1e}'}
            if name != 'eager, float32':
                row['details']['SQNR (dB)'] = signal_to_noise(expected, got)
            rows.append(row)
    return rows


def int8_rows(
        measure: Callable[..., Any], name: str, size: int, batch_sizes: Sequence[int], threads: int, full: bool,
) -> List[Dict[str, Any]]:
    """Measure a network in int8 beside eager float32 and, if ``full``, its other forms, with random weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    model, images = network_and_images(name, size)
    optimize, rows = timm_assemble.optimize_for_inference, []
    if threads > 1:
        measure = partial(measure, clock=time.perf_counter)
    with tempfile.TemporaryDirectory() as folder:
        files = onnx_files(model, size, images, Path(folder), full)
        for batch_size in batch_sizes:
            forget_compiled()
            x = torch.cat([*images])[:batch_size].contiguous(memory_format=torch.channels_last)
            forms: Dict[str, Form] = {'eager, float32': Form(torch.no_grad()(model), {})}
            for dtype in (torch.float32, torch.bfloat16) if full else ():
                start = time.perf_counter()
                run = optimize(model, tuple(x.shape), dtype)
                forms[f'optimized, {str(dtype)[6:]}'] = Form(
                    run, {'ready after (s, wall)': time.perf_counter() - start})
            forms.update(int8_forms(model, tuple(x.shape), images, threads, files))
            seconds = measure({form: partial(forms[form].run, x) for form in forms}, warmup=1)
            clock = 'processor time' if threads == 1 else 'wall time'
            group = f'{name} at {size}, batch size {batch_size}, threads {threads}, {clock}, random weights'
            for form, (call, details) in forms.items():
                first = form == 'eager, float32'
                bound = INT8_SPEED if form == 'optimized, int8' and 'assemble' in name and size >= 256 else None
                row = make_row(group, form, seconds, None if first else 'eager, float32', 'speed', bound)
                same = {} if first else agreement_details(
                    forms['eager, float32'].run, call, images.held_out, batch_size)
                row['details'] = {'images/s': batch_size / row['median_s'], **same, **details}
                rows.append(row)
    torch.set_num_threads(before)
    return rows


def start_rows(rounds: int, threads: int) -> List[Dict[str, Any]]:
    """Measure new processes without caches, from their start to the first output."""
    seconds: Dict[str, List[float]] = {name: [] for name in START}
    with tempfile.TemporaryDirectory() as folder:
        model = timm.create_model(MAIN).eval()
        files = {name: Path(folder) / f'{name}{".onnx" if name.startswith("onnx") else ".pt2"}' for name in START}
        files['eager'] = files['optimized'] = Path(folder) / 'weights.pth'
        torch.save(model.state_dict(), files['eager'])
        for name in ('program', 'package', 'onnx'):
            export_model(model, files[name], (BATCH_SIZE, 3, SIZE, SIZE), name)
        images = split_images([noise_images(INT8_IMAGES, SIZE, 1)], (3, SIZE, SIZE))
        export_quantized(model, files['onnx, int8'], (BATCH_SIZE, 3, SIZE, SIZE), images, ANY)
        for _ in range(rounds):
            for name, script in START.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([sys.executable, '-c', FIRST % script, files[name], str(threads)], check=True,
                               stderr=subprocess.DEVNULL)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                seconds[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        sizes = {name: path.stat().st_size / 1e6 for name, path in files.items()}
    rows = []
    for name in START:
        row = make_row(f'First output of {MAIN}, batch size {BATCH_SIZE}, processor time of a new process', name,
                       seconds, None if name == 'eager' else 'eager')
        row['details'] = {'file (MB)': sizes[name]}
        rows.append(row)
    return rows


def kept_rows(args: Any) -> Dict[str, List[Dict[str, Any]]]:
    """Return the rows of each part that a run with ``--only`` leaves as they are."""
    if not args.only or not args.output.exists():
        return {}
    kept: Dict[str, List[Dict[str, Any]]] = {}
    for row in read_results(args.output)['rows']:
        part = part_of(row['group'])
        if part not in args.only:
            kept.setdefault(part, []).append(row)
    return kept


def part_of(group: str) -> str:
    """Return the part that measures a group."""
    if 'random weights' in group:
        return 'int8' if not group.startswith(f'{MAIN} at') else 'batches' if 'threads 1,' in group else 'threads'
    beginnings = {"The demo's": 'demo', 'First output': 'start', f'{MAIN} at {SIZE}, batch size {BATCH_SIZE}': 'steps'}
    return next((part for beginning, part in beginnings.items() if group.startswith(beginning)), 'models')


def broken(rows: List[Dict[str, Any]]) -> List[str]:
    """Return a line for each row that exceeds a bound."""
    lines = []
    for row in rows:
        error, same = row['details'].get('logits differ by'), row['details'].get('same top-1 (%)')
        if error and row['name'].endswith(', float32') and float(error) > ERROR:
            lines.append(f'{row["group"]}: {row["name"]}: logits differ by more than {ERROR}')
        if same is not None and same < AGREEMENT and 'random weights' not in row['group']:
            lines.append(f'{row["group"]}: {row["name"]}: same top-1 on less than {AGREEMENT} %')
    return lines


def measure_part(part: str, args: Any) -> List[Dict[str, Any]]:
    """Measure one part."""
    measure, short = args.measure, args.short
    if part == 'steps':
        return [] if short else step_rows(args.device, measure)
    if part == 'demo':
        return [] if args.demo is None else agreement_rows(args.demo, measure)
    if part == 'start':
        return [] if short else start_rows(3, args.threads)
    if part == 'models':
        return [row for name in (MODELS[-1:] if short else MODELS) for row in model_rows(args.device, measure, name)]
    if args.device != 'cpu':
        return []
    if short:
        return int8_rows(measure, MODELS[-1], 64, (2,), 1, full=False) if part == 'int8' else []
    if part == 'int8':
        return [row for name, size in INT8_SIZES.items()
                for row in int8_rows(measure, name, size, (BATCH_SIZE,), 1, full=False)]
    threads = 1 if part == 'batches' else os.cpu_count() or 1
    return [] if part == 'threads' and threads == 1 else int8_rows(measure, MAIN, SIZE, BATCH_SIZES, threads, full=True)


def main() -> int:
    """Measure, print and write; the exit status says whether the bounds hold."""
    def options(parser: Any) -> None:
        parser.add_argument('--demo', type=Path, help='output of timm-assemble demo --output FOLDER')
        parser.add_argument('--only', nargs='+', choices=PARTS, metavar='PART',
                            help=f'measure only these parts, of {", ".join(PARTS)}')
    args = parse_args('deployment', QUESTION, rounds=7, options=options)
    kept, rows, partial_file = kept_rows(args), [], args.output.with_suffix('.part')
    for part in PARTS:
        rows += kept.get(part, []) if args.only and part not in args.only else measure_part(part, args)
        if rows:  # a run takes long and may be interrupted
            write_results(partial_file, QUESTION, args.command, args.environment, rows)
    partial_file.unlink(missing_ok=True)
    status, lines = finish(args, QUESTION, rows), broken(rows)
    print('\n'.join(lines))
    return 1 if lines else status


if __name__ == '__main__':
    sys.exit(main())
