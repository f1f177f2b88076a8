"""The command that runs all benchmarks; nothing is run here."""
from argparse import Namespace

import pytest

from benchmarks import all as all_benchmarks
from benchmarks.reports.report import HEADLINES, README


def test_every_benchmark_is_found_documented_and_in_the_headlines():
    names = all_benchmarks.benchmarks()
    assert {'layers', 'throughput', 'kd_accuracy'} <= {*names} and 'all' not in names
    assert {*names} == {name.removesuffix('_cuda') for name in HEADLINES}
    assert {*all_benchmarks.NEEDS, *all_benchmarks.ONLY_LONG} <= {*names}
    assert not [name for name in names if f'python -m benchmarks.{name} ' not in README.read_text()]


def test_all_continues_after_a_failure_and_names_what_it_skips(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(all_benchmarks, 'NEEDS', {'absent': (lambda: 'tensorflow is not installed', lambda: '')})
    monkeypatch.setattr(all_benchmarks, 'ONLY_LONG', {'long': 'it trains'})
    ran = []

    def run(command, cwd):
        ran.append(command[2:])
        return Namespace(returncode={'benchmarks.bad': 2, 'benchmarks.bound': 1}.get(command[2], 0))
    monkeypatch.setattr(all_benchmarks.subprocess, 'run', run)
    failed = all_benchmarks.run_all(['absent', 'bad', 'bound', 'good', 'long'], True, tmp_path)
    out = capsys.readouterr().out
    assert failed == ['bad']
    assert ran == [[f'benchmarks.{name}', '--output', str(tmp_path / f'{name}.json'), '--short']
                   for name in ('bad', 'bound', 'good')]
    for line in ('absent: skipped, tensorflow is not installed', 'bad: FAILED', 'bound: done, a bound is broken',
                 'good: done', 'long: skipped, no short form: it trains', 'failed: bad'):
        assert line in out
    assert all_benchmarks.missing('long', short=False) == ''


@pytest.mark.parametrize('options', [['no_such'], ['layers', '--output', 'no/such/folder']])
def test_unknown_benchmark_or_folder_is_one_line_and_status_2(options, capsys):
    assert all_benchmarks.main(options) == 2
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and options[-1] in err
