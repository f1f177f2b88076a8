"""Launching timm's scripts: what goes to them, and that they run as Python would run them."""
import os
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from timm_assemble import __main__
from timm_assemble.cli import run, train
from timm_assemble.recipes import recipe_path
from timm_assemble.timm_scripts.bind import NEEDED
from timm_assemble.timm_scripts.launch import HOOK, argument_names, check_names, run_script, train_arguments

NAME = 'e00_resnet50'
FILE = str(recipe_path(NAME))
# a train.py in miniature: it has the names, and says what it was given
TRAIN = f"""
import os, sys
{' = '.join(NEEDED)} = None
def arguments(parser):
    parser.add_argument('data', nargs='?')
    parser.add_argument('-b', '--batch-size', '--bs')
    parser.add_argument('--learning-rate', dest='lr')
if __name__ == '__main__':
    print('arguments', *sys.argv[1:])
"""
# what a script sees of its surroundings, in itself and in workers by fork and by spawn
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
SCRIPTS_OF_THE_USER = os.environ.get('TIMM_SCRIPTS', '')
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}


@pytest.fixture(autouse=True)
def no_scripts(monkeypatch, tmp_path):
    """A machine where nothing is at hand and git reaches nothing."""
    monkeypatch.delenv('TIMM_SCRIPTS', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('GIT_ALLOW_PROTOCOL', 'file')


@pytest.fixture
def script(tmp_path):
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    return path


def main(capsys, *arguments):
    """Exit status, standard output and what an error says."""
    status = __main__.main([*map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


# what belongs to whom

@pytest.mark.parametrize('argv, own, rest', [
    (['-c', 'x', '--epochs', '1'], [], ['-c', 'x', '--epochs', '1']),
    (['--epochs', '1', '--script', 'f', '-c', 'x'], ['--script', 'f'], ['--epochs', '1', '-c', 'x']),
    (['--script=f', '--scale', '0.1', '--', '-1', 'a b'], ['--script=f'], ['--scale', '0.1', '--', '-1', 'a b']),
    (['-j0', '--help'], ['--help'], ['-j0']),
    (['--script-help'], ['--script-help'], []),
    (['--script'], ['--script'], []),
    ([], [], []),
])
def test_train_takes_its_own_arguments_and_no_other(argv, own, rest):
    assert train.split_arguments(argv) == (own, rest)


@pytest.mark.parametrize('argv, own, rest', [
    (['validate.py', '--help', '--script', 'x'], ['validate.py'], ['--help', '--script', 'x']),
    (['--script', 'f', '--model', 'x'], ['--script', 'f'], ['--model', 'x']),
    (['--help'], ['--help'], []),
    ([], [], []),
])
def test_run_takes_the_script_and_nothing_after_it(argv, own, rest):
    assert run.split_arguments(argv) == (own, rest)


@pytest.mark.parametrize('arguments', [
    ['-c', NAME, '--epochs', '1'], ['--epochs', '1', '-c', NAME], ['--epochs', '1', f'-c{NAME}'],
    ['--config', f'{NAME}.yaml', '--epochs', '1'], ['--epochs', '1', f'--config={NAME}'], ['-c', FILE, '--epochs', '1'],
    ['-c', 'other', '--epochs', '1', '--conf', NAME],
])
def test_recipe_becomes_its_file(arguments):
    assert train_arguments(arguments) == ['--config', FILE, '--epochs', '1']  # the recipe has the hook


def test_a_file_wins_over_a_recipe(tmp_path, monkeypatch):
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
def test_hook_is_added_to_the_modules_of_the_user(tmp_path, config, arguments, modules):
    (tmp_path / 'mine.yaml').write_text(config)
    added = ['--device-modules', *modules] if modules else []
    given = ['--config', str(tmp_path / 'mine.yaml'), *arguments]
    assert train_arguments(given) == given + added


def test_no_configuration():
    assert train_arguments(['data', '--lr', '1']) == ['data', '--lr', '1', '--device-modules', HOOK]


def test_arguments_are_read_from_source(script, tmp_path):
    assert argument_names(script) == ['data', 'batch_size', 'lr']
    (tmp_path / 'computed.py').write_text("for n in 'ab':\n    parser.add_argument('--' + n)\n")
    assert argument_names(tmp_path / 'computed.py') is None
    (tmp_path / 'elsewhere.py').write_text("from arguments import parser\n")
    assert argument_names(tmp_path / 'elsewhere.py') is None


def test_names_that_the_hook_needs(script, tmp_path):
    check_names(script, NEEDED)
    other = tmp_path / 'other.py'
    other.write_text('try:\n    from a import b as Mixup\nexcept ImportError:\n    class Other: parser = 1\n'
                     'def f():\n    create_model = 1\nprint(create_loader)\n')
    with pytest.raises(ValueError, match=r'other.py lacks parser, create_model, create_loader, which the hook binds; '
                                         r'train.py of timm 1.0.25 and newer has them'):
        check_names(other, ('Mixup', 'Other', 'f', 'parser', 'create_model', 'create_loader'))
    other.write_text('no python')
    with pytest.raises(ValueError, match=r'other.py must be a Python script: invalid syntax'):
        check_names(other, ())


# running them

@pytest.mark.parametrize('arguments', [['-c', NAME, '--epochs', '1'], ['--epochs', '1', '-c', NAME]])
def test_train_hands_everything_on(capsys, script, arguments):
    script.write_text(TRAIN.replace("'-b', '--batch-size', '--bs'", "'--' + 'x'"))  # its keys cannot be told
    status, out, err = main(capsys, 'train', '--script', script, *arguments, '--help-me', '-1')
    assert status == 0 and out == f'arguments --config {FILE} --epochs 1 --help-me -1\n'
    assert err == f'timm-assemble: running {script}\n'


def test_train_shows_both_helps(capsys, script):
    with pytest.raises(SystemExit) as e:
        main(capsys, 'train', '--lr', '1', '--help')
    assert e.value.code == 0 and '--script-help' in capsys.readouterr().out
    status, out, _ = main(capsys, 'train', '--script', script, '--script-help')
    assert status == 0 and out == 'arguments --help\n'


def test_run_hands_everything_on(capsys, script, tmp_path, monkeypatch):
    monkeypatch.setenv('TIMM_SCRIPTS', str(tmp_path))
    shutil.copy(script, tmp_path / 'validate.py')
    for name in ('validate', 'validate.py'):
        status, out, _ = main(capsys, 'run', name, '--model', 'test_assemble_resnet', '--script', 'x', '--help')
        assert status == 0 and out == 'arguments --model test_assemble_resnet --script x --help\n'


ALLOWED = 'SCRIPT must be one of validate, benchmark, inference, onnx_export, avg_checkpoints'


@pytest.mark.parametrize('arguments, message', [
    (['train', '-c', 'asemble_resnet50'], "--config must be a file or a recipe: no recipe has the name "
                                          "'asemble_resnet50'; did you mean assemble_resnet50, "),
    (['train', '-c'], 'argument -c/--config: expected one argument'),
    (['train', '-c', 'list.yaml'], 'configuration list.yaml must be a mapping'),
    (['train', '-c', 'string.yaml'], "device_modules must be a list of modules, got 'a'"),
    (['train', '--script', 'train.py', '-c', 'typo.yaml'],
     "typo.yaml: 'learning_rate' is no argument of the script; did you mean 'lr'?"),
    (['train', '--script', 'list.yaml'], 'list.yaml lacks _parse_args, parser, '),
    (['train', '--script', 'nowhere.py'], '--script must be a file, got nowhere.py'),
    (['run'], f'{ALLOWED}, got none'),
    (['run', 'dream.py'], f'{ALLOWED}, got dream.py'),
    (['run', 'train.py'], 'train.py is run by `timm-assemble train`'),
    (['recipes', 'assemble'], "no recipe has the name 'assemble'; "),
    (['recipes', '--path'], '--path needs the NAME of a recipe'),
])
def test_bad_use_is_one_line(capsys, script, monkeypatch, arguments, message):
    monkeypatch.chdir(script.parent)
    Path('list.yaml').write_text('[a]')
    Path('string.yaml').write_text('device_modules: a')
    Path('typo.yaml').write_text('batch_size: 1\nlearning_rate: 1')
    status, out, err = main(capsys, *arguments)
    assert status == 2 and not out
    assert err.startswith(f'timm-assemble: {message}') or f'/{message}' in err
    assert err.count('\n') == 1


def test_no_network_is_one_line():
    done = subprocess.run([sys.executable, '-m', 'timm_assemble', 'train', '-c', NAME], capture_output=True, text=True,
                          timeout=120, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    told, error = done.stderr.splitlines()
    assert done.returncode == 2 and told.startswith("timm-assemble: cloning timm's scripts from https://")
    assert f'train.py of timm {timm.__version__} is not at hand (could not be cloned: fatal: ' in error


def test_recipes_are_listed_and_printed(capsys):
    status, out, _ = main(capsys, 'recipes')
    lines = out.splitlines()
    assert status == 0 and lines[0].split() == ['name', 'row', 'model', 'epochs', 'top-1', 'mCE'] and len(lines) == 15
    assert lines[12].split() == ['assemble_resnet50', 'E11', 'assemble_resnet50', '600', '82.78', '48.89']
    assert main(capsys, 'recipes', NAME)[1] == Path(FILE).read_text()
    assert main(capsys, 'recipes', NAME, '--path')[1] == f'{FILE}\n'


def test_errors_of_the_script_are_its_own(capsys, script):
    argv, path = sys.argv, list(sys.path)
    for body, status, told in (
            ('raise SystemExit(3)', 3, ''), ('import sys; sys.exit()', None, ''),
            ('open("/nowhere")', 1, 'FileNotFoundError'), ('import timm.nowhere', 1, 'ModuleNotFoundError'),
            ('def f(): raise ValueError("deep")\nf()', 1, 'ValueError: deep')):
        script.write_text(body)
        with pytest.raises(SystemExit) as e:
            run_script(script, [])
        running, _, err = capsys.readouterr().err.partition('\n')
        assert running == f'timm-assemble: running {script}'
        assert e.value.code == status and told in err
        assert bool(told) == err.startswith(f'Traceback (most recent call last):\n  File "{script}", line ')
    assert sys.argv is argv and sys.path == path


def test_errors_of_this_package_are_one_line(capsys, script):
    script.write_text("import timm\ntimm.create_model('test_assemble_resnet', aa_size=9)")
    status, _, err = main(capsys, 'run', '--script', script)
    assert status == 2 and err.splitlines()[1:] == ['timm-assemble: aa_size must be 0 or from 2 to 7, got 9.']


def test_as_python_runs_it(tmp_path):
    """Its own arguments, exit status and workers, and the installed timm in the place of the one that lies beside."""
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / '__init__.py').write_text('raise ImportError("not this one")\n')
    (tmp_path / 'beside.py').write_text('VALUE = 5\n')
    script = tmp_path / 'loader.py'
    script.write_text(LOADER)
    done = subprocess.run(
        [sys.executable, '-m', 'timm_assemble', 'run', '--script', script, 'a b', '--help'],
        capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    seen = f'{timm.__file__} 5'
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == [f'in {script} {script} a b --help', f'fork {seen}', f'spawn {seen}']


def test_under_torchrun(tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(RANK.replace('import os, sys', 'import os, sys, torch'))
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-addr', '127.0.0.1',
         '--master-port', str(port), '-m', 'timm_assemble', 'train', '--script', script, '--lr', '1'],
        capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = sorted(done.stdout.splitlines())
    assert lines == [f'arguments --lr 1 --device-modules {HOOK}'] * 2 + ['rank 0 of 2, sum 3', 'rank 1 of 2, sum 3']


with_scripts = pytest.mark.skipif(not SCRIPTS_OF_THE_USER, reason="needs timm's scripts: set TIMM_SCRIPTS")


@with_scripts
def test_arguments_of_the_real_train_py():
    path = Path(SCRIPTS_OF_THE_USER) / 'train.py'
    check_names(path, NEEDED)
    made = runpy.run_path(str(path), run_name='train')
    dests = {a.dest for parser in (made['parser'], made['config_parser']) for a in parser._actions} - {'help'}
    names = argument_names(path)
    assert names is not None and set(names) == dests


@with_scripts
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')  # timm leaves pictures' files open
def test_validate(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('TIMM_SCRIPTS', SCRIPTS_OF_THE_USER)
    for c in 'ab':
        (tmp_path / 'data' / c).mkdir(parents=True)
        Image.new('RGB', (64, 64), (200, 10, 10) if c == 'a' else (10, 10, 200)).save(tmp_path / 'data' / c / '0.png')
    model = timm.create_model('test_assemble_resnet', num_classes=2)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'last.pth.tar')
    status, out, _ = main(
        capsys, 'run', 'validate.py', '--model', 'test_assemble_resnet', '--checkpoint', tmp_path / 'last.pth.tar',
        '--num-classes', '2', '--data-dir', tmp_path / 'data', '--device', 'cpu', '-b', '2', '-j', '0')
    assert status == 0 and '"model": "test_assemble_resnet"' in out and '"img_size": 160' in out
