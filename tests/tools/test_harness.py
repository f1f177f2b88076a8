"""The benchmarks' harness: statistics of made-up timings, schema, tables, options. Nothing here is timed."""
import copy
import json
import sys
from argparse import Namespace

import pytest

from benchmarks.harness.cli import finish, parse_args
from benchmarks.harness.measure import check_results, environment, make_row, measure, read_results, write_results
from benchmarks.harness.table import table


class Clock:
    """A clock that only cases move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list = []

    def __call__(self) -> float:
        return self.now

    def case(self, name: str, *durations: float):
        """A case that takes the durations in turn, then the last one again and again."""
        left = list(durations)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
        return call


def a_results_file() -> dict:
    seconds = {'bare': [1.0, 2.0, 4.0, 8.0], 'ours': [1.1, 2.2, 4.4, 8.8]}
    rows = [make_row('group', 'bare', seconds), make_row('group', 'ours', seconds, 'bare', bound=1.2, size=3, note='x')]
    return dict(
        schema_version=1, question='How?', command='python -m benchmarks.how',
        environment=environment('cpu', 'wall time'), rows=rows)


def test_measure_records_each_case_once_a_round_interleaved():
    clock = Clock()
    cases = {'a': clock.case('a', 9.0, 1.0, 1.0, 2.0), 'b': clock.case('b', 5.0)}
    seconds = measure(cases, rounds=3, warmup=1, min_seconds=0.1, clock=clock)
    assert seconds == {'a': [1.0, 1.0, 2.0], 'b': [5.0, 5.0, 5.0]}
    assert all({*clock.calls[i:i + 2]} == {'a', 'b'} for i in range(0, 8, 2))


def test_measure_shuffles_and_repeats_the_order_of_a_seed():
    def order(seed: int) -> list:
        clock = Clock()
        measure({name: clock.case(name, 1.0) for name in 'abc'}, rounds=8, clock=clock, seed=seed)
        return clock.calls
    rounds = [tuple(order(0)[i:i + 3]) for i in range(0, 33, 3)]
    assert len(set(rounds)) > 2
    assert order(0) == order(0) != order(1)


def test_measure_repeats_short_cases_and_returns_seconds_per_call():
    clock = Clock()
    seconds = measure({'short': clock.case('short', 0.25)}, rounds=2, warmup=1, min_seconds=0.9, clock=clock)
    assert seconds == {'short': [0.25, 0.25]}
    assert len(clock.calls) == 1 + 2 * 4


def test_measure_waits_for_the_device_before_it_reads_the_clock():
    clock, queued = Clock(), []

    def sync() -> None:
        clock.now += sum(queued)
        queued.clear()
    seconds = measure({'a': lambda: queued.append(2.0)}, rounds=2, sync=sync, clock=clock)
    assert seconds == {'a': [2.0, 2.0]}


def test_make_row_records_the_median_of_paired_ratios():
    seconds = {'bare': [1.0, 10.0, 3.0, 2.0, 4.0], 'ours': [2.0, 15.0, 3.0, 5.0, 6.0]}
    row = make_row('group', 'ours', seconds, reference='bare')
    assert (row['rounds'], row['q1_s'], row['median_s'], row['q3_s'], row['spread']) == (5, 3.0, 5.0, 6.0, 0.6)
    comparison = row['comparison']
    assert (comparison['q1'], comparison['ratio'], comparison['q3']) == (1.5, 1.5, 2.0)  # of 2, 1.5, 1, 2.5, 1.5
    assert comparison['ratio_of_medians'] == 5.0 / 3.0


def test_paired_ratio_cancels_drift():
    slower = [1.5 ** i for i in range(9)]
    row = make_row('group', 'ours', {'bare': slower, 'ours': [1.25 * s for s in slower]}, 'bare')
    assert row['comparison']['q1'] == row['comparison']['ratio'] == row['comparison']['q3'] == 1.25


@pytest.mark.parametrize('of, bound, ratio, passed', [
    ('seconds', 2.0, 2.0, True), ('seconds', 1.9, 2.0, False), ('seconds', None, 2.0, None),
    ('speed', 0.5, 0.5, True), ('speed', 0.6, 0.5, False), ('speed', None, 0.5, None),
])
def test_bound_is_a_maximum_of_seconds_and_a_minimum_of_speed(of, bound, ratio, passed):
    row = make_row('group', 'ours', {'bare': [1.0, 1.0], 'ours': [2.0, 2.0]}, 'bare', of=of, bound=bound)
    assert row['comparison']['ratio'] == ratio
    assert row['comparison']['passed'] is passed


def test_written_results_are_read_back(tmp_path):
    results = a_results_file()
    path = tmp_path / 'how.json'
    write_results(path, *(results[key] for key in ('question', 'command', 'environment', 'rows')))
    assert read_results(path) == results == json.loads(path.read_text())


def test_results_that_break_the_schema_are_not_written(tmp_path):
    with pytest.raises(ValueError, match='at least one row'):
        write_results(tmp_path / 'how.json', 'How?', 'python', environment('cpu', 'wall time'), [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('damage, message', [
    (lambda r: r.pop('question'), 'results must have exactly the keys'),
    (lambda r: r.update(more=1), 'results must have exactly the keys'),
    (lambda r: r.update(schema_version=2), 'schema_version 1'),
    (lambda r: r.update(schema_version=True), r'results\.schema_version must be int'),
    (lambda r: r.update(rows=[]), 'at least one row'),
    (lambda r: r.update(command=None), r'results\.command must be str'),
    (lambda r: r['environment'].pop('commit'), 'environment must have exactly the keys'),
    (lambda r: r['environment'].update(threads='2'), r'environment\.threads must be int'),
    (lambda r: r['environment'].update(dirty='no'), r'environment\.dirty must be bool or NoneType'),
    (lambda r: r['rows'].append('row'), r'rows\[2\] must have exactly the keys'),
    (lambda r: r['rows'][1].pop('group'), r'rows\[1\] must have exactly the keys'),
    (lambda r: r['rows'][0].update(median_s=float('nan')), r'rows\[0\]\.median_s .* finite'),
    (lambda r: r['rows'][0].update(q3_s=float('inf')), r'rows\[0\]\.q3_s .* finite'),
    (lambda r: r['rows'][0].update(q1_s=-1.0), r'rows\[0\]\.q1_s .* not negative'),
    (lambda r: r['rows'][0].update(median_s=0.0), 'q1_s <= median_s <= q3_s'),
    (lambda r: r['rows'][0].update(q1_s=99.0), 'q1_s <= median_s <= q3_s'),
    (lambda r: r['rows'][0].update(spread=0.5), r'rows\[0\]: spread must be'),
    (lambda r: r['rows'][0].update(details={'size': [1]}), 'details must be numbers or strings'),
    (lambda r: r['rows'][0].update(rounds=1), 'rounds must be 2 or more'),
    (lambda r: r['rows'][1]['comparison'].pop('bound'), r'rows\[1\]\.comparison must have exactly the keys'),
    (lambda r: r['rows'][1]['comparison'].update(reference='ours'), 'another case of its group'),
    (lambda r: r['rows'][1].update(group='elsewhere'), 'another case of its group'),
    (lambda r: r['rows'][1]['comparison'].update(of='energy'), "'seconds' or 'speed'"),
    (lambda r: r['rows'][1]['comparison'].update(q1=2.0), 'q1 <= ratio <= q3'),
    (lambda r: r['rows'][1]['comparison'].update(passed=False), 'passed must follow'),
    (lambda r: r['rows'][1]['comparison'].update(passed=None), 'passed must follow'),
    (lambda r: r['rows'][1]['comparison'].update(bound=None), 'passed must follow'),
])
def test_check_names_the_broken_rule(damage, message):
    results = copy.deepcopy(a_results_file())
    check_results(results)
    damage(results)
    with pytest.raises(ValueError, match=message):
        check_results(results)


def test_check_rejects_other_types():
    for thing in (None, [], 'results'):
        with pytest.raises(ValueError, match='results must have exactly the keys'):
            check_results(thing)


def test_table_has_one_line_per_row_and_a_column_per_detail():
    lines = table(a_results_file()['rows']).splitlines()
    assert lines[0] == '**group**'
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]
    assert cells[0] == [
        'case', 'size', 'note', 'median (ms)', 'spread', 'compared with', 'ratio of seconds', 'of medians', 'bound',
        'verdict']
    assert cells[2][0] == 'bare' and cells[2][5:] == [''] * 5
    assert cells[3] == [
        'ours', '3', 'x', '3300', '108%', 'bare', '1.100 (1.100 to 1.100)', '1.100', '<= 1.2', 'holds']
    assert len({len(line) for line in lines[2:]}) == 1


def test_reading_names_a_damaged_file(tmp_path):
    path = tmp_path / 'damaged.json'
    for content in ('{', '{}'):
        path.write_text(content)
        with pytest.raises(ValueError, match=r'damaged\.json'):
            read_results(path)


@pytest.mark.parametrize('options', [
    ['--rounds', '1'], ['--rounds', 'x'], ['--threads', '0'], ['--device', 'abacus'], ['--output', 'no/such/folder/x'],
    ['--colour'],
])
def test_bad_options_are_one_line_and_status_2(options, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['layers', *options])
    with pytest.raises(SystemExit) as e:
        parse_args('layers', 'How?', rounds=2)
    out, err = capsys.readouterr()
    assert e.value.code == 2 and not out and err.count('\n') == 1
    assert err.startswith('python -m benchmarks.layers: error: ') and options[0] in err


def test_finish_prints_and_writes_before_it_fails(tmp_path, capsys):
    environ = environment('cpu', 'wall time')
    args = Namespace(output=tmp_path / 'how.json', command='python', environment=environ)
    seconds = {'bare': [1.0, 1.0], 'ours': [2.0, 2.0]}
    rows = [make_row('group', 'bare', seconds), make_row('group', 'ours', seconds, 'bare', bound=2.0)]
    assert finish(args, 'How?', rows) == 0
    rows[1] = make_row('group', 'ours', seconds, 'bare', bound=1.5)
    assert finish(args, 'How?', rows) == 1
    assert 'BROKEN' in capsys.readouterr().out
    assert json.loads(args.output.read_text())['rows'] == rows
