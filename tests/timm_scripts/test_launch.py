"""Launching timm's scripts: the arguments they get, and that they run as Python would run them."""
import shutil
import sys
from pathlib import Path

import pytest
import timm

from timm_assemble import __main__
from timm_assemble.recipes import recipe_names, recipe_path
from timm_assemble.timm_scripts import HOOK
from timm_assemble.timm_scripts.bind import NEEDED

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
        kd_model_name=None, device=None, aa=None, train_crop_mode=None, interpolation='').items():
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

@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    return path


def main(capsys, *arguments):
    """Return the exit status, standard output and standard error."""
    try:
        status = __main__.main([*map(str, arguments)])
    except SystemExit as e:
        status = e.code
    return status, *capsys.readouterr()


@pytest.mark.parametrize('arguments, passed', [
    (f'-c {NAME} --epochs 1', f'--config {FILE} --epochs 1'),  # the recipe has the hook
    (f'--epochs 1 -c{NAME}', f'--config {FILE} --epochs 1'),
    (f'--config {NAME}.yaml --epochs 1', f'--config {FILE} --epochs 1'),
    (f'--epochs 1 --config={NAME}', f'--config {FILE} --epochs 1'),
    (f'-c {FILE} --epochs 1', f'--config {FILE} --epochs 1'),
    (f'-c other --conf {NAME} --help-me -- -1', f'--config {FILE} --help-me -- -1'),
    ('data --scale 0.1 -j0', f'data --scale 0.1 -j0 --device-modules {HOOK}'),
    ('-c e10_assemble_resnet50', f'--config e10_assemble_resnet50 --device-modules {HOOK}'),  # a file comes first
    ('-c two.yaml', f'--config two.yaml --device-modules a b {HOOK}'),
    ('-c two.yaml --device-modules c d', f'--config two.yaml --device-modules c d --device-modules c d {HOOK}'),
    ('--device-modules c --device-modules d', f'--device-modules c --device-modules d --device-modules d {HOOK}'),
    ('-c first.yaml', '--config first.yaml'),
    ('-c first.yaml --device-modules c', f'--config first.yaml --device-modules c --device-modules c {HOOK}'),
    (f'--device-modules {HOOK} --device cpu', f'--device-modules {HOOK} --device cpu'),
])
def test_train_passes_on_the_recipes_file_the_hook_and_the_rest(capsys, script, arguments, passed):
    Path('e10_assemble_resnet50').write_text('drop_block: 0.1')
    Path('two.yaml').write_text('device_modules: [a, b]')
    Path('first.yaml').write_text(f'device_modules: [{HOOK}, a]')
    first, *others = arguments.split()
    assert main(capsys, 'train', first, f'--script={script}', *others) == (
        0, f'arguments {passed}\n', f'timm-assemble: running {script}\n')


def test_run_passes_on_all_after_the_script(capsys, script, monkeypatch):
    monkeypatch.setenv('TIMM_SCRIPTS', str(script.parent))
    shutil.copy(script, 'validate.py')
    for own in (['validate'], ['validate.py'], ['--script', script]):
        status, out, _ = main(capsys, 'run', *own, '--model', 'test_assemble_resnet', '--script', 'x', '--help')
        assert (status, out) == (0, 'arguments --model test_assemble_resnet --script x --help\n')


@pytest.mark.parametrize('arguments, shown', [
    (['train', '--lr', '1', '--help'], '--script-help'), (['run', '--help'], 'benchmark, inference'),
    (['train', '--script', 'train.py', '--script-help'], 'arguments --help\n')])
def test_help_is_the_commands_or_the_scripts(capsys, script, arguments, shown):
    status, out, _ = main(capsys, *arguments)
    assert status == 0 and shown in out


ALLOWED = 'SCRIPT must be one of validate, benchmark, inference, onnx_export, avg_checkpoints'


@pytest.mark.parametrize('arguments, message', [
    (['train', '-c', 'asemble_resnet50'], "timm-assemble: --config must be a file or a recipe, got 'asemble_resnet50'; "
                                          "did you mean assemble_resnet50, "),
    (['train', '-c'], 'timm-assemble: argument -c/--config: expected one argument'),
    (['train', '--script-help', '--script'], 'timm-assemble train: argument --script: expected one argument'),
    (['train', '-c', 'list.yaml'], 'timm-assemble: --config list.yaml must map argument names to values, got list'),
    (['train', '-c', 'string.yaml'], "timm-assemble: device_modules must be a list of modules, got 'a'"),
    (['train', '--script', 'english.py'], 'timm-assemble: --script must be a Python file, got '),
    (['train', '--script', 'null.py'], 'timm-assemble: --script must be a Python file, got '),
    (['train', '--script', 'nowhere.py'], 'timm-assemble: --script must be a file, got nowhere.py'),
    (['train', '--script', 'train.py', '--data-dir', 'nowhere'], 'timm_assemble: data_dir must exist, got nowhere'),
    (['run'], f'timm-assemble: {ALLOWED}, got none'),
    (['run', 'dream.py'], f'timm-assemble: {ALLOWED}, got dream.py'),
    (['run', 'train.py'], 'timm-assemble: SCRIPT must be another script, got train.py, which `timm-assemble train` '),
    (['run', '--script', 'aa.py'], 'timm-assemble: aa_size must be 0 or from 2 to 7, got 9'),
    (['recipes', 'assemble'], "timm-assemble: NAME must be a recipe, got 'assemble'; "),
    (['recipes', '--path'], 'timm-assemble: --path needs the NAME of a recipe'),
])
def test_bad_use_is_one_line(capsys, script, arguments, message):
    Path('list.yaml').write_text('[a]')
    Path('string.yaml').write_text('device_modules: a')
    Path('english.py').write_text('no Python')
    Path('null.py').write_bytes(b'\0')
    Path('aa.py').write_text("import timm\ntimm.create_model('test_assemble_resnet', aa_size=9)")
    status, out, err = main(capsys, *arguments)
    [line] = [line for line in err.splitlines() if not line.startswith('timm-assemble: running ')]
    assert status == 2 and not out and line.startswith(message)


def test_no_network_is_one_line(capsys):
    status, _, err = main(capsys, 'train', '-c', NAME)
    cloning, error = err.splitlines()
    assert status == 2 and cloning.startswith("timm-assemble: cloning timm's scripts from https://")
    assert f'train.py of timm {timm.__version__} was not found (cloning failed: fatal: ' in error
    assert 'give the file with --script' in error


def test_recipes_are_listed_and_printed(capsys):
    status, out, _ = main(capsys, 'recipes')
    lines = out.splitlines()
    assert status == 0 and lines[0].split() == ['name', 'row', 'model', 'epochs', 'top-1', 'mCE']
    assert [line.split()[0] for line in lines[1:]] == recipe_names()
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
    done, _, err = main(capsys, 'run', '--script', script)
    running, _, err = err.partition('\n')
    assert running == f'timm-assemble: running {script}' and done == status and error in err
    assert bool(error) == err.startswith(f'Traceback (most recent call last):\n  File "{script}", line ')
    assert sys.argv is argv and sys.path == path


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_script_runs_as_in_python_with_the_installed_timm(capsys, script):
    """With its arguments, exit status and workers, and without the folder timm beside it."""
    Path('timm').mkdir()
    Path('timm', '__init__.py').write_text('raise ImportError("not this one")\n')
    Path('beside.py').write_text('VALUE = 5\n')
    script.write_text(LOADER)
    status, out, _ = main(capsys, 'run', '--script', script, 'a b', '--help')
    found = f'{timm.__file__} 5'
    assert (status, out.splitlines()) == (7, [f'in {script} {script} a b --help', f'fork {found}', f'spawn {found}'])
