"""What does converting a checkpoint take, in time and memory? ``python -m benchmarks.convert``

Writes a synthetic checkpoint of assemble_resnet152 with momentum slots and converts it by the command line, each time
in a new process, beside a process that only imports the same libraries.
"""
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How much time and memory does converting the official assemble_resnet152 checkpoint take?'
MODEL, SHORT_MODEL = 'assemble_resnet152', 'test_assemble_resnet'
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
SCRIPTS = {
    'imports': 'import timm, timm_assemble.convert, tensorflow',
    'convert': """
import sys
from timm_assemble.__main__ import main
if main(['convert', *sys.argv[1:]]):
    sys.exit(2)
"""}
# said by each process as its last words: the peak in KiB, as Linux counts it, and seconds of processor time
USAGE = """
import resource; usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
"""


def main() -> int:
    """Measure, print, write; the exit status says whether the bounds hold."""
    args = parse_args('convert', QUESTION, rounds=3)
    model = SHORT_MODEL if args.short else MODEL
    peaks: Dict[str, List[int]] = {name: [] for name in SCRIPTS}
    seconds: Dict[str, List[float]] = {name: [] for name in SCRIPTS}
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(Path(folder) / 'model.ckpt')
        subprocess.run([sys.executable, '-c', WRITE, model, prefix], check=True, stderr=subprocess.DEVNULL)
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        for i in range(args.rounds):
            output = Path(folder) / f'made{i}'
            for name, script in SCRIPTS.items():
                done = subprocess.run([sys.executable, '-c', script + USAGE, prefix, str(output)],
                                      stdout=subprocess.PIPE, text=True, check=True)
                peak, used = done.stdout.split()[-2:]
                peaks[name].append(1024 * int(peak))
                seconds[name].append(float(used))
        weights = (output / 'model.safetensors').stat().st_size
    rows: List[Dict[str, Any]] = []
    for name in peaks:
        row = make_row(model, name, seconds, None if name == 'imports' else 'imports')
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
