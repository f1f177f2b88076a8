"""A folder that comes into being whole or not at all: made beside its place under another name, then renamed.

Knows the standard library alone.
"""
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

__all__ = ['check_new_folder', 'new_folder']

MODEL_FILES = ('config.json', 'model.safetensors')


def check_new_folder(folder: Path, force: bool = False) -> None:
    """Whether a folder may be made here, to be asked before long work.

    Args:
        folder: Where it shall be. It may exist if it is empty.
        force: It may also be a folder of a model, which is replaced as a whole.

    Raises:
        ValueError: There is something that must not be lost, or a place where nothing can be written.
    """
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
def new_folder(folder: Path, force: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of ``folder`` when all went well.

    Whatever ends the work before its end, an interrupt as well, leaves ``folder`` as it was.

    Args:
        folder: Where the folder shall be at the end.
        force: As in :func:`check_new_folder`.
    """
    check_new_folder(folder, force)
    folder = folder.absolute()
    made, old = (folder.with_name(f'.{folder.name}.{os.getpid()}.{kind}') for kind in ('new', 'old'))
    folder.parent.mkdir(parents=True, exist_ok=True)
    made.mkdir()
    try:
        yield made
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
    shutil.rmtree(old, ignore_errors=True)
