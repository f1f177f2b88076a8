"""What a recipe takes: measured inputs, the estimate by hand, and the command."""
import json
from pathlib import Path

import pytest
import timm
import torch

from benchmarks.training_step import saved_bytes
from timm_assemble.__main__ import main
from timm_assemble.recipes.budget import BYTES_PER_VIEW, SPEEDS, estimate, estimates
from timm_assemble.training import ViewInfo

RESULTS = Path(__file__).parents[2] / 'benchmarks' / 'results' / 'throughput_cuda.json'


def test_speeds_are_the_measured_ones():
    rows = {row['name']: row['details'] for row in json.loads(RESULTS.read_text())['rows']
            if row['group'].startswith('Inference, eager, float32, batch size 128')}
    for model, speed in SPEEDS.items():
        measured = rows[model]
        with torch.device('meta'):
            parameters = sum(p.numel() for p in timm.create_model(model).parameters()) / 1e6
        assert (speed.size, speed.images_per_s, speed.parameters) == (
            measured['size'], round(measured['images/s']), pytest.approx(parameters, abs=0.01))
    model = timm.create_model('assemble_resnet50').train()
    x = torch.zeros(2, 3, 224, 224)
    saved = saved_bytes(lambda: model(x).sum(), [*model.parameters(), *model.buffers()])
    assert saved / 2e6 == pytest.approx(SPEEDS['assemble_resnet50'].megabytes, rel=0.01)


def test_estimate_is_that_by_hand():
    """A third of the epochs at each size; float32 weights, gradient, momentum and average; half of the activations."""
    found, speed = estimate('one_gpu_16', 'assemble_resnet50_d'), SPEEDS['assemble_resnet50_d']
    steps = [3 * (size / 224) ** 2 / speed.images_per_s for size in (128, 160, 192)]
    assert found.gpu_hours == pytest.approx(16 * 1_281_167 * sum(steps) / 3 / 3600)
    assert found.images_per_s == pytest.approx(3 / sum(steps))
    activations = 256 * speed.megabytes / 2 * (192 / 224) ** 2
    assert found.memory_gb == pytest.approx((4 * 4 * speed.parameters + activations) / 1000)
    assert found.store_gb == pytest.approx(16 * 50 * 1_281_167 / 1e9)
    assert BYTES_PER_VIEW == ViewInfo({}, {}, dict(count=1), 1000, 10).arrays()['view-0000'][1].itemsize
    assert estimate('fixres').images_per_s == pytest.approx(SPEEDS['assemble_resnet50'].images_per_s)


def test_a_given_network_has_its_own_rows_and_todays_recipes():
    names = {e.recipe.name: e.published() for e in estimates(1e6, 'assemble_resnet50_d')}
    assert {*names} == {'e01_resnet50_d', 'e02_resnet50_d_smoothing', 'e03_resnet50_d_mixup', 'a1', 'a2', 'a3', 'ra4',
                        'one_gpu_16', 'one_gpu_100'}
    assert names['e01_resnet50_d'] == '77.37 (this network)' and names['a2'] == '80.27 (ResNet-50-D, A2)'
    assert 'e06_resnet50_d_sk' not in {e.recipe.name for e in estimates(1e6)}  # its speed was not measured


def test_command_lists_what_the_budget_allows(capsys):
    assert main(['recipes', '--gpu-hours', '9', '--gpus', '2']) == 0
    head, *lines = capsys.readouterr().out.split('\n\n')[0].splitlines()
    assert head.split()[:6] == ['name', 'model', 'epochs', 'images/s', 'GPU-hours', 'hours']
    assert lines[0].split()[:6] == ['a3', 'assemble_resnet50', '100', '8131', '8.8', '4.4']
    hours = [float(line.split()[4]) for line in lines]
    assert max(hours) <= 9 and 'one_gpu_16' in {line.split()[0] for line in lines}


@pytest.mark.parametrize('args, message', [
    (('--gpu-hours', '0.001'), '--gpu-hours must be enough for one recipe, got 0.001'),
    (('--gpu-hours', '9', 'a1'), "NAME must be left out with --gpu-hours, got 'a1'"),
    (('--gpus', '2'), '--gpus needs --gpu-hours'), (('--model', 'assemble_resnet50'), '--model needs --gpu-hours'),
    (('--gpu-hours', '9', '--model', 'resnet50'), '--model must be one whose speed was measured, ')])
def test_wrong_budgets_are_one_line(capsys, args, message):
    assert main(['recipes', *args]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f'timm-assemble: {message}') and err.count('\n') == 1
