"""The command line: what it prints and writes, how it fails, and how its process ends when it is interrupted."""
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from timm_assemble.__main__ import main
from timm_assemble.cli.main import _parser

COMMAND = [sys.executable, '-m', 'timm_assemble']
CONSOLE_SCRIPT = [os.path.join(os.path.dirname(sys.executable), 'timm-assemble')]


@contextmanager
def running(command, **environment):
    """A process that SIGINT reaches, also if this one ignores it, as under nohup. It ends with the block."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # unlike an ignored signal, not inherited
    try:
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, 'OMP_NUM_THREADS': '1', **environment})
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.filterwarnings('ignore::ResourceWarning')  # timm leaves files open
def test_demo_trains_alike_from_one_seed_and_writes_plot_and_hugging_face_format(tmp_path, capsys):
    (tmp_path / 'b' / 'digits' / 'validation' / '3').mkdir(parents=True)  # an interrupted run's
    demo = ['demo', '--model', 'test_assemble_resnet', '--epochs', '2', '--output']
    assert [main([*demo, str(tmp_path / name)]) for name in 'ab'] == [0, 0]
    out, err = capsys.readouterr()
    assert (tmp_path / 'a' / 'curves.json').read_text() == (tmp_path / 'b' / 'curves.json').read_text()
    curves = json.loads((tmp_path / 'a' / 'curves.json').read_text())['curves']
    assert [c['epoch'] for c in curves] == [1, 2] and curves[1]['loss'] < curves[0]['loss'] and curves[1]['top1'] > 30
    assert out.count('equal logits on all 360 validation images') == 2
    assert f"validation top-1 {curves[1]['top1']:.2f} %" in out
    assert all(shown in err for shown in ('epoch 2/2', 'image/s', 'loss=', 'lr='))
    with Image.open(tmp_path / 'a' / 'demo.png') as plot:
        assert plot.size[0] > 1000
    folder = tmp_path / 'a' / 'trained'
    assert {f.name for f in folder.iterdir()} == {'model.safetensors', 'config.json', 'README.md'}
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\n') and 'library_name: timm' in card and 'import timm_assemble' in card
    config = json.loads((folder / 'config.json').read_text())
    assert config['num_classes'] == 10 and 'num_classes' not in config.get('model_args', {})  # for transformers
    model = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert model.num_classes == 10
    assert timm.data.resolve_data_config({}, model=model)['input_size'] == (3, 64, 64)


def test_interrupt_leaves_a_readable_model(tmp_path):
    command = [*COMMAND, 'demo', '--model', 'test_assemble_resnet', '--epochs', 50, '--output', tmp_path]
    with running(command) as process:
        assert any('epoch 1/50' in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and 'Traceback' not in err
    assert 'interrupted in epoch 1' in out
    model = timm.create_model(f'local-dir:{tmp_path / "trained"}', pretrained=True).eval()
    assert torch.isfinite(model(torch.randn(1, 3, 64, 64))).all()


@pytest.mark.parametrize('args, message', [
    ('', 'the following arguments are required: COMMAND'),
    ('dream', "invalid choice: 'dream'"),
    ('demo --epochs 0', "argument --epochs: must be an integer of 1 or more, got '0'"),
    ('demo --seed x', "argument --seed: must be an integer of 0 or more, got 'x'"),
    ('demo --model resnet18', '--model must be one of assemble_mobilenet, '),
    ('demo --colour red', 'unrecognized arguments: --colour red'),
    (f'demo --output {os.devnull}', 'Not a directory'),
    ('push model', 'the following arguments are required: REPO'),
    ('push nowhere user/name --dry-run', 'got nowhere'),
    ('retrieval a --gallery= --query b', "argument --gallery: must be a path, got ''"),
    ('robustness --table=', "argument --table: must be a path, got ''"),
])
def test_bad_use_is_one_line(args, message, capsys):
    try:
        status = main(args.split())
    except SystemExit as e:
        status = e.code
    out, err = capsys.readouterr()
    assert status == 2 and message in err and err.count('\n') == 1 and not out


def test_no_option_takes_an_empty_path_for_the_current_folder():
    [commands] = [action for action in _parser()._actions if isinstance(action.choices, dict)]
    assert not [(name, action.dest) for name, command in commands.choices.items() for action in command._actions
                if action.type is Path]


def test_console_script_passes_its_arguments_and_the_exit_status_on():
    done = subprocess.run([*CONSOLE_SCRIPT, 'push', 'nowhere', 'user/name'], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'got nowhere' in done.stderr and done.stderr.count('\n') == 1 and not done.stdout


def test_import_loads_no_other_package():
    """The compiler neither; nor do the libraries of evaluations load their optional packages."""
    script = ('import sys, timm; before = set(sys.modules); import timm_assemble; '
              'print(sorted({m.split(".")[0] for m in set(sys.modules) - before}), '
              '"timm_assemble.deploy" in sys.modules); timm_assemble.optimize_for_inference; '
              'import timm_assemble.retrieval, timm_assemble.robustness; '
              'print({"torchmetrics", "matplotlib", "imagecorruptions", "cv2", "av", "jsonschema", '
              '"pytorch_metric_learning"} & set(sys.modules))')
    with running([sys.executable, '-c', script]) as process:
        assert process.communicate(timeout=60)[0].splitlines() == ["['timm_assemble'] False", 'set()']


def test_a_closed_pipe_ends_a_command_without_a_traceback():
    """As ``| head`` closes it."""
    read, write = os.pipe()
    os.close(read)
    code = ("from timm_assemble.cli import main\nmain.COMMANDS['recipes'].run = lambda args: print('x', flush=True)\n"
            "raise SystemExit(main.main(['recipes']))")
    done = subprocess.run([sys.executable, '-c', code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, '')
