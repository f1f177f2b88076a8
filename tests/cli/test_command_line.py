"""The command line in real processes: what they print, what they write, and how they fail."""
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import timm
import torch
from PIL import Image

COMMAND = [sys.executable, '-m', 'timm_assemble']
CONSOLE_SCRIPT = [os.path.join(os.path.dirname(sys.executable), 'timm-assemble')]
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


def call(*args):
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=240, env=ENVIRONMENT)


@contextmanager
def running(command, **environment):
    """A process that SIGINT reaches, also if this one ignores it, as under nohup. It ends with the block."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # unlike an ignored signal, not inherited
    try:
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**ENVIRONMENT, **environment})
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    output = tmp_path_factory.mktemp('demo')
    return output, call('demo', '--model', 'test_assemble_resnet', '--epochs', 2, '--output', output / 'a')


def test_demo_prints_progress_and_accuracy_and_draws_them(demo):
    output, done = demo
    assert done.returncode == 0, done.stderr
    assert 'equal logits on all 360 validation images' in done.stdout
    for shown in ('epoch 2/2', 'image/s', 'loss=', 'lr='):
        assert shown in done.stderr
    curves = json.loads((output / 'a' / 'curves.json').read_text())['curves']
    assert [c['epoch'] for c in curves] == [1, 2] and curves[1]['loss'] < curves[0]['loss']
    assert f"validation top-1 {curves[1]['top1']:.2f} %" in done.stdout and curves[1]['top1'] > 30
    with Image.open(output / 'a' / 'demo.png') as plot:
        assert plot.size[0] > 1000


def test_demo_writes_hugging_face_format(demo):
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
    command = [*COMMAND, 'demo', '--model', 'test_assemble_resnet', '--epochs', 50, '--output', tmp_path]
    with running(command) as process:
        assert 'epoch 1/50' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in err
    assert 'interrupted in epoch' in out
    model = timm.create_model(f'local-dir:{tmp_path / "trained"}', pretrained=True).eval()
    assert torch.isfinite(model(torch.randn(1, 3, 64, 64))).all()


@pytest.mark.parametrize('module', ['numpy', 'torch.nn', 'timm_assemble.cli.main'])
@pytest.mark.parametrize('command', [COMMAND, CONSOLE_SCRIPT], ids=['module', 'script'])
def test_interrupt_while_importing_shows_no_traceback(command, module, tmp_path):
    """Interrupted once ``module`` is imported, as the interpreter reports it."""
    with running([*command, 'demo', '--output', tmp_path], PYTHONPROFILEIMPORTTIME='1') as process:
        assert any(line.rpartition('|')[2].strip() == module for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert 'Traceback' not in err


@pytest.mark.parametrize('args, message', [
    ((), 'the following arguments are required: COMMAND'),
    (('dream',), "invalid choice: 'dream'"),
    (('demo', '--epochs', '0'), "argument --epochs: must be an integer of 1 or more, got '0'"),
    (('demo', '--seed', 'x'), "argument --seed: invalid int value: 'x'"),
    (('demo', '--model', 'resnet18'), '--model must be one of assemble_resnet50, '),
    (('demo', '--colour', 'red'), 'unrecognized arguments: --colour red'),
    (('demo', '--output', os.devnull), 'Not a directory'),
    (('push', 'model'), 'the following arguments are required: REPO'),
    (('push', 'nowhere', 'user/name', '--dry-run'), 'got nowhere'),
])
def test_bad_use_is_one_line(args, message):
    done = call(*args)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count('\n') == 1 and not done.stdout


def test_console_script_prints_help():
    done = subprocess.run([*CONSOLE_SCRIPT, '--help'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and 'demo' in done.stdout


def test_import_loads_only_this_package_and_leaves_interrupts_alone():
    script = ('import signal, sys, timm; before = set(sys.modules); import timm_assemble; '
              'print(sorted({m.split(".")[0] for m in set(sys.modules) - before}), '
              'signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.excepthook is sys.__excepthook__)')
    with running([sys.executable, '-c', script]) as process:
        assert process.communicate(timeout=60)[0].strip() == "['timm_assemble'] True True"
