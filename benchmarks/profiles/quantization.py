"""Libraries that quantize to int8, and parts of the network in float: ``python -m benchmarks.profiles.quantization``.

It prints two tables. A library that is not installed is skipped with a line. With ``--demo FOLDER``, the output of
``timm-assemble demo --output FOLDER``, also its trained network on its images.
"""
import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn

import timm_assemble
from docs.generated_block import markdown_table
from timm_assemble.deploy.calibration import CalibrationImages, load_folder, split_images, whole_batches
from timm_assemble.deploy.export import export_model
from timm_assemble.deploy.gate import compare
from timm_assemble.deploy.quantize import float_modules
from timm_assemble.deploy.quantize_onnx import OPERATORS, quantize_onnx
from timm_assemble.models.loading import load_source

from ..harness.int8 import ANY, Call, network_and_images, onnx_call, openvino_call
from ..harness.measure import measure

NAME, SIZE = 'assemble_resnet50', 256
MODULES = 'model.model.'  # prefix of the names in an exported file
# by title, what stays in float: modules, by the end of their names, and operators
PARTS: Dict[str, Tuple[Tuple[str, ...], Tuple[str, ...]]] = {
    'nothing': ((), ()),
    'first convolution': (('stem.0.conv',), ()),
    'classifier': (('fc',), ()),
    'first convolution and classifier': (('stem.0.conv', 'fc'), ()),
    "SK's gates": (('.fc1.conv', '.fc2'), ()),
    "SK's gates and merge": (('.fc1.conv', '.fc2'), ('Mul', 'Split')),
    'sums: residual, big and little': ((), ('Add', 'Resize')),
    'blur and averages': (('.aa',), ('AveragePool',)),
    'all but convolutions': ((), tuple(name for name in OPERATORS if name not in ('Conv', 'Gemm', 'MatMul'))),
}


def nncf_call(path: Path, images: torch.Tensor) -> Call:
    """Return the call of a file quantized by NNCF, in OpenVINO."""
    import nncf
    import openvino

    nncf.set_log_level(40)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        model = nncf.quantize(openvino.Core().read_model(path), nncf.Dataset([x.numpy() for x in images.split(1)]),
                              subset_size=len(images))
    return openvino_call(model, 1)


def library_forms(
        model: nn.Module, path: Path, images: CalibrationImages, size: Tuple[int, ...], folder: Path,
) -> Dict[str, Tuple[Call, float]]:
    """Return the forms of a model by library, each with the processor time of its quantization."""
    def torchao() -> Call:
        return timm_assemble.optimize_for_inference(model, size, calibration=[torch.cat([*images])], gate=ANY)

    def onnxruntime(method: str) -> Call:
        output = folder / f'{method}.onnx'
        quantize_onnx(path, output, images.calibration, keep, method=method)
        return onnx_call(output, 1)

    keep = [MODULES + name for name in float_modules(model, images.calibration)]
    makers: Dict[str, Tuple[Sequence[str], Callable[[], Call]]] = {
        'torchao, compiled by inductor': (('torchao',), torchao),
        **{f'ONNX Runtime, {method}': (('onnxruntime',), partial(onnxruntime, method))
           for method in ('MinMax', 'Entropy', 'Percentile')},
        "ONNX Runtime's MinMax file in OpenVINO": (
            ('openvino',), lambda: openvino_call(folder / 'MinMax.onnx', 1)),
        'NNCF, OpenVINO': (('openvino', 'nncf'), lambda: nncf_call(path, images.calibration)),
    }
    forms = {}
    for title, (libraries, make) in makers.items():
        absent = [name for name in libraries if importlib.util.find_spec(name) is None]
        if absent:
            print(f'{title}: skipped, {", ".join(absent)} is not installed')
            continue
        start = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):  # onnxruntime's histograms print
            run = make()
        forms[title] = run, time.process_time() - start
    return forms


def rows(
        title: str, model: nn.Module, forms: Dict[str, Tuple[Call, float]], images: torch.Tensor, batch_size: int,
        rounds: int,
) -> List[List[str]]:
    """Measure forms beside the eager model."""
    cases: Dict[str, Call] = {'eager, float32': torch.no_grad()(model)}
    cases |= {name: run for name, (run, _) in forms.items()}
    x = images[:batch_size].contiguous(memory_format=torch.channels_last)
    seconds = measure({name: partial(run, x) for name, run in cases.items()}, rounds, 1, clock=time.process_time)
    lines = []
    for name, (run, cost) in forms.items():
        found = compare(model, run, whole_batches(images, batch_size), sure=0)
        ratio = median(a / b for a, b in zip(seconds['eager, float32'], seconds[name]))
        lines.append([title, name, f'{batch_size / median(seconds[name]):.1f}', f'{ratio:.2f}', f'{found.sqnr:.1f}',
                      f'{found.top1_all:.1f}', f'{cost:.0f}'])
    return lines


def part_forms(path: Path, model: nn.Module, images: torch.Tensor, folder: Path) -> Dict[str, Tuple[Call, float]]:
    """Return the file with each part in float."""
    forms = {}
    for title, (ends, operators) in PARTS.items():
        output, start = folder / 'part.onnx', time.process_time()
        keep = [MODULES + name for name, _ in model.named_modules() if ends and name.endswith(ends)]
        quantize_onnx(path, output, images, keep, operators=[name for name in OPERATORS if name not in operators])
        forms[title] = onnx_call(output, 1), time.process_time() - start
    return forms


def networks(demo: Optional[Path]) -> Dict[str, Tuple[Any, CalibrationImages, Sequence[int]]]:
    """Return networks by title, with images and batch sizes."""
    found: Dict[str, Tuple[Any, CalibrationImages, Sequence[int]]] = {}
    if demo is not None:
        source = load_source(f'local-dir:{demo / "trained"}')
        images, _ = load_folder(demo / 'digits' / 'train', source, source.preprocessing.input_size, 256)
        found[f"the demo's trained {NAME} at {source.preprocessing.input_size[-1]}"] = (
            source.model, split_images([images], source.preprocessing.input_size), (8,))
    model, chosen = network_and_images(NAME, SIZE)
    found[f'{NAME} at {SIZE}, random weights'] = model, chosen, (4,)
    return found


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.profiles.quantization', description=__doc__)
    parser.add_argument('--demo', type=Path, help='output of timm-assemble demo --output FOLDER')
    parser.add_argument('--rounds', type=int, default=5, help='timings of each case')
    parser.add_argument('--only', choices=('libraries', 'parts'), help='one of the tables')
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables: Dict[str, List[List[str]]] = {'libraries': [], 'parts': []}
    for title, (model, images, batch_sizes) in networks(args.demo).items():
        size = tuple(images.held_out.shape[1:])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            export_model(model, folder / 'float.onnx', (1, *size), 'onnx')
            for batch_size in batch_sizes if args.only != 'parts' else ():
                torch._dynamo.reset()
                forms = library_forms(model, folder / 'float.onnx', images, (batch_size, *size), folder)
                tables['libraries'] += rows(
                    f'{title}, batch size {batch_size}', model, forms, images.held_out, batch_size, args.rounds)
            if args.only != 'libraries' and not tables['parts']:  # of the trained network, if it is given
                forms = part_forms(folder / 'float.onnx', model, images.calibration, folder)
                tables['parts'] += rows(title, model, forms, images.held_out, batch_sizes[-1], args.rounds)
    numbers = ['images/s', 'speed-up over eager float32', 'SQNR (dB)', 'same top-1 (%)', 'quantization (s)']
    for column, name in (('library', 'libraries'), ('in float', 'parts')):
        if tables[name]:
            print('\n' + markdown_table(['network', column, *numbers], tables[name], numbers))
    return 0


if __name__ == '__main__':
    sys.exit(main())
