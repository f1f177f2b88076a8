"""Speed and accuracy of optimized models, exported files and their peers: ``python -m benchmarks.deployment``.

``--only PART`` measures some parts; the rows of the others stay as they are in the results file.
"""
import contextlib
import io
import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Sequence, Tuple

import torch
from torch import nn

import timm_assemble
from timm_assemble.deploy.calibration import CalibrationImages
from timm_assemble.deploy.export import export_model, load_exported
from timm_assemble.deploy.gate import signal_to_noise
from timm_assemble.deploy.openvino import compile_openvino
from timm_assemble.deploy.optimize import BACKENDS

from .harness.cli import finish, parse_args
from .harness.int8 import ANY, fitted_network, images_for
from .harness.measure import make_row, read_results
from .harness.networks import forget_compiled

QUESTION = 'How fast and how accurate are optimized models and exported files, beside plain OpenVINO and ONNX Runtime?'
MAIN, SIZE = 'assemble_resnet50', 256
BATCH_SIZES = (1, 4, 32)
NETWORKS = {'assemble_mobilenet': 224, 'resnet50': 224, 'convnext_tiny': 224, 'tf_efficientnet_b0': 224}
PARTS = ('one thread', 'two threads', 'networks')
COMPILATIONS = 3  # of each form in OpenVINO: two of the same model differ by some percent
PAUSE = 0.3  # seconds before each timing: threads of ONNX Runtime and OpenMP go on spinning after a call
PEER = 0.98  # least speed of ours over the fastest peer of the same dtype
EAGER = 'eager, float32'
Call = Callable[[torch.Tensor], torch.Tensor]
Compile = Callable[[], Call]


class Forms:
    """Forms of a network, by name; what each dtype's fastest peer is compared with begins with "ours".

    Each is made once for all batch sizes, as far as it takes any.
    """

    def __init__(self, model: nn.Module, size: int, images: CalibrationImages, folder: Path) -> None:
        self.model, self.size, self.images, self.folder = model, size, images, folder
        self.ready: Dict[str, float] = {}  # processor time in seconds
        self.made: Dict[str, Any] = {}

    def _make(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.made:
            start = time.process_time()
            self.made[name] = make()
            self.ready[name] = time.process_time() - start
        return self.made[name]

    def _ours(self, batch_size: int, dtype: torch.dtype, backend: str, int8: bool = False) -> Compile:
        calibration = [torch.cat([*self.images])] if int8 else None
        optimized: Any = timm_assemble.optimize_for_inference(
            self.model, (batch_size, 3, self.size, self.size), dtype, calibration=calibration, gate=ANY,
            backend=backend)

        def compile() -> Call:
            if backend == 'openvino':
                optimized._forget()  # compiles at its next call
            return optimized
        return compile

    def _plain(self) -> Any:
        import openvino

        return openvino.convert_model(
            self.model, example_input=torch.zeros(2, 3, self.size, self.size), input=[-1, 3, self.size, self.size])

    def _nncf(self) -> Any:
        import nncf

        nncf.set_log_level(logging.ERROR)
        batches = [x.numpy() for x in self.images.calibration.contiguous().split(16)]
        with contextlib.redirect_stdout(io.StringIO()):  # progress bars
            return nncf.quantize(self._plain(), nncf.Dataset(batches), subset_size=len(batches))

    def _file(self, int8: bool) -> Path:
        path = self.folder / f'{int8}.onnx'
        export_model(self.model, path, (1, 3, self.size, self.size), 'onnx', calibration=self.images if int8 else None,
                     gate=ANY)
        return path

    def _openvino(self, batch_size: int, model: Any, precision: str = 'f32') -> Call:
        fixed = model.clone()
        fixed.reshape([batch_size, 3, self.size, self.size])
        compiled = compile_openvino(fixed, 0, precision)
        return lambda x: torch.from_numpy(compiled(x.contiguous().numpy())[0])

    def compilers(self, batch_size: int, full: bool) -> Dict[str, Compile]:
        """Return the forms for a batch size; without ``full``, float32 and int8 of one runtime each."""
        forget_compiled()
        found: Dict[str, Compile] = {EAGER: lambda: torch.no_grad()(self.model)}
        openvino = partial(self._openvino, batch_size)

        def add(name: str, make: Callable[[], Compile]) -> None:
            found[name] = self._make(f'{name}, {batch_size}', make)
            self.ready[name] = self.ready.pop(f'{name}, {batch_size}')
            del self.made[f'{name}, {batch_size}']

        def add_shared(name: str, key: str, source: Callable[[], Any], compile: Callable[[Any], Call]) -> None:
            found[name] = partial(compile, self._make(key, source))
            self.ready[name] = self.ready[key]

        for backend in BACKENDS:
            add(f'ours, float32, {backend}', partial(self._ours, batch_size, torch.float32, backend))
        plain: Tuple[str, Callable[[], Any]] = ('OpenVINO', self._plain)
        add_shared('peer, float32, OpenVINO', *plain, openvino)
        if full:
            add_shared('peer, float32, ONNX Runtime', 'float file', lambda: self._file(False),
                       partial(load_exported, format='onnx', runtime='onnxruntime'))
            for backend in BACKENDS:
                add(f'ours, bfloat16, {backend}', partial(self._ours, batch_size, torch.bfloat16, backend))
            add_shared('peer, bfloat16, OpenVINO', *plain, partial(openvino, precision='bf16'))
        add('ours, int8', partial(self._ours, batch_size, torch.float32, 'openvino', True))
        add_shared('peer, int8, NNCF and OpenVINO', 'NNCF', self._nncf, openvino)
        for runtime, title in (('onnxruntime', 'ONNX Runtime'), ('openvino', 'OpenVINO')):
            add_shared(f'file, int8, {title}', 'int8 file', lambda: self._file(True),
                       partial(load_exported, format='onnx', runtime=runtime))
        return found


def dtype_of(name: str) -> str:
    """Return the dtype in a form's name."""
    return name.split(', ')[1].partition(' ')[0]


def group_rows(
        group: str, forms: Forms, batch_size: int, full: bool, args: Any) -> List[Dict[str, Any]]:
    """Measure the forms of a network, interleaved; ours also against the fastest peer of its dtype."""
    compilers = forms.compilers(batch_size, full)
    calls: Dict[str, Call] = {}
    seconds: Dict[str, List[float]] = {name: [] for name in compilers}
    held_out = forms.images.held_out[:batch_size * (len(forms.images.held_out) // batch_size)]
    x = held_out[:batch_size].contiguous()
    for _ in range(1 if args.short else COMPILATIONS):
        calls = {name: compile() for name, compile in compilers.items()}
        for call in calls.values():
            call(x)  # compiles, which the warm-up would take for the time of a call
        measured = args.measure({name: partial(call, x) for name, call in calls.items()}, warmup=1, pause=PAUSE)
        for name in seconds:
            seconds[name] += measured[name]
    with torch.no_grad():
        expected = torch.cat([forms.model(b) for b in held_out.split(batch_size)])
    peers: Dict[str, str] = {}  # the fastest of each dtype
    for name in sorted((name for name in calls if name.startswith('peer')), key=lambda name: -median(seconds[name])):
        peers[dtype_of(name)] = name
    rows = []
    for name, call in calls.items():
        row = make_row(group, name, seconds, None if name == EAGER else EAGER, of='speed')
        row['details'] = {'images/s': batch_size / row['median_s']}
        if name != EAGER:
            got = torch.cat([call(b.contiguous()) for b in held_out.split(batch_size)])
            row['details'] |= {'SQNR (dB)': f'{signal_to_noise(expected, got):.1f}', 'ready (s)': forms.ready[name]}
        if name.startswith('ours'):
            pairs = zip(seconds[peers[dtype_of(name)]], seconds[name])
            row['details']['over the fastest peer'] = median(peer / own for peer, own in pairs)
        rows.append(row)
        print(f'{group}: {name}: {row["details"]}', flush=True)
    return rows


def network_rows(name: str, size: int, batch_sizes: Sequence[int], full: bool, args: Any) -> List[Dict[str, Any]]:
    """Measure a network with random weights."""
    model, rows = fitted_network(name, size), []
    with tempfile.TemporaryDirectory() as folder:
        forms = Forms(model, size, images_for(size), Path(folder))
        for batch_size in batch_sizes:
            group = f'{name} at {size}, batch size {batch_size}, threads {torch.get_num_threads()}'
            rows += group_rows(group, forms, batch_size, full, args)
    return rows


def measure_part(part: str, args: Any) -> List[Dict[str, Any]]:
    """Measure one part."""
    if args.short:
        return network_rows('test_assemble_resnet', 64, (2,), False, args) if part == 'networks' else []
    if part == 'networks':
        return [row for name, size in NETWORKS.items() for row in network_rows(name, size, (4,), False, args)]
    before = torch.get_num_threads()
    torch.set_num_threads(1 if part == 'one thread' else 2)
    if part == 'two threads':  # processor time would add up both
        args.measure.keywords['clock'] = time.perf_counter
        args.environment['clock'] = 'processor time; wall time of two threads'
    rows = network_rows(MAIN, SIZE, args.batch_sizes, True, args)
    torch.set_num_threads(before)
    return rows


def part_of(group: str) -> str:
    """Return the part that measures a group."""
    if not group.startswith(f'{MAIN} at'):
        return 'networks'
    return 'one thread' if group.endswith('threads 1') else 'two threads'


def slower(rows: Sequence[Dict[str, Any]]) -> List[str]:
    """Return a line for each group and dtype in which no form of ours is as fast as the fastest peer."""
    ours: Dict[Tuple[str, str], float] = {}
    for row in rows:
        ratio = row['details'].get('over the fastest peer')
        if ratio is not None:
            key = row['group'], dtype_of(row['name'])
            ours[key] = max(ours.get(key, 0), ratio)
    return [f'{group}: {dtype}: {ratio:.2f} of the fastest peer'
            for (group, dtype), ratio in ours.items() if ratio < PEER]


def main() -> int:
    """Measure, print and write; the exit status says whether ours is as fast as the peers."""
    def options(parser: Any) -> None:
        parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS, metavar='PART',
                            help=f'measure only these parts, of {", ".join(PARTS)}')
        parser.add_argument('--batch-sizes', nargs='+', type=int, default=BATCH_SIZES, help='of the main network')
    args = parse_args('deployment', QUESTION, rounds=3, options=options)
    old = read_results(args.output)['rows'] if [*args.only] != [*PARTS] and args.output.exists() else []
    rows: List[Dict[str, Any]] = []
    for part in PARTS:
        rows += measure_part(part, args) if part in args.only else [r for r in old if part_of(r['group']) == part]
    status, lines = finish(args, QUESTION, rows), slower(rows)
    print('\n'.join(lines))
    return 1 if lines else status


if __name__ == '__main__':
    sys.exit(main())
