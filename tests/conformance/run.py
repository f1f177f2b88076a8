"""Run timm's own model tests on this package's models, by default with the oldest and the newest timm.

For each version it downloads timm and its tests, runs pytest with :mod:`.plugin` and prints a table. Exit status: 0 if
every model has and passes every test, 1 if not, 2 if nothing ran.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

from .plugin import model_names

ROOT = Path(__file__).parents[2]


def _pip(*args: str) -> None:
    command = [sys.executable, '-m', 'pip', *args, '--quiet', '--no-deps', '--disable-pip-version-check']
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        why = (result.stderr.strip().splitlines() or ['no message'])[-1]
        raise OSError(f'{args[-1]} cannot be downloaded: {why}')


def _download_source(requirement: str, folder: Path) -> Path:
    _pip('download', '--no-binary', 'timm', '--dest', str(folder), requirement)
    return next(folder.glob('timm-*.tar.gz'))


def _default_versions() -> List[str]:
    oldest = re.search(r'timm>=([\w.]+)', (ROOT / 'pyproject.toml').read_text()).group(1)
    with tempfile.TemporaryDirectory() as temp:
        newest = _download_source('timm', Path(temp)).name[len('timm-'):-len('.tar.gz')]
    return [*dict.fromkeys([oldest, newest])]


def _prepare(version: str, cache: Path) -> Path:
    """Return a cached folder with timm's model tests and pytest settings, and timm itself in ``site/``."""
    folder = cache / f'timm-{version}'
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temp:
            source, made = _download_source(f'timm=={version}', Path(temp)), Path(temp, 'made')
            _pip('install', '--target', str(made / 'site'), f'timm=={version}')
            with tarfile.open(source) as archive:  # its timm and tests would hide the right ones
                for member in archive:
                    name = member.name.partition('/')[2]
                    if name in ('pyproject.toml', 'tests/conftest.py', 'tests/test_models.py'):
                        (made / Path(name).name).write_bytes(archive.extractfile(member).read())
            made.rename(folder)  # last, so that an interrupted run leaves no incomplete folder
    return folder


def _run_tests(version: str, folder: Path, models: str) -> Tuple[Dict[str, Any], int]:
    """Run timm's tests in a process of their own; return the plugin's report and pytest's exit status."""
    # both variables can change which tests are collected
    env = {name: value for name, value in os.environ.items() if name not in ('GITHUB_ACTIONS', 'PYTEST_ADDOPTS')}
    env['PYTHONPATH'] = os.pathsep.join([str(folder / 'site'), str(ROOT)])
    with tempfile.TemporaryDirectory() as temp:
        report = Path(temp, 'report.json')
        status = subprocess.run([
            sys.executable, '-m', 'pytest', '-qq', '--tb=short', '-W', 'ignore', '-p', 'no:cacheprovider',
            '-p', 'tests.conformance.plugin', f'--assemble-timm={version}', f'--assemble-models={models}',
            f'--assemble-report={report}', '-c', 'pyproject.toml', 'test_models.py',
        ], cwd=folder, env=env).returncode
        return json.loads(report.read_text()) if report.exists() else dict(kinds=[], results={}), status


def _print_results(models: List[str], report: Dict[str, Any]) -> Counter:
    """Print a version's table and the tests that did not pass; return the counts. A missing test counts as failed."""
    results = list(report['results'].values())
    existing = {(r['model'], r['test']) for r in results}
    kinds = {*report['kinds'], *(test for _, test in existing)} or {'test_*'}  # nothing ran: no model has its tests
    results += [
        dict(model=model, test=test, outcome='failed', reason='the model has no such test')
        for model in models for test in sorted(kinds) if (model, test) not in existing]
    counts = Counter((r['model'], r['outcome']) for r in results)
    print(f"{'model':26}   passed   failed  skipped")
    for model in models:
        print(f'{model:26}' + ''.join(f'{counts[model, outcome]:9}' for outcome in ('passed', 'failed', 'skipped')))
    for r in results:
        if r['outcome'] != 'passed':
            print(f"{r['outcome']}: {r['test']}[{r['model']}]: {r['reason']}")
    return Counter(r['outcome'] for r in results)


def main() -> int:
    # no usage, so that an error is one line
    parser = argparse.ArgumentParser(
        'python -m tests.conformance.run', usage=argparse.SUPPRESS, description=__doc__.partition('\n')[0])
    parser.add_argument('--versions', nargs='+', metavar='V', help='versions of timm (default: oldest and newest)')
    parser.add_argument('--models', default='*', metavar='GLOB', help='models to test (default: all)')
    parser.add_argument('--cache', type=Path, default=ROOT / '.conformance', metavar='DIR', help='folder for downloads')
    args = parser.parse_args()
    models = model_names(args.models)
    if not models:
        parser.error(f"--models {args.models!r} matches none of {', '.join(model_names('*'))}")
    try:
        folders = {v: _prepare(v, args.cache.resolve()) for v in args.versions or _default_versions()}
    except OSError as e:
        parser.error(str(e))
    total, statuses = Counter(), set()  # pytest's status also reports a run that did not finish
    for version, folder in folders.items():
        start = time.monotonic()
        report, status = _run_tests(version, folder, args.models)
        print(f'\ntimm {version}, {time.monotonic() - start:.0f} s, exit status of pytest {status}')
        total += _print_results(models, report)
        statuses.add(status)
        sys.stdout.flush()  # before the next pytest writes there
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return int(any(statuses) or total['failed'] > 0)


if __name__ == '__main__':
    sys.exit(main())
