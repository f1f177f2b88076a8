"""Atomic writes: what an error, an interrupt and a kill at each moment leave, and what is rejected before work."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

import timm_assemble
from timm_assemble.evaluation.engine import TaskCache
from timm_assemble.runtime.atomic import MODEL_FILES, atomic_file, atomic_folder, check_output_folder

# Does not run the package's __init__, to start fast. Dies before rename or unlink number argv[2]; else it waits.
WRITER = """
import itertools, os, pathlib, signal, sys, types
sys.modules['timm_assemble'] = types.ModuleType('timm_assemble')
sys.modules['timm_assemble'].__path__ = ['.']
from timm_assemble.runtime import atomic
path, deadly = pathlib.Path(sys.argv[1]), sys.argv[2:]

def counted(function, count=itertools.count()):
    def call(*args, **kwargs):
        if str(next(count)) in deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

pathlib.Path.rename, os.replace, os.unlink = map(counted, (pathlib.Path.rename, os.replace, os.unlink))
if path.is_file():
    with atomic.atomic_file(path) as new:
        new.write_text('new')
with atomic.atomic_folder(path, force=True) as new:
    for name in atomic.MODEL_FILES:
        (new / name).write_text('new')
    if not deadly:
        print(new, flush=True)
        sys.stdin.read()
"""


def writer(path, *deadly):
    """Start a process that writes a file or a folder."""
    return subprocess.Popen(
        [sys.executable, '-c', WRITER, str(path), *map(str, deadly)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=Path(timm_assemble.__file__).parent)


def write_model(folder, text):
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).write_text(text)


def names(folder):
    return {f.name for f in folder.iterdir()}


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_error_or_interrupt_leaves_the_old_file_and_the_old_folder(error, tmp_path):
    (tmp_path / 'a.json').write_text('old')
    with pytest.raises(error), atomic_file(tmp_path / 'a.json') as new:
        new.write_text('half')
        raise error
    write_model(tmp_path / 'model', 'old')
    with pytest.raises(error), atomic_folder(tmp_path / 'model', force=True):
        raise error
    assert (tmp_path / 'a.json').read_text() == (tmp_path / 'model' / 'config.json').read_text() == 'old'
    assert names(tmp_path) == {'a.json', 'model'}


def test_a_file_is_replaced_at_the_end_with_the_mode_of_a_new_file(tmp_path):
    (tmp_path / 'a.json').write_text('old')
    with atomic_file(tmp_path / 'a.json') as new:
        new.write_text('new')
        assert new.suffix == '.json' and (tmp_path / 'a.json').read_text() == 'old'
    (tmp_path / 'other').touch()
    assert (tmp_path / 'a.json').stat().st_mode == (tmp_path / 'other').stat().st_mode
    assert (tmp_path / 'a.json').read_text() == 'new' and names(tmp_path) == {'a.json', 'other'}


def write_next(path):
    with atomic_file(path) as new:
        new.write_text('next')


@pytest.mark.parametrize('finish, next_text', [(write_next, 'next'), (lambda path: TaskCache(path.parent), None)])
@pytest.mark.parametrize('moment, text', [(0, 'old'), (1, 'new')])
def test_a_kill_leaves_the_old_file_or_the_new_one(moment, text, finish, next_text, tmp_path):
    """Before the rename and after it; the next write, or an evaluation with this cache, removes what is left."""
    (tmp_path / 'a.json').write_text('old')
    with writer(tmp_path / 'a.json', moment) as process:
        assert process.wait(60) == -9
    assert (tmp_path / 'a.json').read_text() == text and len(names(tmp_path)) == 2
    finish(tmp_path / 'a.json')
    assert (tmp_path / 'a.json').read_text() == (next_text or text) and names(tmp_path) == {'a.json'}


def test_the_file_of_a_live_process_is_left_alone(tmp_path):
    with atomic_file(tmp_path / 'a.json') as slow:
        slow.write_text('slow')
        write_next(tmp_path / 'a.json')
        TaskCache(tmp_path)
        assert (tmp_path / 'a.json').read_text() == 'next'
    assert (tmp_path / 'a.json').read_text() == 'slow' and names(tmp_path) == {'a.json'}


def test_an_interrupt_between_the_renames_leaves_the_old_folder(tmp_path, monkeypatch):
    write_model(tmp_path / 'model', 'old')
    rename = Path.rename

    def interrupted(self, target):
        rename(self, target)
        if target.name == 'old':
            raise KeyboardInterrupt
    monkeypatch.setattr(Path, 'rename', interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / 'model', force=True):
        pass
    assert (tmp_path / 'model' / 'config.json').read_text() == 'old' and names(tmp_path) == {'model'}


def test_an_empty_folder_and_with_force_a_models_folder_are_replaced(tmp_path):
    (tmp_path / 'model').mkdir()
    with atomic_folder(tmp_path / 'model') as new:
        for name in MODEL_FILES:
            (new / name).touch()
    with atomic_folder(tmp_path / 'model', force=True) as new:
        (new / 'other').touch()
    assert names(tmp_path / 'model') == {'other'} and names(tmp_path) == {'model'}


@pytest.mark.parametrize('moment, text', [(0, 'old'), (1, 'old'), (2, 'new'), (4, 'new')])
def test_a_kill_leaves_the_old_folder_or_the_new_one(moment, text, tmp_path):
    """Before the two renames, between them, and while the old folder is removed."""
    write_model(tmp_path / 'model', 'old')
    others = {'.model.timm-assemble', '.model.x.timm-assemble', '.model2.12345678.timm-assemble', '.model.12345678.tmp'}
    for name in others:
        (tmp_path / name).mkdir()
    with writer(tmp_path / 'model', moment) as process:
        assert process.wait(60) == -9
    assert len(names(tmp_path) - others - {'model'}) == 1
    check_output_folder(tmp_path / 'model', force=True)
    assert [(tmp_path / 'model' / name).read_text() for name in MODEL_FILES] == [text, text]
    assert names(tmp_path) == {'model', *others}


def test_the_folder_of_a_live_process_is_left_alone(tmp_path):
    with writer(tmp_path / 'model') as process:
        working = Path(process.stdout.readline().strip())
        with atomic_folder(tmp_path / 'model') as new:
            check_output_folder(tmp_path / 'model')  # in the same process
            (new / 'notes').touch()
        assert names(working) == set(MODEL_FILES)
        process.communicate('go on', timeout=60)
        assert process.returncode == 1  # what was written meanwhile is not a model's folder
    assert names(tmp_path / 'model') == {'notes'} and names(tmp_path) == {'model'}


@pytest.mark.parametrize('output, force, message', [
    ('.', True, 'must be a new folder, got .*working directory'),
    ('', False, "must be a new folder, got '.'"),
    ('new/..', False, "must be a new folder, got 'new/..'"),
    ('x' * 300, False, 'File name too long$'),
    ('x' * 240, False, 'File name too long$'),  # with the temporary folder's name
    ('a\0b', False, r"must be a new folder, got 'a\\x00b': embedded null byte$"),
    ('dangling', False, 'must not be a symbolic link'),
    ('dangling/model', False, 'must be in a writable folder'),
    ('link', False, 'must not be a symbolic link'),
    ('link', True, 'must not be a symbolic link'),
    ('file', True, 'must be a folder'),
    ('file/model', False, 'Not a directory$'),
    ('model', False, "must be a new or empty folder without `force`, got 'model'$"),
    ('notes', True, "must be a folder with config.json and model.safetensors for `force`, got 'notes'$"),
])
def test_output_is_rejected_before_work_by_name_in_one_line(output, force, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / 'model', 'old')
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'x').touch()
    (tmp_path / 'file').touch()
    os.symlink('nowhere', 'dangling')
    os.symlink('model', 'link')
    there = sorted(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match=f'^output .*{message}') as e:
        check_output_folder(Path(output), force)
    assert '\n' not in str(e.value) and sorted(tmp_path.rglob('*')) == there
