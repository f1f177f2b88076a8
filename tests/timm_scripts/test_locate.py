"""Finding timm's scripts: a given file, a folder, the cache, and cloning a repository made here."""
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm

from timm_assemble.timm_scripts.locate import SCRIPTS, find_script, scripts_folder

pytestmark = pytest.mark.usefixtures('no_scripts')
WAYS = (r'give the file with `script`, or set the environment variable TIMM_SCRIPTS to its folder, or run this once '
        r'with a network connection$')


@pytest.fixture(scope='module')
def repository(tmp_path_factory):
    """Address of a repository like timm's, with a tag of the installed version."""
    work = tmp_path_factory.mktemp('work')
    (work / 'timm').mkdir()
    for name in (*SCRIPTS, 'timm/__init__'):
        (work / f'{name}.py').write_text(f'# {name}\n')
    identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-c', 'commit.gpgsign=false']
    for command in (['init', '-q'], ['add', '.'], [*identity, 'commit', '-qm', 'all'], ['tag', f'v{timm.__version__}']):
        subprocess.run(['git', *command], cwd=work, check=True, capture_output=True)
    return f'file://{work}'


def test_scripts_are_cloned_once_by_several_ranks(repository, capsys):
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: find_script('train', repository=repository), range(4)))
    assert paths == {scripts_folder() / 'train.py'} and paths.pop().read_text() == '# train\n'
    message = capsys.readouterr().err
    assert message.count('\n') == 1 and repository in message and str(scripts_folder()) in message
    assert {f.name for f in scripts_folder().iterdir()} == {f'{name}.py' for name in SCRIPTS}
    name = scripts_folder().name
    assert {f.name for f in scripts_folder().parent.iterdir()} <= {name, f'{name}.lock'}
    assert find_script('validate', repository='nowhere').is_file() and not capsys.readouterr().err


def test_file_comes_before_folder_before_cache(repository, tmp_path, monkeypatch):
    find_script('train', repository=repository)
    folder, script = tmp_path / 'folder', tmp_path / 'mine.py'
    folder.mkdir()
    for file in (folder / 'train.py', script):
        file.touch()
    monkeypatch.setenv('TIMM_SCRIPTS', str(folder))
    assert find_script('train') == folder / 'train.py'
    assert find_script('train', script) == script
    with pytest.raises(ValueError, match=r'TIMM_SCRIPTS must be a folder with validate.py, got'):
        find_script('validate')
    with pytest.raises(ValueError, match='script must be a file, got'):
        find_script('train', folder)


@pytest.mark.parametrize('variable, value, why', [
    ('', '', 'cloning failed: .*v9.9.9 not found.*'), ('PATH', 'nowhere', 'cloning failed: git is not installed'),
    ('XDG_CACHE_HOME', 'file', 'the cache .* cannot be written: Not a directory'),
    ('XDG_CACHE_HOME', 'has', '.* does not have it')])
def test_failure_is_reported_with_its_reason_and_ways(repository, monkeypatch, tmp_path, variable, value, why):
    monkeypatch.setattr(timm, '__version__', '9.9.9')
    (tmp_path / 'file').touch()
    (tmp_path / 'has' / 'timm_assemble' / 'scripts' / 'timm-9.9.9').mkdir(parents=True)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / value))
    with pytest.raises(ValueError, match=rf'^train.py of timm 9.9.9 was not found \({why}\): {WAYS}') as e:
        find_script('train', repository=repository)
    assert '\n' not in str(e.value) and scripts_folder().exists() == (value == 'has')
