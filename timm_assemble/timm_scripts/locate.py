"""Where timm's scripts are: named by the user, in a folder of theirs, in our cache, or cloned into it.

timm's package does not bring its scripts, so they are taken from the repository at the installed version's tag. Knows
timm's version and nothing of what the scripts do.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

import timm
from filelock import FileLock

__all__ = ['SCRIPTS', 'cache_folder', 'find_script']

SCRIPTS = ('train', 'validate', 'benchmark', 'inference', 'onnx_export', 'avg_checkpoints')
REPOSITORY = 'https://github.com/huggingface/pytorch-image-models'
VARIABLE = 'TIMM_SCRIPTS'


def cache_folder() -> Path:
    """Folder of the scripts of the installed timm, under ``XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get('XDG_CACHE_HOME')
    return (Path(base) if base else Path.home() / '.cache') / 'timm_assemble' / 'scripts' / f'timm-{timm.__version__}'


def find_script(name: str, script: Optional[Path] = None, repository: str = REPOSITORY) -> Path:
    """The file of one of timm's scripts.

    Args:
        name: One of ``SCRIPTS``.
        script: The file itself, which is taken before anything else. Then comes the folder in the environment's
            ``TIMM_SCRIPTS``, then the cache; what is not there is cloned, which standard error tells.
        repository: What to clone, by git's address.

    Raises:
        ValueError: The file or the folder does not have it, or it cannot be cloned: why, and what else there is.
    """
    if script is not None:
        if not script.is_file():
            raise ValueError(f'--script must be a file, got {script}')
        return script.resolve()
    folder = os.environ.get(VARIABLE)
    if folder:
        path = Path(folder).expanduser() / f'{name}.py'
        if not path.is_file():
            raise ValueError(f'{VARIABLE} must be a folder with {name}.py, got {folder}')
        return path.resolve()
    cache = cache_folder()
    if not cache.is_dir():
        try:
            _fetch(cache, repository)
        except OSError as e:
            raise ValueError(_not_at_hand(name, f'the cache {cache} cannot be written: {e.strerror or e}')) from e
        except _CloneError as e:
            raise ValueError(_not_at_hand(name, f'could not be cloned: {e}')) from e
    path = cache / f'{name}.py'
    if not path.is_file():
        raise ValueError(_not_at_hand(name, f'is not in {cache}'))
    return path


def _not_at_hand(name: str, why: str) -> str:
    return (f'{name}.py of timm {timm.__version__} is not at hand ({why}): name the file with --script, or a folder '
            f'that has it in the environment variable {VARIABLE}, or run this once with a network, which keeps it')


class _CloneError(Exception):
    pass


def _fetch(folder: Path, repository: str) -> None:
    """Clone and copy the scripts out; whole or not at all, and once where several processes start together.

    They are copied because a script beside the clone's own ``timm/`` could import that, not the installed one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        if folder.is_dir():
            return  # another process made it while this one waited
        tag = f'v{timm.__version__}'
        print(f"timm-assemble: cloning timm's scripts from {repository}, tag {tag}, into {folder}",
              file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.fetch-') as temporary:
            clone, made = Path(temporary) / 'clone', Path(temporary) / 'scripts'
            _clone(repository, tag, clone)
            made.mkdir()
            for script in SCRIPTS:
                if (clone / f'{script}.py').is_file():
                    shutil.copyfile(clone / f'{script}.py', made / f'{script}.py')
            made.rename(folder)


def _clone(repository: str, tag: str, folder: Path) -> None:
    # A dead line ends it after half a minute, and no one is asked for a password.
    command = ['git', '-c', 'http.lowSpeedLimit=1', '-c', 'http.lowSpeedTime=30', '-c', 'advice.detachedHead=false',
               'clone', '--quiet', '--depth', '1', '--branch', tag, repository, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'GIT_TERMINAL_PROMPT': '0'})
    except FileNotFoundError as e:
        raise _CloneError('git is not installed') from e
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise _CloneError(lines[-1] if lines else f'git ended with status {done.returncode}')
