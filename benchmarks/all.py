"""Run all benchmarks, each in its own process. ``python -m benchmarks.all``; ``make bench`` runs their short forms."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Sequence

from .harness.measure import ROOT

__all__ = ['NAMES', 'main', 'missing']

NAMES = sorted(path.stem for path in Path(__file__).parent.glob('*.py') if '\nQUESTION = ' in path.read_text())
PACKAGES = {'convert': ['tensorflow'], 'kd_accuracy': ['mlxtend'], 'robustness': ['imagecorruptions', 'torchmetrics']}
STATUS = {0: 'done', 1: 'done, a bound is broken'}  # in a short run a broken bound says little


def missing(name: str, short: bool) -> str:
    """Return why a benchmark cannot run, or has no short form; empty if it can run."""
    if short and name == 'kd_accuracy':
        return 'no short form: a shorter training would not show the accuracy'
    if name == 'robustness' and not (Path(os.environ.get('TIMM_SCRIPTS', '')) / 'validate.py').is_file():
        return "TIMM_SCRIPTS must be the folder of timm's scripts"
    return ', '.join(f'{package} is not installed' for package in PACKAGES.get(name, [])
                     if importlib.util.find_spec(package) is None)


def main(options: Sequence[str]) -> int:
    """Run the benchmarks with the options, go on where one fails, and return 1 if one failed."""
    lines, failed = [], False
    for name in NAMES:
        result = missing(name, '--short' in options)
        if result:
            lines.append(f'{name}: skipped, {result}')
            continue
        print(f'\n== {name}', flush=True)
        status = subprocess.run([sys.executable, '-m', f'benchmarks.{name}', *options], cwd=ROOT).returncode
        lines.append(f'{name}: {STATUS.get(status, "FAILED")}')
        failed |= status not in STATUS
    print('\n' + '\n'.join(lines))
    return int(failed)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
