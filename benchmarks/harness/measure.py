"""Interleaved timing, paired ratios, the environment and the results files."""
import json
import math
import os
import platform
import random
import subprocess
import time
from datetime import datetime, UTC
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch

from timm_assemble.runtime.atomic import atomic_file

__all__ = ['RESULTS', 'ROOT', 'environment', 'make_row', 'measure', 'read_results', 'write_results']

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'benchmarks' / 'results'
# A results file has schema_version, question, command, environment and rows, as the functions below write them.
SCHEMA_VERSION = 1


def measure(
        cases: Mapping[str, Callable[[], Any]],
        rounds: int,
        warmup: int = 3,
        sync: Callable[[], Any] = lambda: None,
        min_seconds: float = 0.2,
        clock: Callable[[], float] = time.perf_counter,
        seed: int = 0,
        pause: float = 0.0,
) -> Dict[str, List[float]]:
    """Time every case once per round, in shuffled order; return seconds per call.

    Interleaving spreads a slow minute of the machine over all cases. Shuffling keeps a case from always running on the
    caches that the same other case left. A short case is called several times in a row, for the same reason.

    Args:
        cases: What to run.
        rounds: Rounds recorded.
        warmup: Rounds before them, 1 or more; the fastest decides how often to call in a row.
        sync: Waits for the device before each reading of the clock.
        min_seconds: Least length of one timing, so that page faults after another case do not weigh.
        clock: Returns seconds.
        seed: Of the orders.
        pause: Seconds to wait before each timing.
    """
    order, rng, calls = list(cases), random.Random(seed), dict.fromkeys(cases, 1)
    seconds: Dict[str, List[float]] = {name: [] for name in cases}
    for i in range(warmup + rounds):
        if i == warmup:
            calls = {name: math.ceil(min_seconds / min(values)) for name, values in seconds.items()}
            seconds = {name: [] for name in cases}
        rng.shuffle(order)
        for name in order:
            time.sleep(pause)
            sync()
            start = clock()
            for _ in range(calls[name]):
                cases[name]()
            sync()
            seconds[name].append((clock() - start) / calls[name])
    return seconds


def make_row(
        group: str,
        name: str,
        seconds: Mapping[str, Sequence[float]],
        reference: Optional[str] = None,
        of: str = 'seconds',
        bound: Optional[float] = None,
        **details: Any,
) -> Dict[str, Any]:
    """Return one row of the results: a case's time and its ratio to a reference.

    The ratio is paired: the median of the rounds' own ratios, each of two timings a moment apart, so that drift of the
    machine cancels. The ratio of the two medians is recorded beside it.

    Args:
        group: Title of the cases that ran interleaved.
        name: The case.
        seconds: Result of :func:`measure` for the group.
        reference: The case to compare with, or None.
        of: ``'seconds'`` for own over the reference's, ``'speed'`` for the reference's over own.
        bound: Required ratio, a maximum of seconds and a minimum of speed, or None.
        details: Further columns of the table.
    """
    own, comparison = seconds[name], None
    q1, middle, q3 = quantiles(own, n=4, method='inclusive')
    if reference is not None:
        over, under = (own, seconds[reference]) if of == 'seconds' else (seconds[reference], own)
        ratio_q1, ratio, ratio_q3 = quantiles([a / b for a, b in zip(over, under)], n=4, method='inclusive')
        passed = None if bound is None else ratio <= bound if of == 'seconds' else ratio >= bound
        comparison = dict(
            reference=reference, of=of, ratio=ratio, q1=ratio_q1, q3=ratio_q3,
            ratio_of_medians=median(over) / median(under), bound=bound, passed=passed)
    return dict(
        group=group, name=name, rounds=len(own), median_s=middle, q1_s=q1, q3_s=q3, spread=(q3 - q1) / middle,
        comparison=comparison, details=details)


def _git(*args: str) -> Optional[str]:
    try:
        return subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment(device: str, clock: str) -> Dict[str, Any]:
    """Describe the machine and the versions; ``commit`` is None outside of a git checkout."""
    cpuinfo = Path('/proc/cpuinfo')
    names = [line for line in cpuinfo.read_text().splitlines() if 'model name' in line] if cpuinfo.exists() else []
    cpu = names[0].split(':')[1].strip() if names else platform.processor() or platform.machine()
    return dict(
        date=datetime.now(UTC).isoformat(timespec='seconds'), commit=_git('rev-parse', 'HEAD'),
        dirty=bool(_git('status', '--porcelain', '--', 'timm_assemble', 'benchmarks/*.py')),
        python=platform.python_version(),
        **{package: metadata.version(package) for package in ('torch', 'timm', 'timm_assemble')},
        cpu=f'{cpu}, {os.cpu_count()} cores', threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if device == 'cuda' else device, clock=clock)


def read_results(path: Path) -> Dict[str, Any]:
    """Read a results file."""
    results = json.loads(path.read_text())
    if results['schema_version'] != SCHEMA_VERSION:
        raise ValueError(f'{path.name} must have schema_version {SCHEMA_VERSION}')
    return results


def write_results(path: Path, question: str, command: str, environment: Mapping, rows: Sequence[Mapping]) -> None:
    """Write a results file atomically."""
    results = dict(
        schema_version=SCHEMA_VERSION, question=question, command=command, environment=environment, rows=rows)
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(results, indent=1, allow_nan=False) + '\n')
