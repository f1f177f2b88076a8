"""Accuracy and cost of distillation from stored views: ``python -m benchmarks.kd_accuracy``, which needs mlxtend."""
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch

from .harness.cli import finish, parse_args
from .harness.kd_training import STORES, Arm, Data, LargeData, Settings, epoch_of, storing, train
from .harness.measure import make_row

QUESTION = "How much of the gain of a teacher in every step do stored views keep, and what do they cost?"
SETTINGS = Settings()
QUARTER = SETTINGS.epochs // 4
NONE, STORED, ONLINE = 'no distillation', 'stored logits', 'teacher in each step, on mixed images'
UNMIXED, ROWS_MIXED = 'teacher in each step, rows mixed', f'{QUARTER} stored views, rows mixed'
KEPT = f'{QUARTER} stored views of mixed images'
VIEWS = (1, 2, 5, QUARTER, SETTINGS.epochs)
ARMS = (
    Arm(NONE),
    Arm(STORED, 'stored'),
    Arm(ROWS_MIXED, 'views', QUARTER),
    *(Arm(f'{views} stored view{"s" * (views > 1)} of mixed images', 'mixed views', views) for views in VIEWS),
    Arm(f'{KEPT}, labels alone', 'mixed views', QUARTER, teacher=False),
    Arm(UNMIXED, 'unmixed'),
    Arm(ONLINE, 'mixed'),
    Arm(f'{NONE}, no mixup', mixup=0.0),
    Arm(f'{QUARTER} stored views, no mixup', 'views', QUARTER, mixup=0.0),
    Arm('teacher in each step, no mixup', 'mixed', mixup=0.0),
)
TIMED = (NONE, STORED, ROWS_MIXED, KEPT, UNMIXED, ONLINE)
BOUNDS = {STORED: 1.05, ROWS_MIXED: 1.05, KEPT: 1.05, 'storing views': 1.1}
Runs = Dict[str, List[Dict[str, float]]]  # by arm, in the order of the seeds


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of two or more values."""
    return stdev(values) / len(values) ** 0.5


def share_of(gains: Sequence[float], whole: Sequence[float]) -> Tuple[float, float]:
    """Return the ratio of two means over the same seeds in percent, and its jackknife standard error.

    Args:
        gains: By seed.
        whole: Those of the arm that is 100 %, by seed.
    """
    n = len(gains)
    left_out = [(sum(gains) - g) / (sum(whole) - w) for g, w in zip(gains, whole)]
    error = ((n - 1) / n * sum((value - mean(left_out)) ** 2 for value in left_out)) ** 0.5
    return 100 * sum(gains) / sum(whole), 100 * error


def summary(runs: Runs, name: str) -> Dict[str, Any]:
    """Return the columns of an arm: accuracy, its gain over none, and the share of the online teacher's gain."""
    top1 = {arm: [run['top1'] for run in found] for arm, found in runs.items()}
    columns = {'top-1 on crops (%)': mean(top1[name]), 'standard error': standard_error(top1[name])}
    if name != NONE:
        gains = [own - none for own, none in zip(top1[name], top1[NONE])]
        whole = [online - none for online, none in zip(top1[ONLINE], top1[NONE])]
        share, error = share_of(gains, whole)
        columns.update({'gain': mean(gains), 'standard error of the gain': standard_error(gains),
                        "share of the online teacher's gain (%)": share, 'standard error of the share': error})
    return columns


def rows_of(group: str, seconds: Mapping[str, Sequence[float]], bounds: Mapping[str, float]) -> List[Dict[str, Any]]:
    """Return one row per case, compared with the first."""
    first, *others = seconds
    return [make_row(group, first, seconds), *(
        make_row(group, name, seconds, first, bound=bounds.get(name)) for name in others)]


def accuracy_rows(runs: Runs, group: str) -> List[Dict[str, Any]]:
    """Return one row per arm; seconds are of an epoch of the trainings."""
    rows = rows_of(group, {name: [run['seconds'] for run in found] for name, found in runs.items()}, {})
    return [dict(row, details=summary(runs, row['name'])) for row in rows]


def cost_rows(
        args: Any, data: Data, arms: Sequence[Arm], split: str, views: int, text: str = '') -> List[Dict[str, Any]]:
    """Time epochs of some arms and storing, each interleaved."""
    seconds = args.measure({arm.name: epoch_of(arm, data) for arm in arms if arm.name in TIMED})
    rows = rows_of(f'Time of an epoch: {text}{data.settings}', seconds, BOUNDS)
    with tempfile.TemporaryDirectory() as temporary:
        seconds = args.measure(storing(data, split, views, Path(temporary)))
    size = data.settings.size
    return rows + rows_of(
        f'Storing: {text}{views} view{"s" * (views > 1)} of {len(data.dataset(split))} images at {size}x{size}',
        seconds, BOUNDS)


def trained(data: Data, seeds: int, processes: int) -> Runs:
    """Train all arms with each seed, the seeds divided among processes."""
    for arm in ARMS:
        if arm.rows in STORES:
            data.store(arm.rows, arm.views)  # once, before the processes share it
    jobs = [(arm, seed) for seed in range(seeds) for arm in ARMS]
    runs: Runs = {arm.name: [] for arm in ARMS}
    with ProcessPoolExecutor(processes, get_context('fork')) as pool:
        for (arm, seed), run in zip(jobs, pool.map(partial(_train, data), *zip(*jobs))):
            runs[arm.name].append(run)
            print(f'{arm.name}, seed {seed}: {run}', flush=True)
    return runs


def _train(data: Data, arm: Arm, seed: int) -> Dict[str, float]:
    torch.set_num_threads(1)
    return train(arm, data, seed)


def main() -> int:
    """Train teacher and students, time epochs and storing, print and write the results."""
    args = parse_args('kd_accuracy', QUESTION, rounds=8, options=lambda parser: parser.add_argument(
        '--processes', type=int, default=2, help='trainings at a time (%(default)s)'))
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        data = Data(Path(small), SETTINGS)
        runs = trained(data, args.rounds, args.processes)
        rows = accuracy_rows(runs, f'Accuracy: {SETTINGS}; time of an epoch of these trainings')
        rows[0]['details']['of the teacher (%)'] = data.accuracy(data.teacher)
        args.measure.keywords['rounds'] = 10
        rows += cost_rows(args, data, ARMS, 'train', 1)
        data = LargeData(Path(large), replace(SETTINGS, labelled=2, batch_size=20, size=96, crops=1))
        args.measure.keywords.update(rounds=4, warmup=1)
        arms = Arm(NONE), Arm(ROWS_MIXED, 'views', QUARTER), Arm(KEPT, 'mixed views', QUARTER)
        rows += cost_rows(args, data, arms, 'few', 12, 'assemble_resnet50 as student and teacher, ')
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
