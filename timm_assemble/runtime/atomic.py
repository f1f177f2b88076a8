"""Atomic writes of files and folders: written in a temporary folder beside the target, then renamed.

The temporary folder of ``NAME`` is ``.NAME.XXXXXXXX.timm-assemble``. It holds the new file or folder, for a moment the
old folder, and a lock of the process that writes it. The next process that writes ``NAME`` finds what a killed process
left there.
"""
import glob
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Iterator, Optional

from filelock import FileLock

from ..errors import UserError

__all__ = ['MODEL_FILES', 'atomic_file', 'atomic_folder', 'check_output_folder', 'finish_killed']

MODEL_FILES = ('config.json', 'model.safetensors')
SUFFIX = '.timm-assemble'


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write instead of ``path``, which replaces it when the block ends without an error.

    The file is flushed to the disk first. An error, an interrupt or a kill leaves ``path`` as it was. The yielded path
    has the same name in a temporary folder beside ``path``.
    """
    try:
        with _temporary_folder(path) as work:
            temporary = work / path.name
            yield temporary
            with open(temporary, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as e:
        if e.filename is None or SUFFIX in str(e.filename):  # a full disk names no file
            e.filename = str(path)
        raise


@contextmanager
def _locked(work: Path, folder: Path, timeout: float = -1) -> Iterator[None]:
    """Lock a temporary folder and remove it at the end; an old folder whose place is free goes back first."""
    try:
        with FileLock(work / 'lock', timeout=timeout):
            try:
                yield
            finally:
                if (work / 'old').exists() and not folder.exists():
                    (work / 'old').rename(folder)
                shutil.rmtree(work, ignore_errors=True)
    finally:
        with suppress(OSError):
            work.rmdir()  # NFS keeps a folder with an open file, here the lock


@contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new locked temporary folder of a file or folder, without those that killed processes left of it."""
    finish_killed(path.parent, path.name)
    with ExitStack() as stack:
        while True:
            work = Path(tempfile.mkdtemp(SUFFIX, f'.{path.name}.', path.parent))
            with suppress(FileNotFoundError, FileExistsError):  # another process removed it before it was locked
                stack.enter_context(_locked(work, path))
                break
        yield work


def finish_killed(folder: Path, name: Optional[str] = None) -> None:
    """Restore and remove what killed processes left in a folder; a live process holds its lock.

    What another user's process left stays: its temporary folder is closed to others.

    Args:
        folder: The folder of the files or folders that they wrote.
        name: The name of one of them; None for any.
    """
    end = f'.????????{SUFFIX}'  # the 8 characters of mkdtemp
    for work in folder.glob(f'.{"*" if name is None else glob.escape(name)}{end}'):
        with suppress(OSError):  # a live process holds it, another one removed it, or another user may not open it
            with _locked(work, folder / work.name[1:-len(end)], timeout=0):
                pass


def check_output_folder(folder: Path, force: bool = False) -> None:
    """Check that a folder can be made here, and remove what killed processes left of it.

    Call it before long work; :func:`atomic_folder` calls it too.

    Args:
        folder: The folder to make. It may exist if it is empty.
        force: The folder of a model may exist too, and is replaced.

    Raises:
        UserError: The folder would replace something that must not be lost, or cannot be written.
    """
    got = f'got {str(folder)!r}'
    path = folder.absolute()
    try:
        if path.name == '..' or Path.cwd().is_relative_to(os.path.realpath(path)):
            raise UserError('it is the working directory or above it')
        os.lstat(path.with_name(f'.{path.name}.????????{SUFFIX}'))  # the longest name that is written
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as e:
        raise UserError(f'output must be a new folder, {got}: {getattr(e, "strerror", None) or e}') from e
    if path.is_symlink():
        raise UserError(f'output must not be a symbolic link, {got}')
    finish_killed(path.parent, path.name)
    if path.exists() and not path.is_dir():
        raise UserError(f'output must be a folder, {got}')
    if path.is_dir() and any(path.iterdir()):
        if not force:
            raise UserError(f'output must be a new or empty folder without `force`, {got}')
        if not all((path / name).is_file() for name in MODEL_FILES):
            raise UserError(f'output must be a folder with {" and ".join(MODEL_FILES)} for `force`, {got}')
    above = path.parent
    while not os.path.lexists(above):
        above = above.parent
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UserError(f'output must be in a writable folder, {got}')


@contextmanager
def atomic_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces ``folder`` when the block ends without an error.

    An error, an interrupt or a kill leaves ``folder`` as it was.

    Args:
        folder: The folder to make.
        force: As in :func:`check_output_folder`.
    """
    check_output_folder(folder, force)
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(folder) as work:
        new = work / 'new'
        new.mkdir()
        yield new
        check_output_folder(folder, force)  # another process may have been faster
        if folder.exists():
            folder.rename(work / 'old')
        new.rename(folder)
