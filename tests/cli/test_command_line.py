"""The command line as a person meets it: real processes, what they print, what they leave, and how they fail."""
import json
import os
import signal
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image

COMMAND = [sys.executable, '-m', 'timm_assemble']
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


def call(*args):
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=240, env=ENVIRONMENT)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp('demo')
    return output, call('demo', '--model', 'test_assemble_resnet', '--epochs', 2, '--output', output / 'a')


def test_demo(demo):
    output, done = demo
    assert done.returncode == 0, done.stderr
    assert 'equal logits on all 360 validation pictures' in done.stdout
    for shown in ('epoch 2/2', 'image/s', 'loss=', 'lr='):
        assert shown in done.stderr
    curves = json.loads((output / 'a' / 'curves.json').read_text())['curves']
    assert [c['epoch'] for c in curves] == [1, 2] and curves[1]['loss'] < curves[0]['loss']
    assert f"validation top-1 {curves[1]['top1']:.2f} %" in done.stdout and curves[1]['top1'] > 30
    with Image.open(output / 'a' / 'demo.png') as picture:
        assert picture.size[0] > 1000


def test_demo_writes_the_hubs_form(demo):
    folder = demo[0] / 'a' / 'trained'
    assert {f.name for f in folder.iterdir()} == {'model.safetensors', 'config.json', 'README.md'}
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\n') and 'library_name: timm' in card and 'import timm_assemble' in card
    model = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert model.num_classes == 10
    assert timm.data.resolve_data_config({}, model=model)['input_size'] == (3, 64, 64)


def test_same_seed_same_numbers(demo):
    output = demo[0]
    assert call('demo', '--model', 'test_assemble_resnet', '--epochs', 2, '--output', output / 'b').returncode == 0
    assert (output / 'a' / 'curves.json').read_text() == (output / 'b' / 'curves.json').read_text()


def test_interrupt_leaves_a_readable_model(tmp_path):
    process = subprocess.Popen(
        [*COMMAND, 'demo', '--model', 'test_assemble_resnet', '--epochs', '50', '--output', str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    first = process.stdout.readline()  # an epoch is over, the next has begun
    assert 'epoch 1/50' in first
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in err
    assert 'interrupted in epoch' in out
    model = timm.create_model(f'local-dir:{tmp_path / "trained"}', pretrained=True).eval()
    assert torch.isfinite(model(torch.randn(1, 3, 64, 64))).all()


@pytest.mark.parametrize('args, message', [
    ((), 'the following arguments are required: COMMAND'),
    (('dream',), "invalid choice: 'dream'"),
    (('demo', '--epochs', '0'), "argument --epochs: must be an integer of 1 or more, got '0'"),
    (('demo', '--epochs', 'x'), "argument --epochs: must be an integer of 1 or more, got 'x'"),
    (('demo', '--seed', 'x'), "argument --seed: invalid int value: 'x'"),
    (('demo', '--model', 'resnet5000'), "--model must be a model name that timm knows, got 'resnet5000'"),
    (('demo', '--colour', 'red'), 'unrecognized arguments: --colour red'),
    (('demo', '--output', os.devnull), 'Not a directory'),
    (('push', 'model'), 'the following arguments are required: REPO'),
    (('push', 'nowhere', 'user/name', '--dry-run'), 'FOLDER_OR_CHECKPOINT must exist, got nowhere'),
    (('push', '.', 'name'), "REPO must be 'user/name', got 'name'"),
])
def test_bad_use_is_one_line(args, message):
    done = call(*args)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count('\n') == 1 and not done.stdout


def test_console_script():
    script = os.path.join(os.path.dirname(sys.executable), 'timm-assemble')
    done = subprocess.run([script, '--help'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'demo' in done.stdout


def test_import_brings_nothing_heavy():
    """Importing costs what timm costs: nothing is loaded beyond it but this package."""
    script = ('import sys, timm; before = set(sys.modules); import timm_assemble; '
              'print(sorted({m.split(".")[0] for m in set(sys.modules) - before}))')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['timm_assemble']"
