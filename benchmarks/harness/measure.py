"""Interleaved timing, paired ratios, the environment and the schema of results."""
import json
import math
import os
import platform
import random
import subprocess
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import torch

from timm_assemble.runtime.atomic import atomic_file

__all__ = ['RESULTS', 'ROOT', 'check_results', 'environment', 'make_row', 'measure', 'read_results', 'write_results']

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'benchmarks' / 'results'

# The schema of a results file; every key is required and no other is allowed. Numbers are finite and not negative.
SCHEMA_VERSION = 1
_RESULTS = dict(schema_version=(int,), question=(str,), command=(str,), environment=(dict,), rows=(list,))
_ENVIRONMENT = dict(
    date=(str,), commit=(str, type(None)),  # None outside of a git checkout
    dirty=(bool, type(None)),  # whether the package or the benchmarks differ from the commit
    python=(str,), torch=(str,), timm=(str,), timm_assemble=(str,), cpu=(str,), device=(str,), threads=(int,),
    clock=(str,))  # 'processor time' or 'wall time'
_ROW = dict(
    group=(str,), name=(str,),  # of the cases that ran interleaved, and of this case
    rounds=(int,), median_s=(float,), q1_s=(float,), q3_s=(float,), spread=(float,),  # seconds per call; IQR / median
    comparison=(dict, type(None)),  # None for the case that others are compared with
    details=(dict,))  # further columns of the table: title -> number or string
_COMPARISON = dict(
    reference=(str,),  # name of another case of the group
    of=(str,),  # 'seconds': own / reference's, judged <= bound; 'speed': reference's / own, judged >= bound
    ratio=(float,), q1=(float,), q3=(float,),  # over the rounds' own ratios: median, which is judged, and quartiles
    ratio_of_medians=(float,), bound=(float, type(None)), passed=(bool, type(None)))  # None without a bound


def measure(
        cases: Mapping[str, Callable[[], Any]],
        rounds: int,
        warmup: int = 3,
        sync: Callable[[], Any] = lambda: None,
        min_seconds: float = 0.2,
        clock: Callable[[], float] = time.perf_counter,
        seed: int = 0,
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
    """
    order, rng, calls = list(cases), random.Random(seed), dict.fromkeys(cases, 1)
    seconds: Dict[str, List[float]] = {name: [] for name in cases}
    for i in range(warmup + rounds):
        if i == warmup:
            calls = {name: math.ceil(min_seconds / min(values)) for name, values in seconds.items()}
            seconds = {name: [] for name in cases}
        rng.shuffle(order)
        for name in order:
            sync()
            start = clock()
            for _ in range(calls[name]):
                cases[name]()
            sync()
            seconds[name].append((clock() - start) / calls[name])
    return seconds


def keeps_bound(of: str, ratio: float, bound: Optional[float]) -> Optional[bool]:
    """Return whether a ratio keeps its bound, or None without a bound.

    The bound is a maximum of a ratio of seconds and a minimum of a ratio of speeds.
    """
    if bound is None:
        return None
    return ratio <= bound if of == 'seconds' else ratio >= bound


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
        of: ``'seconds'`` or ``'speed'``, see the schema above.
        bound: Required ratio, or None.
        details: Further columns of the table.
    """
    own, comparison = seconds[name], None
    q1, middle, q3 = quantiles(own, n=4, method='inclusive')
    if reference is not None:
        over, under = (own, seconds[reference]) if of == 'seconds' else (seconds[reference], own)
        ratio_q1, ratio, ratio_q3 = quantiles([a / b for a, b in zip(over, under)], n=4, method='inclusive')
        comparison = dict(
            reference=reference, of=of, ratio=ratio, q1=ratio_q1, q3=ratio_q3,
            ratio_of_medians=median(over) / median(under), bound=bound, passed=keeps_bound(of, ratio, bound))
    return dict(
        group=group, name=name, rounds=len(own), median_s=middle, q1_s=q1, q3_s=q3, spread=(q3 - q1) / middle,
        comparison=comparison, details=details)


def _git(*args: str) -> Optional[str]:
    try:
        return subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment(device: str, clock: str) -> Dict[str, Any]:
    """Describe the machine and the versions; see the schema for the keys."""
    cpuinfo = Path('/proc/cpuinfo')
    names = [line for line in cpuinfo.read_text().splitlines() if 'model name' in line] if cpuinfo.exists() else []
    cpu = names[0].split(':')[1].strip() if names else platform.processor() or platform.machine()
    status = _git('status', '--porcelain', '--', 'timm_assemble', 'benchmarks/*.py')
    return dict(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'), commit=_git('rev-parse', 'HEAD'),
        dirty=None if status is None else bool(status), python=platform.python_version(),
        **{package: metadata.version(package) for package in ('torch', 'timm', 'timm_assemble')},
        cpu=f'{cpu}, {os.cpu_count()} cores', threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if device == 'cuda' else device, clock=clock)


def _check_keys(where: str, value: Any, spec: Mapping[str, tuple]) -> None:
    if type(value) is not dict or value.keys() != spec.keys():
        raise ValueError(f'{where} must have exactly the keys {sorted(spec)}, got {value!r}')
    for key, types in spec.items():
        item = value[key]
        if type(item) not in types or (type(item) in (int, float) and not 0 <= item < math.inf):
            names = ' or '.join(t.__name__ for t in types)
            raise ValueError(f'{where}.{key} must be {names} (a number finite, not negative), got {item!r}')


def check_results(results: Any) -> None:
    """Check results against the schema, and their numbers against each other.

    Raises:
        ValueError: The message names the entry and the rule it breaks.
    """
    _check_keys('results', results, _RESULTS)
    if results['schema_version'] != SCHEMA_VERSION or not results['rows']:
        raise ValueError(f'results need schema_version {SCHEMA_VERSION} and at least one row, got {results!r}')
    _check_keys('environment', results['environment'], _ENVIRONMENT)
    rows = results['rows']
    for i, row in enumerate(rows):
        _check_keys(f'rows[{i}]', row, _ROW)
    for i, row in enumerate(rows):
        q1, middle, q3, c = row['q1_s'], row['median_s'], row['q3_s'], row['comparison']
        wrong = {title: value for title, value in row['details'].items() if type(value) not in (int, float, str)}
        rules = {
            'rounds must be 2 or more': row['rounds'] >= 2,
            '0 < q1_s <= median_s <= q3_s must hold': 0 < q1 <= middle <= q3,
            'spread must be (q3_s - q1_s) / median_s': math.isclose(row['spread'] * middle, q3 - q1, abs_tol=1e-12),
            f'details must be numbers or strings, not {wrong}': not wrong,
        }
        if c is not None:
            _check_keys(f'rows[{i}].comparison', c, _COMPARISON)
            others = {other['name'] for other in rows if other['group'] == row['group']} - {row['name']}
            rules |= {
                f'comparison.reference must be another case of its group, one of {sorted(others)}':
                    c['reference'] in others,
                "comparison.of must be 'seconds' or 'speed'": c['of'] in ('seconds', 'speed'),
                '0 < q1 <= ratio <= q3 must hold in comparison': 0 < c['q1'] <= c['ratio'] <= c['q3'],
                'comparison.passed must follow from ratio and bound':
                    c['passed'] == keeps_bound(c['of'], c['ratio'], c['bound']),
            }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f'rows[{i}]: {rule}, got {row!r}')


def read_results(path: Path) -> Dict[str, Any]:
    """Read and check a results file.

    Raises:
        OSError: It cannot be read.
        ValueError: It breaks the schema; the message names the file.
    """
    try:
        results = json.loads(path.read_text())
        check_results(results)
    except ValueError as e:
        raise ValueError(f'{path.name}: {e}') from e
    return results


def write_results(path: Path, question: str, command: str, environment: Mapping, rows: Sequence[Mapping]) -> None:
    """Check results and write them atomically; see the schema for the arguments."""
    results = dict(
        schema_version=SCHEMA_VERSION, question=question, command=command, environment=environment, rows=rows)
    check_results(results)
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + '\n')
