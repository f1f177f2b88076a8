"""All benchmarks, one after another. ``python -m benchmarks.all``, and ``make bench`` for the short form of each

Each runs in a process of its own. Knows the other files by their names, and what some of them need.
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
from .harness.measure import ROOT
from .reports.report import RESULTS

__all__ = ['benchmarks', 'missing', 'run_all']


def benchmarks() -> List[str]:
    """Names of the benchmarks: the files here that ask a question."""
    return sorted(path.stem for path in Path(__file__).parent.glob('*.py') if '\nQUESTION = ' in path.read_text())


def _lacks(*packages: str) -> Callable[[], str]:
    return lambda: ', '.join(f'no {name} here' for name in packages if importlib.util.find_spec(name) is None)


def _no_validate() -> str:
    found = (Path(os.environ.get('TIMM_SCRIPTS', '')) / 'validate.py').is_file()
    return '' if found else "TIMM_SCRIPTS is not the folder of timm's scripts"


# What keeps a benchmark from running, in words; empty where nothing does.
NEEDS: Dict[str, Sequence[Callable[[], str]]] = {
    'convert': (_lacks('tensorflow'),),
    'kd_accuracy': (_lacks('sklearn'),),
    'robustness': (_no_validate, _lacks('imagecorruptions', 'torchmetrics')),
}
ONLY_LONG = {'kd_accuracy': 'what a training reaches, a shorter one does not tell'}
STATUS = {0: 'done', 1: 'done, a bound is broken'}


def missing(name: str, short: bool) -> str:
    """Why a benchmark cannot run here, or need not in the short form; empty if it can."""
    if short and name in ONLY_LONG:
        return f'not in the short form: {ONLY_LONG[name]}'
    return '; '.join(filter(None, (need() for need in NEEDS.get(name, ()))))


def run_all(names: Sequence[str], short: bool, folder: Path, options: Sequence[str] = ()) -> List[str]:
    """Run benchmarks, say in a line each how it went, and go on where one fails.

    Args:
        names: Which.
        short: The short form of each.
        folder: Gets ``NAME.json`` of each.
        options: Passed to each.

    Returns:
        Those that failed. A broken bound is not a failure here: in a short run it says little.
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
    """Run them; 1 if one failed."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.all', description='All benchmarks, or those named.')
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'of {", ".join(benchmarks())} (all)')
    parser.add_argument('--short', action='store_true', help='the short form of each')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--output', type=Path, help=f'existing folder ({RESULTS}; with --short {SHORT_RESULTS})')
    args = parser.parse_args(argv)
    unknown = sorted({*args.names} - {*benchmarks()})
    if unknown or (args.output and not args.output.is_dir()):
        problem = f'no benchmarks: {", ".join(unknown)}' if unknown else f'--output {args.output}: not a folder'
        print(f'python -m benchmarks.all: error: {problem}', file=sys.stderr)
        return 2
    folder = args.output or (SHORT_RESULTS if args.short else RESULTS)
    folder.mkdir(exist_ok=True)
    names = args.names or benchmarks()
    return 1 if run_all(names, args.short, folder.resolve(), ['--device', args.device]) else 0


if __name__ == '__main__':
    sys.exit(main())
