"""Finding timm's scripts: a given file, a folder, the cache, and cloning a repository made here."""
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm

from timm_assemble.timm_scripts.locate import SCRIPTS, find_script, scripts_folder

WAYS = (r'give the file with `script`, or set the environment variable TIMM_SCRIPTS to its folder, or run this once '
        r'with a network connection$')


@pytest.fixture(autouse=True)
def no_scripts(monkeypatch, tmp_path):
    """No scripts on this machine, and git without a network."""
    monkeypatch.delenv('TIMM_SCRIPTS', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('GIT_ALLOW_PROTOCOL', 'file')


@pytest.fixture
def repository(tmp_path):
    """Address of a repository like timm's, with a tag of the installed version."""
    work = tmp_path / 'work'
    (work / 'timm').mkdir(parents=True)
    for name in SCRIPTS:
        (work / f'{name}.py').write_text(f'# {name}\n')
    (work / 'timm' / '__init__.py').write_text('raise ImportError("not this one")\n')
    identity = ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-c', 'commit.gpgsign=false']
    for command in (['init', '-q'], ['add', '.'], [*identity, 'commit', '-qm', 'all'],
                    ['tag', f'v{timm.__version__}'], ['clone', '-q', '--bare', '.', str(tmp_path / 'timm.git')]):
        subprocess.run(['git', *command], cwd=work, check=True, capture_output=True)
    return f'file://{tmp_path / "timm.git"}'


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


def test_missing_tag_is_reported(repository, monkeypatch):
    monkeypatch.setattr(timm, '__version__', '9.9.9')
    message = rf'train.py of timm 9.9.9 was not found \(cloning failed: .*v9.9.9 not found.*\): {WAYS}'
    with pytest.raises(ValueError, match=message) as e:
        find_script('train', repository=repository)
    assert '\n' not in str(e.value) and not scripts_folder().exists()


def test_missing_git_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(ValueError, match=rf'\(cloning failed: git is not installed\): {WAYS}'):
        find_script('train')


def test_cache_that_cannot_be_written_is_reported(monkeypatch, tmp_path):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(ValueError, match=rf'\(the cache .* cannot be written: Not a directory\): {WAYS}'):
        find_script('train')


def test_script_missing_from_the_tag_is_reported():
    scripts_folder().mkdir(parents=True)
    with pytest.raises(ValueError, match=rf'train.py of .* \(.* does not have it\): {WAYS}'):
        find_script('train')
