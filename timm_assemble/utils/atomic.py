"""Atomic writes of files and folders: written beside the target under another name, then renamed.

A folder's other name is ``.NAME.PID.new``, and what it replaces is ``.NAME.PID.old`` for a moment. A killed process
leaves them; the next one that writes the same folder removes them.
"""
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

if sys.platform != 'win32':
    import fcntl

__all__ = ['MODEL_FILES', 'atomic_file', 'atomic_folder', 'check_output_folder']

MODEL_FILES = ('config.json', 'model.safetensors')


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write instead of ``path``, which replaces it when the block ends without an error.

    The file is flushed to the disk first; an error or an interrupt leaves ``path`` as it was and removes the other one.
    It lies in the same folder and has the same suffix.
    """
    temporary = path.with_name(f'.{path.stem}.{os.getpid()}.tmp{path.suffix}')
    try:
        yield temporary
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _lock(folder: Path) -> Optional[int]:
    """A lock on a folder, which ends with its process however that ends; None where there is one or can be none."""
    if sys.platform == 'win32':
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_alive(pid: int) -> bool:
    """Whether another process has this number; ours may be that of one in a container of before."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that is no process's
        return True
    return pid != os.getpid()


def _clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left of making this folder, and put back what one of them had moved away.

    A folder goes if the process of its name is no more and nobody holds its lock: a process in another container, or
    on another machine, is not seen by its number.
    """
    folder = folder.absolute()
    if sys.platform == 'win32' or not folder.parent.is_dir():  # there os.kill is no question, but kills
        return
    for path in sorted(folder.parent.iterdir()):
        name = re.fullmatch(rf'\.{re.escape(folder.name)}\.([1-9]\d*)\.(new|old)', path.name)
        if name is None or _is_alive(int(name[1])):
            continue
        descriptor = _lock(path)
        if descriptor is None:
            continue
        if name[2] == 'old' and not folder.exists():
            path.rename(folder)  # killed between the two renames
        else:
            shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def check_output_folder(folder: Path, force: bool = False) -> None:
    """Whether a folder may be made here, to be asked before long work. What killed processes left of it is removed.

    Args:
        folder: Where it shall be. It may exist if it is empty.
        force: It may also be a folder of a model, which is replaced as a whole.

    Raises:
        ValueError: There is something that must not be lost, or a place where nothing can be written.
    """
    _clear_leftovers(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'OUTPUT must be a folder, and {folder} is a file')
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise ValueError(f'OUTPUT must be a new or empty folder, or be given --force; {folder} is not empty')
        if not all((folder / name).is_file() for name in MODEL_FILES):
            raise ValueError(f'OUTPUT {folder} is not empty and holds no {" and ".join(MODEL_FILES)}: --force replaces '
                             f'folders of models alone')
    above = folder.absolute().parent
    while not above.exists():
        above = above.parent
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ValueError(f'OUTPUT {folder} cannot be made: {above} is no folder that can be written to')


@contextmanager
def atomic_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of ``folder`` when all went well.

    Whatever ends the work before its end, an interrupt as well, leaves ``folder`` as it was.

    Args:
        folder: Where the folder shall be at the end.
        force: As in :func:`check_output_folder`.
    """
    check_output_folder(folder, force)
    folder = folder.absolute()
    made, old = (folder.with_name(f'.{folder.name}.{os.getpid()}.{kind}') for kind in ('new', 'old'))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.mkdir()
    lock = _lock(made)
    try:
        yield made
        check_output_folder(folder, force)  # another process may have been faster
        if folder.exists():
            folder.rename(old)
        try:
            made.rename(folder)
        except BaseException:
            if old.exists():
                old.rename(folder)
            raise
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)
    shutil.rmtree(old, ignore_errors=True)
