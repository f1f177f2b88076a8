"""All benchmarks in one command: which there are, what is skipped, what fails. Nothing is run."""
from argparse import Namespace

import pytest

from benchmarks import all as all_benchmarks
from benchmarks.reports.report import README


def test_all_finds_every_benchmark_and_the_page_names_each():
    names = all_benchmarks.benchmarks()
    assert {'layers', 'throughput', 'kd_accuracy'} <= {*names} and not {'harness', 'report', 'all'} & {*names}
    assert {*all_benchmarks.NEEDS, *all_benchmarks.ONLY_LONG} <= {*names}
    page = README.read_text()
    assert not [name for name in names if f'python -m benchmarks.{name} ' not in page]


def test_all_goes_on_after_a_failure_and_says_what_it_skips(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(all_benchmarks, 'NEEDS', {'absent': (lambda: 'no TensorFlow here', lambda: '')})
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
    for line in ('absent: skipped, no TensorFlow here', 'bad: FAILED', 'bound: done, a bound is broken', 'good: done',
                 'long: skipped, not in the short form: it trains', 'failed: bad'):
        assert line in out
    assert all_benchmarks.missing('long', short=False) == ''


@pytest.mark.parametrize('options', [['no_such'], ['layers', '--output', 'no/such/folder']])
def test_all_refuses_what_it_does_not_know(options, capsys):
    assert all_benchmarks.main(options) == 2
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and options[-1] in err
