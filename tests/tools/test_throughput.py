"""The benchmark of throughput: options, groups and forms. Networks are tiny; nothing is timed."""
import json
import sys

import pytest
import torch

from benchmarks import throughput
from benchmarks.harness.cli import parse_args
from benchmarks.harness.measure import make_row
from benchmarks.harness.networks import DTYPES, LARGE, REFERENCE, SIZES, Network, Setting, describe, prepare, split

EAGER = Setting('inference', 'eager', 'float32', 4)


def _args(monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', ['throughput', *options])
    return parse_args('throughput', 'How?', rounds=6, options=throughput.add_options)


def test_every_combination_of_options_is_a_group(monkeypatch):
    args = _args(monkeypatch, '--batch-sizes', '2', '8')
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


@pytest.mark.parametrize('name, mode, size, gmacs', [
    ('resnet50', 'inference', 224, 4.09), ('assemble_resnet50', 'inference', 256, 7.48),
    ('assemble_resnet50', 'training', 224, 5.73), ('tf_efficientnet_b6', 'inference', 528, 19.07),
    ('resnet18', 'inference', 288, 3.00), ('resnet18', 'training', 224, 1.82),  # not listed: the test size
])
def test_sizes_and_multiply_adds_are_the_known_ones(name, mode, size, gmacs):
    network = describe(name, mode)
    assert network.size == size and network.macs / 1e9 == pytest.approx(gmacs, abs=0.01)


@pytest.mark.parametrize('mode', ['inference', 'training'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_eager_forms_run_in_their_dtype(mode, dtype):
    result = prepare(Network('test_resnet', 64, 0, 0.0), Setting(mode, 'eager', dtype, 2), 'cpu')()
    assert mode == 'training' or (result.dtype == DTYPES[dtype] and result.shape == (2, 1000))


def test_optimized_form_is_the_packages(monkeypatch):
    asked = []

    def optimize(model, example_size, dtype):
        asked.append((model.training, example_size, dtype))
        return lambda x: asked.append(tuple(x.shape))
    monkeypatch.setattr('timm_assemble.optimize_for_inference', optimize)
    prepare(Network('test_resnet', 64, 0, 0.0), EAGER._replace(form='optimized', dtype='bfloat16'), 'cpu')()
    assert asked == [(False, (4, 3, 64, 64), torch.bfloat16), (4, 3, 64, 64)]


def test_group_has_reference_and_pair(monkeypatch):
    monkeypatch.setattr(throughput, 'REFERENCE', 'test_resnet')
    monkeypatch.setattr(throughput, 'OURS', 'test_assemble_resnet')
    monkeypatch.setattr(throughput, 'THEIRS', 'test_resnet')

    def measure(cases):
        for case in cases.values():
            case()
        return {name: [0.5, 0.5] for name in cases}
    networks = [Network('test_assemble_resnet', 64, 10, 2e9)]
    rows = throughput.group_rows(networks, EAGER, '', 'cpu', measure)
    assert [(row['group'] == EAGER.title, row['name']) for row in rows] == [
        (True, 'test_resnet'), (True, 'test_assemble_resnet'), (False, 'test_resnet'), (False, 'test_assemble_resnet')]
    assert rows[1]['details'] == {'size': 64, 'params (M)': 1e-5, 'GMACs': 2.0, 'images/s': 8.0}
    assert rows[1]['comparison']['reference'] == 'test_resnet' and rows[1]['comparison']['of'] == 'speed'
    assert rows[3]['comparison']['reference'] == 'test_resnet' and ' beside ' in rows[3]['group']
    assert len(throughput.group_rows(networks, EAGER._replace(mode='training'), '', 'cpu', measure)) == 2


def test_interrupt_keeps_finished_groups(monkeypatch, tmp_path):
    path = tmp_path / 'x.json'
    monkeypatch.setattr(sys, 'argv', [
        'throughput', '--models', REFERENCE, '--modes', 'inference', '--forms', 'eager', '--output', str(path)])
    group = [make_row('group', 'a', {'a': [1.0, 1.0]})]

    def group_rows(networks, setting, *_):
        assert networks == []
        if setting.dtype == 'bfloat16' and not finished:
            raise KeyboardInterrupt
        return group
    monkeypatch.setattr(throughput, 'group_rows', group_rows)
    finished = False
    with torch._dynamo.config.patch(automatic_dynamic_shapes=True, cache_size_limit=8):  # set back after main
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
