"""The benchmark of throughput: options, groups, forms and limits. Networks are tiny; nothing is timed."""
import json
import subprocess
import sys

import pytest
import torch

from benchmarks import throughput
from benchmarks.harness.cli import SHORT_RESULTS, parse_args
from benchmarks.harness.machine import (
    COPIED, MATRIX_PRODUCT, MEMORY_COPY, SIDES, limit_cases, limit_details, share_of_limit,
)
from benchmarks.harness.measure import RESULTS, ROOT, check_results, environment, make_row
from benchmarks.harness.networks import (
    DTYPES, LARGE, REFERENCE, SIZES, Network, Setting, compile_separately, describe, prepare, split,
)

EAGER = Setting('inference', 'eager', 'float32', 4)


def _args(monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', ['throughput', *options])
    return parse_args('throughput', 'How?', rounds=6, options=throughput.add_options)


@pytest.mark.parametrize('options, message', [
    (['--models', 'resnet51'], "--models: must be a model of timm or of this package, or 'all', got 'resnet51'"),
    (['--modes', 'dreaming'], '--modes'), (['--forms', 'fast'], '--forms'), (['--dtypes', 'int4'], '--dtypes'),
    (['--dtypes', 'int8', '--forms', 'eager'], '--dtypes int8: needs --modes inference, --forms optimized'),
    (['--batch-sizes', '0'], '--batch-sizes: must be an integer of 1 or more'), (['--batch-sizes', 'x'], 'got \'x\''),
    (['--models'], '--models: expected at least one argument'),
    (['--dtypes', 'float16'], '--dtypes float16: training takes'),
    (['--batch-sizes', '1', '4'], '--batch-sizes 1: training takes 2 or more'),
    (['--modes', 'training', '--forms', 'optimized'], 'name them by --models'),
])
def test_bad_option_is_one_line_and_status_2(options, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['throughput', *options, '--output', str(tmp_path / 'x.json')])
    monkeypatch.setattr(throughput, 'compile_separately', lambda: None)  # it lasts as long as the process
    try:
        status = throughput.main()
    except SystemExit as e:
        status = e.code
    out, err = capsys.readouterr()
    assert status == 2 and not out and err.count('\n') == 1 and message in err and not list(tmp_path.iterdir())


def test_every_combination_of_options_is_a_group(monkeypatch):
    args = _args(monkeypatch, '--batch-sizes', '2', '8', '2')
    titles = [setting.title for setting in throughput.groups(args)]
    assert len(titles) == len(set(titles)) == 2 * 2 * 2 * 2
    assert titles[0] == 'Inference, eager, float32, batch size 2'
    assert [Setting.parse(title) for title in titles] == throughput.groups(args)
    assert Setting.parse('DropBlock, (32, 1024), training') is None


def test_int8_is_a_group_of_optimized_inference_alone(monkeypatch):
    args = _args(monkeypatch, '--dtypes', 'float32', 'int8')
    assert [setting for setting in throughput.groups(args) if setting.dtype == 'int8'] == [
        Setting('inference', 'optimized', 'int8', 4)]


def test_models_are_those_named_or_the_default_of_the_form(monkeypatch):
    compiled = EAGER._replace(form='optimized')
    args = _args(monkeypatch)
    assert throughput.chosen(args, EAGER) == tuple(SIZES)
    assert {'assemble_resnet152', 'tf_efficientnet_b6'} < {*throughput.chosen(args, compiled)} < {*SIZES}
    assert throughput.chosen(_args(monkeypatch, '--models', 'all'), compiled) == tuple(SIZES)
    assert throughput.chosen(_args(monkeypatch, '--models', 'vgg11', 'vgg11'), compiled) == ('vgg11',)
    assert len(throughput.chosen(_args(monkeypatch, '--short'), EAGER)) < len(SIZES)


def test_short_run_writes_outside_the_results(monkeypatch):
    args = _args(monkeypatch, '--short')
    assert args.short and args.rounds == 2 and args.output == SHORT_RESULTS / 'throughput.json'
    args = _args(monkeypatch)
    assert not args.short and args.rounds == 6 and args.output == RESULTS / 'throughput.json'
    assert _args(monkeypatch, '--short', '--rounds', '3').rounds == 3
    ignored = subprocess.run(['git', 'check-ignore', str(SHORT_RESULTS / 'x.json')], cwd=ROOT, capture_output=True)
    assert ignored.returncode in (0, 128)  # 128: not in a checkout


@pytest.mark.parametrize('name, mode, size, gmacs', [
    ('resnet50', 'inference', 224, 4.09), ('assemble_resnet50', 'inference', 256, 7.48),
    ('assemble_resnet50', 'training', 224, 5.73), ('tf_efficientnet_b6', 'inference', 528, 19.07),
    ('resnet18', 'inference', 288, 3.00), ('resnet18', 'training', 224, 1.82),  # not listed: the test size
])
def test_sizes_and_multiply_adds_are_the_known_ones(name, mode, size, gmacs):
    network = describe(name, mode)
    assert network.size == size and network.macs / 1e9 == pytest.approx(gmacs, abs=0.01)


def test_share_of_limit_is_a_paired_ratio_of_rates():
    side = SIDES['cpu']
    macs = side ** 3 / 2  # half of a product's, in as much time: half of the rate
    assert share_of_limit(macs, [1.0, 1.0], [1.0, 1.0], 'cpu') == 0.5
    # round by round, so that a slow minute of the machine does not count
    assert share_of_limit(macs, [1.0, 10.0, 2.0], [1.0, 10.0, 2.0], 'cpu') == 0.5
    assert limit_details(MATRIX_PRODUCT, 'cpu', 0.5) == {'size': side, 'GMAC/s': side ** 3 / 0.5e9}
    assert limit_details(MEMORY_COPY, 'cpu', 0.5) == {'GB/s': 4 * COPIED / 1e9}


def test_limits_multiply_and_copy(monkeypatch):
    monkeypatch.setitem(SIDES, 'cpu', 8)
    monkeypatch.setattr('benchmarks.harness.machine.COPIED', 16)
    cases = limit_cases('cpu', torch.bfloat16)
    cases[MATRIX_PRODUCT]()
    copied = cases[MEMORY_COPY]()
    assert copied.numel() == 16 and copied.eq(1).all()


@pytest.mark.parametrize('mode', ['inference', 'training'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_eager_forms_run_in_their_dtype(mode, dtype):
    network = Network('test_resnet', 64, 0, 0.0)
    case = prepare(network, Setting(mode, 'eager', dtype, 2), 'cpu')
    result = case.call()
    assert case.cold_start_s is None
    assert mode == 'training' or (result.dtype == DTYPES[dtype] and result.shape == (2, 1000))


def test_group_has_reference_limits_and_all_columns(monkeypatch, capsys):
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


def test_optimized_form_is_the_packages_and_its_cold_start_is_timed(monkeypatch):
    asked = []

    def optimize(model, example_size, dtype):
        asked.append((model.training, example_size, dtype))
        return lambda x: asked.append(tuple(x.shape))
    monkeypatch.setattr('timm_assemble.optimize_for_inference', optimize)
    case = prepare(Network('test_resnet', 64, 0, 0.0), EAGER._replace(form='optimized', dtype='bfloat16'), 'cpu')
    assert asked == [(False, (4, 3, 64, 64), torch.bfloat16), (4, 3, 64, 64)]
    assert case.cold_start_s > 0


def test_networks_are_compiled_separately():
    with torch._dynamo.config.patch(automatic_dynamic_shapes=True, cache_size_limit=8):
        compile_separately()
        assert not torch._dynamo.config.automatic_dynamic_shapes
        assert torch._dynamo.config.cache_size_limit >= 2 * len(SIZES)
    assert torch._dynamo.config.automatic_dynamic_shapes


def test_interrupt_keeps_finished_groups(monkeypatch, tmp_path, capsys):
    path = tmp_path / 'x.json'
    monkeypatch.setattr(sys, 'argv', [
        'throughput', '--models', REFERENCE, '--modes', 'inference', '--forms', 'eager', '--output', str(path)])
    monkeypatch.setattr(throughput, 'compile_separately', lambda: None)
    seconds = {'a': [1.0, 1.0]}
    group = [make_row('group', 'a', seconds)]

    def group_rows(networks, setting, *_):
        assert networks == []
        if setting.dtype == 'bfloat16' and not finished:
            raise KeyboardInterrupt
        return group
    monkeypatch.setattr(throughput, 'group_rows', group_rows)
    finished = False
    with pytest.raises(KeyboardInterrupt):
        throughput.main()
    assert [p.name for p in tmp_path.iterdir()] == ['x.part']
    assert json.loads((tmp_path / 'x.part').read_text())['rows'] == group
    finished = True
    assert throughput.main() == 0
    assert [p.name for p in tmp_path.iterdir()] == ['x.json']
    assert json.loads(path.read_text())['rows'] == 2 * group


def test_large_networks_form_their_own_groups():
    small, large = (Network(name, 224, 0, macs) for name, macs in (('a', 9e9), ('b', 1e10)))
    assert split([large, small]) == {'': [small], f', {LARGE}': [large]}
    assert split([small]) == {'': [small]} and split([]) == {}
