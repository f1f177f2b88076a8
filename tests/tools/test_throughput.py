"""The comparison of speeds: options, counts, what is published, plot, README. Stand-ins are tiny; nothing is timed.

Knows the benchmarks.
"""
import copy
import itertools
import json
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image

from benchmarks import throughput
from benchmarks.harness.cli import SHORT_RESULTS, parse_args
from benchmarks.harness.machine import (
    COPIED, MATRIX_PRODUCT, MEMORY_COPY, SIDES, limit_cases, limit_details, share_of_limit,
)
from benchmarks.harness.measure import ROOT, check_results, environment, make_row
from benchmarks.harness.networks import (
    DTYPES, OURS, REFERENCE, SIZES, Network, Setting, compile_apart, describe, prepare,
)
from benchmarks.reports import plot, speed
from benchmarks.reports.published import published
from benchmarks.reports.report import RESULTS
from docs.generated_block import rewrite_block

COMMITTED = RESULTS / 'throughput.json'
EAGER = Setting('inference', 'eager', 'float32', 4)


def _args(monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', ['throughput', *options])
    return parse_args('throughput', 'How?', rounds=6, options=throughput.add_options)


def made_up_results(settings=(EAGER,), names=tuple(SIZES)) -> dict:
    """Results as throughput.py writes them, of images a second that fall with the multiply-adds."""
    rows = []
    for setting in settings:
        networks = [Network(name, SIZES[name], 10**7, 1e9 * (1 + i)) for i, name in enumerate(names)]
        for suffix, part in throughput.split([n for n in networks if n.name != REFERENCE]).items():
            everyone = {n.name: n for n in (networks[0], *part)}
            seconds = {n.name: [n.macs / 1e10] * 2 for n in everyone.values()}
            for name, n in everyone.items():
                rows.append(make_row(
                    setting.title + suffix, name, seconds, None if name == REFERENCE else REFERENCE, of='speed'))
                rows[-1]['details'] = {
                    'size': n.size, 'GMACs': n.macs / 1e9, 'images/s': setting.batch_size / seconds[name][0]}
        pair = {'tf_efficientnet_b6': [2.0, 2.0], 'assemble_resnet152': [0.5, 0.5]}
        group = f'{setting.title}, assemble_resnet152 beside tf_efficientnet_b6'
        rows.append(make_row(group, 'tf_efficientnet_b6', pair))
        rows.append(make_row(group, 'assemble_resnet152', pair, 'tf_efficientnet_b6', of='speed', **{'images/s': 8.0}))
    return dict(schema_version=1, question='How?', command='python -m benchmarks.throughput',
                environment=environment('cpu', 'wall time'), rows=rows)


@pytest.mark.parametrize('options, message', [
    (['--models', 'resnet51'], "--models: must be a model of timm or of this package, or 'all', got 'resnet51'"),
    (['--modes', 'dreaming'], '--modes'), (['--forms', 'fast'], '--forms'), (['--dtypes', 'int8'], '--dtypes'),
    (['--batch-sizes', '0'], '--batch-sizes: must be an integer of 1 or more'), (['--batch-sizes', 'x'], 'got \'x\''),
    (['--models'], '--models: expected at least one argument'),
])
def test_bad_options_are_one_line_and_status_2(options, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as e:
        _args(monkeypatch, *options)
    out, err = capsys.readouterr()
    assert e.value.code == 2 and not out and err.count('\n') == 1 and message in err


@pytest.mark.parametrize('options, message', [
    (['--dtypes', 'float16'], '--dtypes float16: training takes'),
    (['--batch-sizes', '1', '4'], '--batch-sizes 1: training takes 2 or more'),
    (['--modes', 'training', '--forms', 'optimized'], 'name them by --models'),
])
def test_what_training_cannot_do_is_one_line_and_status_2(options, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['throughput', *options, '--output', str(tmp_path / 'x.json')])
    monkeypatch.setattr(throughput, 'compile_apart', lambda: None)  # for the whole process
    assert throughput.main() == 2
    out, err = capsys.readouterr()
    assert not out and err.count('\n') == 1 and message in err and not list(tmp_path.iterdir())


def test_every_combination_is_a_group_of_its_own(monkeypatch):
    args = _args(monkeypatch, '--batch-sizes', '2', '8', '2')
    titles = [setting.title for setting in throughput.groups(args)]
    assert len(titles) == len(set(titles)) == 2 * 2 * 2 * 2
    assert titles[0] == 'Inference, eager, float32, batch size 2'
    assert [Setting.parse(title) for title in titles] == throughput.groups(args)
    assert Setting.parse('DropBlock, (32, 1024), training') is None


def test_models_are_those_named_or_a_default_of_the_form(monkeypatch):
    compiled = EAGER._replace(form='optimized')
    args = _args(monkeypatch)
    assert throughput.chosen(args, EAGER) == tuple(SIZES)
    assert {'assemble_resnet152', 'tf_efficientnet_b6'} < {*throughput.chosen(args, compiled)} < {*SIZES}
    assert throughput.chosen(_args(monkeypatch, '--models', 'all'), compiled) == tuple(SIZES)
    assert throughput.chosen(_args(monkeypatch, '--models', 'vgg11', 'vgg11'), compiled) == ('vgg11',)
    assert len(throughput.chosen(_args(monkeypatch, '--short'), EAGER)) < len(SIZES)


def test_a_short_run_writes_elsewhere(monkeypatch):
    args = _args(monkeypatch, '--short')
    assert args.short and args.rounds == 2 and args.output == SHORT_RESULTS / 'throughput.json'
    args = _args(monkeypatch)
    assert not args.short and args.rounds == 6 and args.output == COMMITTED
    assert _args(monkeypatch, '--short', '--rounds', '3').rounds == 3
    ignored = subprocess.run(['git', 'check-ignore', str(SHORT_RESULTS / 'x.json')], cwd=ROOT, capture_output=True)
    assert ignored.returncode in (0, 128)  # 128: not in a checkout


@pytest.mark.parametrize('name, mode, size, gmacs', [
    ('resnet50', 'inference', 224, 4.09), ('assemble_resnet50', 'inference', 256, 7.48),
    ('assemble_resnet50', 'training', 224, 5.73), ('tf_efficientnet_b6', 'inference', 528, 19.07),
])
def test_multiply_adds_are_those_known(name, mode, size, gmacs):
    network = describe(name, mode)
    assert network.size == size and network.macs / 1e9 == pytest.approx(gmacs, abs=0.01)


def test_other_models_are_taken_at_their_test_size():
    assert describe('test_resnet', 'inference').size == 160
    assert describe('resnet18', 'inference').size == 288 and describe('resnet18', 'training').size == 224


def test_share_of_the_limit_is_a_ratio_of_rates():
    side = SIDES['cpu']
    macs = side ** 3 / 2  # half of a product's, in as much time: half of the rate
    assert share_of_limit(macs, [1.0, 1.0], [1.0, 1.0], 'cpu') == 0.5
    # round by round, so that a slow minute of the machine does not count
    assert share_of_limit(macs, [1.0, 10.0, 2.0], [1.0, 10.0, 2.0], 'cpu') == 0.5
    assert limit_details(MATRIX_PRODUCT, 'cpu', 0.5) == {'size': side, 'GMAC/s': side ** 3 / 0.5e9}
    assert limit_details(MEMORY_COPY, 'cpu', 0.5) == {'GB/s': 4 * COPIED / 1e9}


def test_limits_compute_what_they_are_named_for(monkeypatch):
    monkeypatch.setitem(SIDES, 'cpu', 8)
    monkeypatch.setattr('benchmarks.harness.machine.COPIED', 16)
    cases = limit_cases('cpu', torch.bfloat16)
    cases[MATRIX_PRODUCT]()
    copied = cases[MEMORY_COPY]()
    assert copied.numel() == 16 and copied.eq(1).all()


@pytest.mark.parametrize('mode', ['inference', 'training'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_eager_forms_run(mode, dtype):
    network = Network('test_resnet', 64, 0, 0.0)
    case = prepare(network, Setting(mode, 'eager', dtype, 2), 'cpu')
    result = case.call()
    assert case.cold_start_s is None
    assert mode == 'training' or (result.dtype == DTYPES[dtype] and result.shape == (2, 1000))


def test_a_group_has_the_reference_the_limits_and_all_columns(monkeypatch, capsys):
    monkeypatch.setattr(throughput, 'REFERENCE', 'test_resnet')
    monkeypatch.setattr(throughput, 'OURS', 'test_assemble_resnet')
    monkeypatch.setattr(throughput, 'THEIRS', 'test_resnet')
    monkeypatch.setattr(throughput, 'limit_cases', lambda *_: {MATRIX_PRODUCT: int, MEMORY_COPY: int})

    def measure(cases):
        for case in cases.values():
            case()
        return {name: [0.5, 0.5] for name in cases}
    networks = [Network('test_assemble_resnet', 64, 10, 2e9)]
    rows = throughput.group_rows(networks, EAGER, '', 'cpu', measure)
    assert [(row['group'] == EAGER.title, row['name']) for row in rows] == [
        (True, 'test_resnet'), (True, 'test_assemble_resnet'), (True, MATRIX_PRODUCT), (True, MEMORY_COPY),
        (False, 'test_resnet'), (False, 'test_assemble_resnet')]
    assert rows[1]['details'] == {
        'size': 64, 'params (M)': 1e-5, 'GMACs': 2.0, 'images/s': 8.0, 'GMAC/s': 16.0,
        'share of limit': 8e9 / SIDES['cpu'] ** 3}
    assert rows[1]['comparison']['reference'] == 'test_resnet' and rows[1]['comparison']['of'] == 'speed'
    assert rows[5]['comparison']['reference'] == 'test_resnet' and rows[5]['details']['aim'] == 3.0
    trained = throughput.group_rows(networks, EAGER._replace(mode='training'), '', 'cpu', measure)
    assert len(trained) == 4 and trained[1]['details']['share of limit'] == 3 * rows[1]['details']['share of limit']
    check_results(dict(schema_version=1, question='', command='', environment=environment('cpu', ''), rows=rows))


def test_the_optimized_form_is_that_of_the_package_and_its_start_is_timed(monkeypatch):
    asked = []

    def optimize(model, example_size, dtype):
        asked.append((model.training, example_size, dtype))
        return lambda x: asked.append(tuple(x.shape))
    monkeypatch.setattr('timm_assemble.optimize_for_inference', optimize)
    case = prepare(Network('test_resnet', 64, 0, 0.0), EAGER._replace(form='optimized', dtype='bfloat16'), 'cpu')
    assert asked == [(False, (4, 3, 64, 64), torch.bfloat16), (4, 3, 64, 64)]
    assert case.cold_start_s > 0


def test_networks_are_compiled_as_if_each_were_alone():
    with torch._dynamo.config.patch(automatic_dynamic_shapes=True, cache_size_limit=8):
        compile_apart()
        assert not torch._dynamo.config.automatic_dynamic_shapes
        assert torch._dynamo.config.cache_size_limit >= 2 * len(SIZES)
    assert torch._dynamo.config.automatic_dynamic_shapes


def test_groups_measured_survive_a_run_that_is_ended(monkeypatch, tmp_path, capsys):
    path = tmp_path / 'x.json'
    monkeypatch.setattr(sys, 'argv', [
        'throughput', '--models', REFERENCE, '--modes', 'inference', '--forms', 'eager', '--output', str(path)])
    monkeypatch.setattr(throughput, 'compile_apart', lambda: None)
    results = made_up_results()

    def group_rows(networks, setting, *_):
        assert networks == []
        if setting.dtype == 'bfloat16' and not finished:
            raise KeyboardInterrupt
        return results['rows']
    monkeypatch.setattr(throughput, 'group_rows', group_rows)
    finished = False
    with pytest.raises(KeyboardInterrupt):
        throughput.main()
    assert [p.name for p in tmp_path.iterdir()] == ['x.part']
    assert json.loads((tmp_path / 'x.part').read_text())['rows'] == results['rows']
    finished = True
    assert throughput.main() == 0
    assert [p.name for p in tmp_path.iterdir()] == ['x.json']
    assert json.loads(path.read_text())['rows'] == 2 * results['rows']


def test_large_networks_are_apart():
    small, large = (Network(name, 224, 0, macs) for name, macs in (('a', 9e9), ('b', 1e10)))
    assert throughput.split([large, small]) == {'': [small], f', {throughput.LARGE}': [large]}
    assert throughput.split([small]) == {'': [small]} and throughput.split([]) == {}


@pytest.mark.parametrize('name', SIZES)
def test_every_network_has_published_figures_with_their_source_or_none_exist(name):
    entries = published(name)
    assert timm.is_model(name)
    assert bool(entries) == (name not in ('skresnet50d', 'assemble_resnet101'))
    for entry in entries:
        assert entry.source and 70 < entry.top1 < 90
        assert name in OURS or timm.get_pretrained_cfg(f'{name}.{entry.weights}') is not None
    for before, after in itertools.pairwise(entries):
        assert bool(before.extra_data) < bool(after.extra_data) or before.top1 > after.top1
    details = throughput.published_details(name)
    assert details.get('top-1 (%)', '') == next((e.top1 for e in entries if not e.extra_data), '')


def test_ours_are_published_as_rows_of_the_paper():
    assert published('assemble_resnet50')[0][:2] == (82.78, 'row E11')
    assert published('no_such_network') == ()


def test_speeds_are_read_once_a_network_and_setting():
    other = EAGER._replace(batch_size=8)
    speeds = speed.read_speeds(made_up_results([EAGER, other]))
    assert [s.name for s in speeds] == list(SIZES) and {s.setting for s in speeds} == {EAGER}
    assert speeds[3].ratio == pytest.approx(1 / 4) and speeds[0].ratio == 1


def test_readme_block_says_what_loses(tmp_path):
    path = tmp_path / 'throughput.json'
    results = made_up_results([EAGER, EAGER._replace(form='optimized')])
    path.write_text(json.dumps(results))
    block = speed.speed_block(path)
    lines = block.splitlines()
    # resnet50d is the second of the made-up networks, assemble_resnet50_d the sixth: three times as fast, and better
    start = ('- than `assemble_resnet50_d` (79.10): `resnet50` (80.85, 6.00 times as fast), '
             '`resnet50d` (80.96, 3.00 times as fast), ')
    assert any(line.startswith(start) for line in lines)
    assert any(line.startswith('- than `assemble_resnet152` (84.19): none; with extra data: none') for line in lines)
    assert 'is so many times as fast as `tf_efficientnet_b6`: 4.00 (4.00 to 4.00) in eager float32; ' in block
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line.startswith('| ')]
    assert cells[0] == ['network', 'at', 'GMACs', 'top-1 (%)', 'eager, float32', 'optimized, float32']
    assert ['**`assemble_resnet50`**', '256', '8.00', '82.78', '5 (0.12)', '5 (0.12)'] in cells
    assert ['`convnext_tiny`', '224', '16.00', '82.07; 84.19 with ImageNet-12k', '2.5 (0.06)', '2.5 (0.06)'] in cells
    assert '`skresnet50d`' not in block and f'({speed.PLOT})' in block
    results['rows'] = [{**row, 'group': 'other'} for row in results['rows']]
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r'throughput\.json: .* --modes inference'):
        speed.speed_block(path)


def _overlaps(boxes):
    return [(a, b) for (a, one), (b, two) in itertools.combinations(boxes, 2) if one.overlaps(two)]


@pytest.mark.parametrize('settings', [
    [EAGER], [EAGER._replace(form=form, dtype=dtype) for form in ('eager', 'optimized') for dtype in DTYPES][:4]])
def test_plot_has_a_panel_a_form_and_names_that_do_not_overlap(settings, tmp_path):
    path = tmp_path / 'plot.png'
    results = made_up_results(settings)
    figure = plot.draw(results, path)
    with Image.open(path) as picture:
        assert picture.size[0] > 600 and len(picture.convert('L').getcolors()) > 50
        assert picture.info['Description'] == plot.description(results)
    assert len(figure.axes) == len(settings)
    for axes in figure.axes:
        texts = [text for text in axes.texts if text.get_text()]
        assert {text.get_text() for text in texts} == {*SIZES} - {'skresnet50d', 'assemble_resnet101'}
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
        assert not _overlaps(boxes)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(plot.KINDS)
    ours = figure.axes[0].collections[0]
    assert len(ours.get_offsets()) == len([name for name in OURS if published(name)])


def test_plot_of_nothing_is_one_line_and_status_2(tmp_path, capsys):
    results = made_up_results()
    results['rows'] = [{**row, 'group': 'other'} for row in copy.deepcopy(results['rows'])
                       if row['name'] != 'assemble_resnet152' or row['comparison']['reference'] == REFERENCE]
    path = tmp_path / 'throughput.json'
    for content, message in ((json.dumps(results), 'nothing to draw'), ('{', 'Expecting'), (None, 'No such file')):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        assert plot.main(['--results', str(path)]) == 2
        err = capsys.readouterr().err
        assert err.count('\n') == 1 and message in err


def test_committed_plot_and_front_page_are_of_the_committed_results():
    with Image.open(COMMITTED.with_suffix('.png')) as picture:
        assert picture.info['Description'] == plot.description(json.loads(COMMITTED.read_text())), (
            'run `python -m benchmarks.reports.plot`')
    text = speed.README.read_text()
    assert rewrite_block(text, speed.BEGIN, speed.END, speed.speed_block(COMMITTED)) == text, (
        'run `python -m benchmarks.reports.report`')
