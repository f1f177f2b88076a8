"""Launching timm's scripts: the arguments they get, and that they run as Python would run them."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from timm_assemble import __main__
from timm_assemble.cli import run, train
from timm_assemble.recipes import recipe_path
from timm_assemble.timm_scripts import HOOK
from timm_assemble.timm_scripts.bind import NEEDED
from timm_assemble.timm_scripts.launch import run_script, train_arguments

pytestmark = pytest.mark.usefixtures('no_scripts')
NAME = 'e00_resnet50'
FILE = str(recipe_path(NAME))
# a train.py in miniature: it has the names, imports the hook and prints its arguments
TRAIN = f"""
import argparse, sys
{' = '.join(NEEDED)} = None
config_parser, parser = argparse.ArgumentParser(), argparse.ArgumentParser()
config_parser.add_argument('--config')
for name, default in dict(
        model='test_assemble_resnet', model_kwargs=dict(), dataset='', data=None, data_dir='.', drop_block=None,
        kd_model_name=None, device=None).items():
    parser.add_argument('--' + name.replace('_', '-'), default=default)
parser.add_argument('--device-modules', nargs='+')
def _parse_args():
    return parser.parse_known_args()[0], ''
if __name__ == '__main__':
    if {HOOK!r} in sys.argv:
        import {HOOK}
    print('arguments', *sys.argv[1:])
"""
# a script that prints which modules it finds, itself and in forked and spawned workers
LOADER = """
import sys
import torch, beside
class Data(torch.utils.data.Dataset):
    def __len__(self): return 1
    def __getitem__(self, i):
        from importlib.util import find_spec
        return f'{find_spec("timm").origin} {beside.VALUE}'
if __name__ == '__main__':
    print('in', __file__, *sys.argv, flush=True)
    for method in 'fork', 'spawn':
        loader = torch.utils.data.DataLoader(Data(), num_workers=1, multiprocessing_context=method)
        print(method, *next(iter(loader)), flush=True)
    sys.exit(7)
"""
RANK = TRAIN + """
    import torch.distributed as dist
    dist.init_process_group('gloo')
    total = torch.full((1,), float(dist.get_rank() + 1))
    dist.all_reduce(total)
    sys.stdout.write(f'rank {dist.get_rank()} of {dist.get_world_size()}, sum {total.item():g}\\n')
    dist.destroy_process_group()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    return path


def main(capsys, *arguments):
    """Return the exit status, standard output and standard error."""
    status = __main__.main([*map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def call(*args):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run([sys.executable, '-m', *args], capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.parametrize('argv, own, rest', [
    (['-c', 'x', '--epochs', '1'], [], ['-c', 'x', '--epochs', '1']),
    (['--epochs', '1', '--script', 'f', '-c', 'x'], ['--script', 'f'], ['--epochs', '1', '-c', 'x']),
    (['--script=f', '--scale', '0.1', '--', '-1', 'a b'], ['--script=f'], ['--scale', '0.1', '--', '-1', 'a b']),
    (['-j0', '--help'], ['--help'], ['-j0']),
    (['--script-help', '--script'], ['--script-help', '--script'], []),
])
def test_train_splits_off_its_own_arguments(argv, own, rest):
    assert train.split_arguments(argv) == (own, rest)


@pytest.mark.parametrize('argv, own, rest', [
    (['validate.py', '--help', '--script', 'x'], ['validate.py'], ['--help', '--script', 'x']),
    (['--script', 'f', '--model', 'x'], ['--script', 'f'], ['--model', 'x']),
    (['--help'], ['--help'], []),
])
def test_run_splits_off_the_script(argv, own, rest):
    assert run.split_arguments(argv) == (own, rest)


@pytest.mark.parametrize('arguments', [
    ['-c', NAME, '--epochs', '1'], ['--epochs', '1', '-c', NAME], ['--epochs', '1', f'-c{NAME}'],
    ['--config', f'{NAME}.yaml', '--epochs', '1'], ['--epochs', '1', f'--config={NAME}'], ['-c', FILE, '--epochs', '1'],
    ['-c', 'other', '--epochs', '1', '--conf', NAME],
])
def test_recipe_is_replaced_by_its_file(arguments):
    assert train_arguments(arguments) == ['--config', FILE, '--epochs', '1']  # the recipe has the hook


def test_a_file_comes_before_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_text('lr: 1.0\n')
    assert train_arguments(['-c', NAME]) == ['--config', NAME, '--device-modules', HOOK]


@pytest.mark.parametrize('config, arguments, modules', [
    ('lr: 1', [], [HOOK]),
    ('device_modules: [a, b]', [], ['a', 'b', HOOK]),
    ('device_modules: [a, b]', ['--device-modules', 'c', 'd'], ['c', 'd', HOOK]),
    ('device_modules:', ['--device-modules', 'c', '--device-modules', 'd'], ['d', HOOK]),
    (f'device_modules: [{HOOK}, a]', [], []),
    (f'device_modules: [{HOOK}]', ['--device-modules', 'c'], ['c', HOOK]),
    ('lr: 1', ['--device-modules', HOOK, '--device', 'cpu'], []),
])
def test_hook_is_added_to_the_users_modules(tmp_path, config, arguments, modules):
    (tmp_path / 'mine.yaml').write_text(config)
    added = ['--device-modules', *modules] if modules else []
    given = ['--config', str(tmp_path / 'mine.yaml'), *arguments]
    assert train_arguments(given) == given + added
    assert train_arguments(['data', '--lr', '1']) == ['data', '--lr', '1', '--device-modules', HOOK]


def test_train_passes_its_arguments_on(capsys, script):
    status, out, err = main(capsys, 'train', '--script', script, '--epochs', '1', '-c', NAME, '--help-me', '-1')
    assert status == 0 and out == f'arguments --config {FILE} --epochs 1 --help-me -1\n'
    assert err == f'timm-assemble: running {script}\n'


def test_train_shows_both_helps(capsys, script):
    with pytest.raises(SystemExit) as e:
        main(capsys, 'train', '--lr', '1', '--help')
    assert e.value.code == 0 and '--script-help' in capsys.readouterr().out
    status, out, _ = main(capsys, 'train', '--script', script, '--script-help')
    assert status == 0 and out == 'arguments --help\n'


def test_run_passes_its_arguments_on(capsys, script, tmp_path, monkeypatch):
    monkeypatch.setenv('TIMM_SCRIPTS', str(tmp_path))
    shutil.copy(script, tmp_path / 'validate.py')
    for name in ('validate', 'validate.py'):
        status, out, _ = main(capsys, 'run', name, '--model', 'test_assemble_resnet', '--script', 'x', '--help')
        assert status == 0 and out == 'arguments --model test_assemble_resnet --script x --help\n'


ALLOWED = 'SCRIPT must be one of validate, benchmark, inference, onnx_export, avg_checkpoints'


@pytest.mark.parametrize('arguments, message', [
    (['train', '-c', 'asemble_resnet50'], "--config must be a file or a recipe, got 'asemble_resnet50'; did you mean "
                                          "assemble_resnet50, "),
    (['train', '-c'], 'argument -c/--config: expected one argument'),
    (['train', '-c', 'list.yaml'], '--config list.yaml must map argument names to values, got list'),
    (['train', '-c', 'string.yaml'], "device_modules must be a list of modules, got 'a'"),
    (['train', '--script', 'english.py'], 'script must be a Python file, got '),
    (['train', '--script', 'null.py'], 'script must be a Python file, got '),
    (['train', '--script', 'nowhere.py'], '--script must be a file, got nowhere.py'),
    (['run'], f'{ALLOWED}, got none'),
    (['run', 'dream.py'], f'{ALLOWED}, got dream.py'),
    (['run', 'train.py'], 'SCRIPT must be another script, got train.py, which `timm-assemble train` runs'),
    (['recipes', 'assemble'], "NAME must be a recipe, got 'assemble'; "),
    (['recipes', '--path'], '--path needs the NAME of a recipe'),
])
def test_bad_use_is_one_line(capsys, script, monkeypatch, arguments, message):
    monkeypatch.chdir(script.parent)
    Path('list.yaml').write_text('[a]')
    Path('string.yaml').write_text('device_modules: a')
    Path('english.py').write_text('no Python')
    Path('null.py').write_bytes(b'\0')
    status, out, err = main(capsys, *arguments)
    lines = [line for line in err.splitlines() if line != f'timm-assemble: running {script.parent / arguments[-1]}']
    assert status == 2 and not out and len(lines) == 1
    assert lines[0].startswith(f'timm-assemble: {message}'.replace(': script must', ': --script must'))


def test_hook_reports_mistakes_in_one_line(capsys, script):
    with pytest.raises(SystemExit) as e:
        main(capsys, 'train', '--script', script, '--data-dir', 'nowhere')
    assert e.value.code == 2 and capsys.readouterr().err.splitlines() == [
        f'timm-assemble: running {script}', 'timm_assemble: data_dir must exist, got nowhere']


def test_no_network_is_one_line():
    done = call('timm_assemble', 'train', '-c', NAME)
    cloning, error = done.stderr.splitlines()
    assert done.returncode == 2 and cloning.startswith("timm-assemble: cloning timm's scripts from https://")
    assert f'train.py of timm {timm.__version__} was not found (cloning failed: fatal: ' in error
    assert 'give the file with --script' in error


def test_recipes_are_listed_and_printed(capsys):
    status, out, _ = main(capsys, 'recipes')
    lines = out.splitlines()
    assert status == 0 and lines[0].split() == ['name', 'row', 'model', 'epochs', 'top-1', 'mCE'] and len(lines) == 15
    assert lines[12].split() == ['assemble_resnet50', 'E11', 'assemble_resnet50', '600', '82.78', '48.89']
    assert main(capsys, 'recipes', NAME)[1] == Path(FILE).read_text()
    assert main(capsys, 'recipes', NAME, '--path')[1] == f'{FILE}\n'


@pytest.mark.parametrize('body, status, error', [
    ('raise SystemExit(3)', 3, ''), ('import sys; sys.exit()', None, ''), ('open("/nowhere")', 1, 'FileNotFoundError'),
    ('import timm.nowhere', 1, 'ModuleNotFoundError'), ('compile("(", "x", "exec")', 1, 'SyntaxError'),
    ('def f(): raise ValueError("deep")\nf()', 1, 'ValueError: deep')])
def test_errors_of_the_script_keep_status_and_traceback(capsys, script, body, status, error):
    argv, path = sys.argv, list(sys.path)
    script.write_text(body)
    with pytest.raises(SystemExit) as e:
        run_script(script, [])
    running, _, err = capsys.readouterr().err.partition('\n')
    assert running == f'timm-assemble: running {script}' and e.value.code == status and error in err
    assert bool(error) == err.startswith(f'Traceback (most recent call last):\n  File "{script}", line ')
    assert sys.argv is argv and sys.path == path


def test_errors_of_this_package_are_one_line(capsys, script):
    script.write_text("import timm\ntimm.create_model('test_assemble_resnet', aa_size=9)")
    status, _, err = main(capsys, 'run', '--script', script)
    assert status == 2 and err.splitlines()[1:] == ['timm-assemble: aa_size must be 0 or from 2 to 7, got 9.']


def test_script_runs_as_in_python_with_the_installed_timm(tmp_path):
    """With its arguments, exit status and workers, and without the folder timm beside it."""
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / '__init__.py').write_text('raise ImportError("not this one")\n')
    (tmp_path / 'beside.py').write_text('VALUE = 5\n')
    script = tmp_path / 'loader.py'
    script.write_text(LOADER)
    done = call('timm_assemble', 'run', '--script', script, 'a b', '--help')
    found = f'{timm.__file__} 5'
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [f'in {script} {script} a b --help', f'fork {found}', f'spawn {found}']


def test_ranks_of_torchrun_meet_in_the_script(tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(RANK.replace('import argparse, sys', 'import argparse, sys, torch'))
    done = call('torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1', '--nproc-per-node', '2',
                '-m', 'timm_assemble', 'train', '--script', script, '--lr', '1')
    assert done.returncode == 0, done.stderr[-3000:]
    lines = sorted(done.stdout.splitlines())
    assert lines == [f'arguments --lr 1 --device-modules {HOOK}'] * 2 + ['rank 0 of 2, sum 3', 'rank 1 of 2, sum 3']
