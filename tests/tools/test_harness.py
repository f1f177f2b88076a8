"""The benchmarks' harness: statistics of made-up timings, schema, tables, options. Nothing here is timed."""
import json
import subprocess
import sys
from argparse import Namespace
from functools import partial

import pytest

from benchmarks.harness.cli import SHORT_RESULTS, finish, parse_args
from benchmarks.harness.measure import (
    RESULTS, ROOT, environment, make_row, measure, read_results, write_results,
)
from benchmarks.harness.table import table


class Clock:
    """A clock that only cases move, and the names of the cases in the order of their calls."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, []

    def measure(self, durations: dict, **options) -> dict:
        """Measure cases that take their durations in turn, then the last one again and again."""
        left = {name: list(values) for name, values in durations.items()}

        def call(name: str) -> None:
            self.calls.append(name)
            self.now += left[name].pop(0) if len(left[name]) > 1 else left[name][0]
        return measure({name: partial(call, name) for name in durations}, clock=lambda: self.now, **options)


def a_results_file() -> dict:
    seconds = {'bare': [1.0, 2.0, 4.0, 8.0], 'ours': [1.1, 2.2, 4.4, 8.8]}
    rows = [make_row('group', 'bare', seconds), make_row('group', 'ours', seconds, 'bare', bound=1.2, size=3, note='x')]
    return dict(
        schema_version=1, question='How?', command='python -m benchmarks.how',
        environment=environment('cpu', 'wall time'), rows=rows)


def test_measure_records_each_case_once_a_round_interleaved_and_short_ones_repeated():
    clock = Clock()
    assert clock.measure(dict(a=[9.0, 1.0, 1.0, 2.0], b=[5.0]), rounds=3, warmup=1, min_seconds=0.1) == {
        'a': [1.0, 1.0, 2.0], 'b': [5.0, 5.0, 5.0]}
    assert all({*clock.calls[i:i + 2]} == {'a', 'b'} for i in range(0, 8, 2))
    clock = Clock()
    assert clock.measure(dict(short=[0.25]), rounds=2, warmup=1, min_seconds=0.9) == {'short': [0.25, 0.25]}
    assert len(clock.calls) == 1 + 2 * 4


def test_measure_shuffles_and_repeats_the_order_of_a_seed():
    clocks = [Clock() for _ in range(3)]
    for clock, seed in zip(clocks, (0, 0, 1)):
        clock.measure(dict.fromkeys('abc', (1.0,)), rounds=8, seed=seed)
    first, again, other = (clock.calls for clock in clocks)
    assert len({tuple(first[i:i + 3]) for i in range(0, 33, 3)}) > 2 and first == again != other


def test_measure_waits_for_the_device_before_it_reads_the_clock():
    clock, queued = Clock(), []

    def sync() -> None:
        clock.now += sum(queued)
        queued.clear()
    seconds = measure({'a': lambda: queued.append(2.0)}, rounds=2, sync=sync, clock=lambda: clock.now)
    assert seconds == {'a': [2.0, 2.0]}


def test_make_row_records_the_median_of_paired_ratios():
    seconds = {'bare': [1.0, 10.0, 3.0, 2.0, 4.0], 'ours': [2.0, 15.0, 3.0, 5.0, 6.0]}  # ratios 2, 1.5, 1, 2.5, 1.5
    assert make_row('group', 'ours', seconds, reference='bare', bound=1.5, n=3) == dict(
        group='group', name='ours', rounds=5, q1_s=3.0, median_s=5.0, q3_s=6.0, spread=0.6, details=dict(n=3),
        comparison=dict(reference='bare', of='seconds', q1=1.5, ratio=1.5, q3=2.0, ratio_of_medians=5.0 / 3.0,
                        bound=1.5, passed=True))


@pytest.mark.parametrize('of, bound, ratio, passed', [
    ('seconds', 2.0, 2.0, True), ('seconds', 1.9, 2.0, False), ('seconds', None, 2.0, None),
    ('speed', 0.5, 0.5, True), ('speed', 0.6, 0.5, False), ('speed', None, 0.5, None),
])
def test_bound_is_a_maximum_of_seconds_and_a_minimum_of_speed(of, bound, ratio, passed):
    row = make_row('group', 'ours', {'bare': [1.0, 1.0], 'ours': [2.0, 2.0]}, 'bare', of=of, bound=bound)
    assert row['comparison']['ratio'] == ratio
    assert row['comparison']['passed'] is passed


def test_results_are_written_as_they_are_read_and_without_infinite_numbers(tmp_path):
    results, path = a_results_file(), tmp_path / 'how.json'
    values = {key: results[key] for key in ('question', 'command', 'environment', 'rows')}
    results['rows'][0]['details']['ratio'] = float('nan')
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_results(path, **values)
    assert not list(tmp_path.iterdir())
    del results['rows'][0]['details']['ratio']
    write_results(path, **values)
    assert read_results(path) == results
    path.write_text(json.dumps({**results, 'schema_version': 2}))
    with pytest.raises(ValueError, match='schema_version 1'):
        read_results(path)


def test_table_has_one_line_per_row_and_a_column_per_detail():
    title, _, *lines = table(a_results_file()['rows']).splitlines()
    assert title == '**group**' and len({len(line) for line in lines}) == 1
    assert [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if '---' not in line] == [
        ['case', 'size', 'note', 'median (ms)', 'spread', 'compared with', 'ratio of seconds', 'of medians', 'bound',
         'verdict'],
        ['bare', '', '', '3000', '108%', '', '', '', '', ''],
        ['ours', '3', 'x', '3300', '108%', 'bare', '1.100 (1.100 to 1.100)', '1.100', '<= 1.2', 'holds']]


@pytest.mark.parametrize('options', [
    ['--rounds', '1'], ['--threads', 'x'], ['--device', 'abacus'], ['--output', 'no/such/folder/x'], ['--colour']])
def test_bad_options_are_named_before_anything_is_measured(options, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['layers', *options])
    with pytest.raises(SystemExit) as e:
        parse_args('layers', 'How?', rounds=2)
    out, err = capsys.readouterr()
    assert e.value.code == 2 and not out and options[0] in err.splitlines()[-1]


def test_short_run_writes_outside_the_results(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['layers', '--short'])
    args = parse_args('layers', 'How?', rounds=6)
    assert args.short and args.rounds == 2 and args.output == SHORT_RESULTS / 'layers.json'
    monkeypatch.setattr(sys, 'argv', ['layers', '--short', '--rounds', '3'])
    assert parse_args('layers', 'How?', rounds=6).rounds == 3
    monkeypatch.setattr(sys, 'argv', ['layers'])
    args = parse_args('layers', 'How?', rounds=6)
    assert not args.short and args.rounds == 6 and args.output == RESULTS / 'layers.json'
    ignored = subprocess.run(['git', 'check-ignore', str(SHORT_RESULTS / 'x.json')], cwd=ROOT, capture_output=True)
    assert ignored.returncode in (0, 128)  # 128: not in a checkout


def test_finish_prints_and_writes_before_it_fails(tmp_path, capsys):
    results = a_results_file()
    args = Namespace(output=tmp_path / 'how.json', command='python', environment=results['environment'])
    assert finish(args, 'How?', results['rows']) == 0
    results['rows'][1]['comparison'].update(bound=1.05, passed=False)
    assert finish(args, 'How?', results['rows']) == 1
    assert 'BROKEN' in capsys.readouterr().out
    assert json.loads(args.output.read_text())['rows'] == results['rows']
