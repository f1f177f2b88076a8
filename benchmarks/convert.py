"""What does converting a checkpoint take, in time and memory? ``python -m benchmarks.convert``

Writes a synthetic checkpoint of assemble_resnet152 with momentum slots and converts it by the command line, each time
in a new process, beside a process that only imports the same libraries.
"""
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How much time and memory does converting the official assemble_resnet152 checkpoint take?'
MODEL = 'assemble_resnet152'
BOUND = 2.5  # of peak memory over the libraries', in sizes of the model's weights
MIB = 1 << 20

WRITE = """
import sys
import timm, timm_assemble, numpy as np  # before TensorFlow: the other order may crash
from timm_assemble.convert import tf_names
import tensorflow as tf
model = timm.create_model(sys.argv[1], num_classes=1001)
state = model.state_dict()
tensors = {}
for entry, name in tf_names(model).items():
    value = state[entry].numpy()
    tensors[name] = np.ascontiguousarray(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T)
    if not name.endswith(('moving_mean', 'moving_variance')):
        tensors[name + '/Momentum'] = tensors[name]
tensors['global_step'] = np.int64(1)
tf.raw_ops.SaveV2(prefix=sys.argv[2], tensor_names=[*tensors], shape_and_slices=[''] * len(tensors),
                  tensors=[*tensors.values()])
"""
IMPORTS = """
import timm, timm_assemble
from timm_assemble.utils import accuracy
from timm_assemble import convert
from timm_assemble.convert.tf_checkpoint import _import_tensorflow
_import_tensorflow()
"""
# the peak of the process, said by itself as its last words; ru_maxrss is in KiB on Linux
PEAK = '\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)'
CONVERT = """
import sys
from timm_assemble.__main__ import main
if main(['convert', *sys.argv[1:]]):
    sys.exit(2)
"""


def run(script: str, *args: str) -> int:
    """Run a script in a process of its own; gives its peak memory in bytes."""
    done = subprocess.run(
        [sys.executable, '-c', script + PEAK, *args], stdout=subprocess.PIPE, text=True, check=True)
    return 1024 * int(done.stdout.split()[-1])


def children_seconds() -> float:
    """Processor time of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure, print, write; the exit status says whether the bounds hold."""
    args = parse_args('convert', QUESTION, rounds=3)
    peaks: Dict[str, List[int]] = {'imports': [], 'convert': []}
    seconds: Dict[str, List[float]] = {'imports': [], 'convert': []}
    clock: Callable[[], float] = children_seconds if args.clock == 'processor time' else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / 'model.ckpt')
        subprocess.run([sys.executable, '-c', WRITE, MODEL, prefix], check=True, stderr=subprocess.DEVNULL)
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        for i in range(args.rounds):
            output = Path(folder) / f'made{i}'
            for name, script, arguments in (('imports', IMPORTS, ()), ('convert', CONVERT, (prefix, str(output)))):
                start = clock()
                peaks[name].append(run(script, *arguments))
                seconds[name].append(clock() - start)
        weights = (output / 'model.safetensors').stat().st_size
    rows: List[Dict[str, Any]] = []
    for name in peaks:
        row = make_row(MODEL, name, seconds, None if name == 'imports' else 'imports')
        row['details'] = {
            'peak (MiB)': max(peaks[name]) / MIB,
            'above imports, in weights': max(0, max(peaks[name]) - min(peaks['imports'])) / weights,
            'at most': BOUND, 'weights (MiB)': weights / MIB, 'checkpoint (MiB)': size / MIB}
        rows.append(row)
    status = finish(args, QUESTION, rows)
    if rows[1]['details']['above imports, in weights'] > BOUND:
        print(f'\nBound broken: peak memory is more than {BOUND} times the weights above the imports')
        return 1
    return status


if __name__ == '__main__':
    sys.exit(main())
