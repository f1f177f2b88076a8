"""A folder that comes into being whole or not at all: what is kept, and what a kill leaves."""
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from timm_assemble.utils import atomic as atomic
from timm_assemble.utils.atomic import check_output_folder, atomic_folder


def test_new_folder_keeps_what_is_there(tmp_path):
    place = tmp_path / 'model'
    place.mkdir()
    with atomic_folder(place) as made:  # an empty one is taken
        (made / 'config.json').write_text('1')
        (made / 'model.safetensors').write_text('1')
    with pytest.raises(ValueError, match='not empty'), atomic_folder(place):
        pass
    with pytest.raises(KeyboardInterrupt), atomic_folder(place, force=True):
        raise KeyboardInterrupt
    assert {f.name for f in place.iterdir()} == {'config.json', 'model.safetensors'}
    with atomic_folder(place, force=True) as made:
        (made / 'other').write_text('2')
    assert [f.name for f in place.iterdir()] == ['other']
    with pytest.raises(ValueError, match='replaces folders of models alone'), atomic_folder(place, force=True):
        pass
    with pytest.raises(ValueError, match='is a file'), atomic_folder(place / 'other'):
        pass
    with pytest.raises(ValueError, match='no folder that can be written to'), atomic_folder(place / 'other' / 'x'):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ['model']


MAKER = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from atomic import atomic_folder  # alone, without the package: it starts at once
with atomic_folder(pathlib.Path(sys.argv[2]), force=True) as made:
    for name in ('config.json', 'model.safetensors'):
        (made / name).write_text('made')
    print(made.name, flush=True)
    sys.stdin.read()
"""


@contextmanager
def maker(place):
    """A process in the middle of making a folder."""
    command = [sys.executable, '-c', MAKER, str(Path(atomic.__file__).parent), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_what_a_killed_process_left_is_cleared_and_nothing_else(tmp_path):
    place = tmp_path / 'model'
    others = ('.model.new', '.model.0.new', f'.model.{os.getppid()}.new', '.model.x.new', '.model2.99999999.new')
    for name in others:
        (tmp_path / name).mkdir()
    with maker(place) as (process, left):
        process.kill()
    process.wait()
    assert left == f'.model.{process.pid}.new' and (tmp_path / left / 'config.json').exists()
    (tmp_path / f'.model.{os.getpid()}.new').mkdir()  # of a process that had our number
    (tmp_path / '.model.99999999.new').write_text('a file')
    with maker(place) as (process, working):  # this one clears away, and is at work while we do
        assert not (tmp_path / left).exists() and (tmp_path / working).exists()
        with atomic_folder(place) as made:
            assert (tmp_path / working / 'config.json').exists()
            (made / 'config.json').touch()
            check_output_folder(place)  # nor is one's own cleared away
            assert (made / 'config.json').exists()
        process.communicate('go on', timeout=60)
        assert process.returncode == 1  # what came to be meanwhile is no model's folder, and stays
    assert [f.name for f in place.iterdir()] == ['config.json']
    assert {f.name for f in tmp_path.iterdir()} == {'model', '.model.99999999.new', *others}


def test_what_was_moved_away_when_the_process_was_killed_comes_back(tmp_path):
    """Killed between the two renames of a replacement, and after them."""
    with maker(tmp_path / 'model') as (process, left):
        process.kill()
    process.wait()
    (tmp_path / left).rename(tmp_path / left.replace('.new', '.old'))
    with pytest.raises(ValueError, match='is not empty'):
        check_output_folder(tmp_path / 'model')
    assert (tmp_path / 'model' / 'config.json').read_text() == 'made'
    (tmp_path / left.replace('.new', '.old')).mkdir()
    with atomic_folder(tmp_path / 'model', force=True) as made:
        (made / 'config.json').write_text('new')
    assert [f.name for f in tmp_path.iterdir()] == ['model']
    assert (tmp_path / 'model' / 'config.json').read_text() == 'new'
