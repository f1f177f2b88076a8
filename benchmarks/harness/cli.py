"""The benchmarks' command line, from its options to its exit status."""
import argparse
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch

from .measure import RESULTS, ROOT, environment, measure, write_results
from .table import table

__all__ = ['SHORT_RESULTS', 'finish', 'parse_args']

SHORT_RESULTS = ROOT / 'bench-output'  # ignored by git: a short run is not to be committed
SHORT_ROUNDS = 2


def parse_args(
        name: str,
        question: str,
        rounds: int,
        options: Callable[[argparse.ArgumentParser], Any] = lambda parser: None,
) -> argparse.Namespace:
    """Parse the options of ``python -m benchmarks.{name}``.

    On the CPU the default is one thread and processor time, which stands still while another program holds the core.
    Several threads wait for each other at the end of every operation: on a shared machine many small operations then
    look far slower than one big one. They need wall time and an idle machine.

    Args:
        name: Module and results file.
        question: Shown by ``--help``.
        rounds: Default of ``--rounds``.
        options: Adds the options of this benchmark alone.

    Returns:
        The options; ``command`` and ``environment`` for the results file; and ``measure``, the harness's with rounds,
        clock and synchronisation set. ``short`` asks for few and small cases.
    """
    parser = argparse.ArgumentParser(prog=f'python -m benchmarks.{name}', description=question)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (%(default)s)')
    parser.add_argument('--rounds', type=int, help=f'timings of each case, 2 or more ({rounds})')
    parser.add_argument(
        '--short', action='store_true',
        help=f'few and small cases, {SHORT_ROUNDS} rounds: shows that it runs, and too little to judge by')
    parser.add_argument(
        '--output', type=Path,
        help=f'results file ({RESULTS / name}.json; with --short {SHORT_RESULTS / name}.json)')
    options(parser)
    args = parser.parse_args()
    if args.rounds is None:
        args.rounds = SHORT_ROUNDS if args.short else rounds
    if args.rounds < 2:
        parser.error(f'--rounds must be 2 or more, got {args.rounds}')
    if args.output is None:
        folder = SHORT_RESULTS if args.short else RESULTS
        folder.mkdir(exist_ok=True)
        args.output = folder / f'{name}.json'
    if args.output.is_dir() or not args.output.parent.is_dir():  # checked before the measurement
        parser.error(f'--output must be a file in an existing folder, got {args.output}')
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # glibc returns large freed blocks to the system, and page faults then weigh more than the layers, until a block of
    # nearly 32 MiB was freed once: from then on it keeps them, as in any process that has run for a while.
    torch.empty(31 << 20, dtype=torch.uint8)
    args.command = shlex.join(['python', '-m', f'benchmarks.{name}', *sys.argv[1:]])
    args.clock = 'processor time' if args.device == 'cpu' and args.threads == 1 else 'wall time'
    args.environment = environment(args.device, args.clock)  # now: a commit may be made while it runs
    args.measure = partial(
        measure, rounds=args.rounds,
        clock=time.process_time if args.clock == 'processor time' else time.perf_counter,
        sync=torch.cuda.synchronize if args.device == 'cuda' else lambda: None)
    return args


def finish(args: argparse.Namespace, question: str, rows: List[Dict[str, Any]]) -> int:
    """Print the tables, write the results and report broken bounds.

    Returns:
        The exit status: 1 if a bound is broken, else 0.
    """
    print(table(rows))
    write_results(args.output, question, args.command, args.environment, rows)
    broken = [row for row in rows if row['comparison'] and row['comparison']['passed'] is False]
    for row in broken:
        print(f'\nBound broken: {row["group"]}: {row["name"]}')
    return 1 if broken else 0
