"""The command that runs all benchmarks; nothing is run here."""
from argparse import Namespace

from benchmarks import all as all_benchmarks
from benchmarks.reports.__main__ import HEADLINES, README


def test_every_benchmark_is_documented_and_in_the_headlines():
    assert {'layers', 'throughput', 'kd_accuracy'} <= {*all_benchmarks.NAMES} and 'all' not in all_benchmarks.NAMES
    assert {*all_benchmarks.NAMES} == {name.removesuffix('_cuda') for name in HEADLINES}
    assert {*all_benchmarks.PACKAGES} <= {*all_benchmarks.NAMES}
    assert not [name for name in all_benchmarks.NAMES if f'python -m benchmarks.{name} ' not in README.read_text()]


def test_all_continues_after_a_failure_and_names_what_it_skips(monkeypatch, capsys):
    monkeypatch.setattr(all_benchmarks, 'NAMES', ['absent', 'bad', 'bound', 'good', 'kd_accuracy'])
    monkeypatch.setattr(all_benchmarks, 'PACKAGES', {'absent': ['no_such_package'], 'good': ['torch']})
    ran = []

    def run(command, cwd):
        ran.append(command[2:])
        return Namespace(returncode={'benchmarks.bad': 2, 'benchmarks.bound': 1}.get(command[2], 0))
    monkeypatch.setattr(all_benchmarks.subprocess, 'run', run)
    assert all_benchmarks.main(['--short']) == 1
    out = capsys.readouterr().out
    assert ran == [[f'benchmarks.{name}', '--short'] for name in ('bad', 'bound', 'good')]
    for line in ('absent: skipped, no_such_package is not installed', 'bad: FAILED', 'bound: done, a bound is broken',
                 'good: done', 'kd_accuracy: skipped, no short form'):
        assert line in out
    assert all_benchmarks.missing('kd_accuracy', short=False) == ''
