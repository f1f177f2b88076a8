"""Run all benchmarks, each in its own process. ``python -m benchmarks.all``

``make bench`` runs their short forms.
"""
import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from .harness.cli import SHORT_RESULTS
from .harness.measure import RESULTS, ROOT

__all__ = ['benchmarks', 'missing', 'run_all']


def benchmarks() -> List[str]:
    """Return the names of the benchmarks: the modules here that have a ``QUESTION``."""
    return sorted(path.stem for path in Path(__file__).parent.glob('*.py') if '\nQUESTION = ' in path.read_text())


def _lacks(*packages: str) -> Callable[[], str]:
    return lambda: ', '.join(f'{name} is not installed' for name in packages if importlib.util.find_spec(name) is None)


def _no_validate() -> str:
    found = (Path(os.environ.get('TIMM_SCRIPTS', '')) / 'validate.py').is_file()
    return '' if found else "TIMM_SCRIPTS must be the folder of timm's scripts"


# Functions that return why a benchmark cannot run, or '' if it can.
NEEDS: Dict[str, Sequence[Callable[[], str]]] = {
    'convert': (_lacks('tensorflow'),),
    'kd_accuracy': (_lacks('sklearn'),),
    'robustness': (_no_validate, _lacks('imagecorruptions', 'torchmetrics')),
}
ONLY_LONG = {'kd_accuracy': 'a shorter training would not show the accuracy'}
STATUS = {0: 'done', 1: 'done, a bound is broken'}


def missing(name: str, short: bool) -> str:
    """Return why a benchmark cannot run, or has no short form; empty if it can run."""
    if short and name in ONLY_LONG:
        return f'no short form: {ONLY_LONG[name]}'
    return '; '.join(filter(None, (need() for need in NEEDS.get(name, ()))))


def run_all(names: Sequence[str], short: bool, folder: Path, options: Sequence[str] = ()) -> List[str]:
    """Run benchmarks, print one line about each, and go on where one fails.

    Args:
        names: The benchmarks.
        short: Run their short forms.
        folder: Folder of the results files.
        options: Passed to each.

    Returns:
        Names of those that failed. A broken bound is no failure here: in a short run it says little.
    """
    failed, begin = [], time.monotonic()
    for name in names:
        print(f'\n== {name}', flush=True)
        reason, start = missing(name, short), time.monotonic()
        if reason:
            print(f'{name}: skipped, {reason}', flush=True)
            continue
        command = [sys.executable, '-m', f'benchmarks.{name}', '--output', str(folder / f'{name}.json'), *options]
        status = subprocess.run(command + ['--short'] * short, cwd=ROOT).returncode
        print(f'{name}: {STATUS.get(status, "FAILED")}, {time.monotonic() - start:.0f} s', flush=True)
        if status not in STATUS:
            failed.append(name)
    print(f'\n{len(names)} benchmarks, {time.monotonic() - begin:.0f} s; results in {folder}'
          + (f'; failed: {", ".join(failed)}' if failed else ''), flush=True)
    return failed


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the benchmarks; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.all', description='Run all benchmarks, or those named.')
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'{", ".join(benchmarks())} (all)')
    parser.add_argument('--short', action='store_true', help='the short form of each')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--output', type=Path, help=f'existing folder ({RESULTS}; with --short {SHORT_RESULTS})')
    args = parser.parse_args(argv)
    unknown = sorted({*args.names} - {*benchmarks()})
    if unknown or (args.output and not args.output.is_dir()):
        problem = (f'unknown benchmarks: {", ".join(unknown)}' if unknown else
                   f'--output must be an existing folder, got {args.output}')
        print(f'python -m benchmarks.all: error: {problem}', file=sys.stderr)
        return 2
    folder = args.output or (SHORT_RESULTS if args.short else RESULTS)
    folder.mkdir(exist_ok=True)
    names = args.names or benchmarks()
    return 1 if run_all(names, args.short, folder.resolve(), ['--device', args.device]) else 0


if __name__ == '__main__':
    sys.exit(main())
