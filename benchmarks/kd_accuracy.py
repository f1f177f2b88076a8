"""Accuracy and time of a short training with and without distillation: ``python -m benchmarks.kd_accuracy``.

It runs the command line and timm's train.py in separate processes, as a user does.
"""
import csv
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Dict, List, Sequence

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How much more accurate is a short training with distillation, and how much longer does it take?'
SEEDS = (0, 1, 2)
EPOCHS, TEACHER_EPOCHS = 2, 5  # short: the student has room to improve
STUDENT = ('assemble_resnet50', 'width=16')
TEACHER = 'local-dir:demo/trained'
# the demo's settings as train.py's arguments
TRAINING = (
    '--data-dir', 'demo/digits', '--num-classes', '10', '--img-size', '64', '--crop-pct', '1', '--batch-size', '64',
    '--device', 'cpu', '--workers', '0', '--channels-last', '--opt', 'lamb', '--lr', '5e-3', '--weight-decay', '0.02',
    '--epochs', str(EPOCHS), '--warmup-epochs', '1', '--warmup-lr', '0', '--sched-on-updates',
    '--scale', '0.7', '1', '--ratio', '0.85', '1.18', '--hflip', '0', '--color-jitter', '0', '--train-interpolation',
    'bilinear', '--mixup', '0.2', '--mixup-mode', 'elem', '--smoothing', '0.1', '--drop-block', '0.1',
    '--log-interval', '100', '--checkpoint-hist', '1')
ARMS: Dict[str, Sequence[str]] = {
    'without distillation': (),
    'stored logits': ('--kd-model-name', 'logits:teacher', '--kd-temperature', '1'),
    "timm's, the teacher run in each step": ('--kd-model-name', TEACHER, '--kd-temperature', '1'),
}


def call(folder: Path, *command: str) -> float:
    """Run ``timm-assemble`` with one thread and return its processor seconds."""
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    done = subprocess.run(
        [sys.executable, '-m', 'timm_assemble', *command], cwd=folder, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    if done.returncode != 0:
        sys.exit(f'timm-assemble {" ".join(command)}: {done.stderr[-2000:]}')
    return spent() - before


def top1(folder: Path, experiment: str) -> float:
    """Return the validation top-1 in percent after the last epoch."""
    with open(folder / 'output' / experiment / 'summary.csv') as f:
        return float(list(csv.DictReader(f))[-1]['eval_top1'])


def main() -> int:
    """Train teacher and students, print and write the results."""
    args = parse_args('kd_accuracy', QUESTION, rounds=len(SEEDS))
    folder = Path('kd-accuracy')
    folder.mkdir(exist_ok=True)
    for name in ('output', 'teacher'):
        shutil.rmtree(folder / name, ignore_errors=True)
    if not (folder / 'demo' / 'trained').exists():
        call(folder, 'demo', '--epochs', str(TEACHER_EPOCHS), '--output', 'demo')
    stored_s = call(folder, 'teacher-logits', '--model', TEACHER, '--data-dir', 'demo/digits', '--output', 'teacher',
                    '--workers', '0', '--device', 'cpu')
    start_s = call(folder, 'train', '--script-help')  # imports, which every run includes
    seconds: Dict[str, List[float]] = {arm: [] for arm in ARMS}
    accuracy: Dict[str, List[float]] = {arm: [] for arm in ARMS}
    for seed in SEEDS:
        for i, (arm, distillation) in enumerate(ARMS.items()):
            name = f'{i}-{seed}'
            spent = call(folder, 'train', '--model', STUDENT[0], '--model-kwargs', STUDENT[1], *TRAINING, *distillation,
                         '--seed', str(seed), '--output', 'output', '--experiment', name)
            seconds[arm].append((spent - start_s) / EPOCHS)
            accuracy[arm].append(top1(folder, name))
            print(f'{arm}, seed {seed}: top-1 {accuracy[arm][-1]:.2f} %, {seconds[arm][-1]:.1f} s/epoch', flush=True)
    rows = []
    for arm in ARMS:
        row = make_row(
            f'{" ".join(STUDENT)}, {EPOCHS} epochs on the digits of the demo, its {TEACHER_EPOCHS}-epoch '
            f'assemble_resnet50 as teacher; time of an epoch with its validation', arm, seconds,
            None if arm == 'without distillation' else 'without distillation')
        row['details'] = {'top-1 (%) of each seed': ', '.join(f'{value:.2f}' for value in accuracy[arm]),
                          'mean': mean(accuracy[arm])}
        if arm == 'stored logits':
            row['details']['once, to store (s)'] = stored_s - start_s
        rows.append(row)
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
