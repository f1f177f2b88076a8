"""What the benchmarks' command lines share: options, one-line errors, the table, the results file, the exit status.

Knows torch, the harness and the report's tables.
"""
import argparse
import shlex
import sys
from pathlib import Path
from typing import Any, Dict, List, NoReturn

import torch

from .harness import RESULTS, environment, write_results
from .report import table

__all__ = ['parse_args', 'finish', 'sync_of']


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: error: {message}\n')  # without the usage: one line


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f'must be an integer of 2 or more, got {text!r}')
    return int(text)


def parse_args(name: str, description: str, rounds: int) -> argparse.Namespace:
    """Options of ``python -m benchmarks.{name}``; exits with status 2 and one line where one cannot be met."""
    parser = _Parser(prog=f'python -m benchmarks.{name}', description=description)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--rounds', type=_rounds, default=rounds, help='calls recorded of each case (%(default)s)')
    parser.add_argument('--output', type=Path, default=RESULTS / f'{name}.json', help='results file (%(default)s)')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA device')
    if args.output.is_dir() or not args.output.parent.is_dir():  # found out now, not after the measurement
        parser.error(f'--output {args.output}: not a file in an existing folder')
    args.command = shlex.join(['python', '-m', f'benchmarks.{name}', *sys.argv[1:]])
    args.sync = torch.cuda.synchronize if args.device == 'cuda' else lambda: None
    return args


def finish(args: argparse.Namespace, question: str, rows: List[Dict[str, Any]]) -> int:
    """Print the table, write the results, and only then tell by the exit status, 1, whether a bound is broken."""
    print(table(rows))
    write_results(args.output, question, args.command, environment(args.device), rows)
    broken = [row for row in rows if row['comparison'] and row['comparison']['passed'] is False]
    for row in broken:
        print(f'Bound broken: {row["group"]}, {row["name"]}.')
    return 1 if broken else 0
