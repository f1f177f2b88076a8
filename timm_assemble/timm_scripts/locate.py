"""Find timm's scripts: a given file, a folder of the user, or the cache, into which they are cloned.

timm's package does not contain its scripts, so they come from the repository at the tag of the installed version.
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

from ..errors import UserError
from ..runtime.cache import cache_folder

__all__ = ['SCRIPTS', 'find_script', 'scripts_folder']

SCRIPTS = ('train', 'validate', 'benchmark', 'inference', 'onnx_export', 'avg_checkpoints')
REPOSITORY = 'https://github.com/huggingface/pytorch-image-models'
VARIABLE = 'TIMM_SCRIPTS'


def scripts_folder() -> Path:
    """Return the folder for scripts of the installed timm, in the user's cache."""
    return cache_folder('scripts', f'timm-{timm.__version__}')


def find_script(name: str, script: Optional[Path] = None, repository: str = REPOSITORY) -> Path:
    """Return the file of one of timm's scripts.

    ``script`` comes first, then the folder in the environment variable ``TIMM_SCRIPTS``, then the cache. The scripts
    are cloned if the cache does not have them, with a line on standard error.

    Args:
        name: One of ``SCRIPTS``.
        script: The file itself.
        repository: Address of the repository to clone.

    Raises:
        UserError: The file or the folder does not have the script, or it cannot be cloned.
    """
    if script is not None:
        if not script.is_file():
            raise UserError(f'script must be a file, got {script}')
        return script.resolve()
    folder = os.environ.get(VARIABLE)
    if folder:
        path = Path(folder).expanduser() / f'{name}.py'
        if not path.is_file():
            raise UserError(f'{VARIABLE} must be a folder with {name}.py, got {folder}')
        return path.resolve()
    cache = scripts_folder()
    try:
        if not cache.is_dir():
            _fetch(cache, repository)
        if (cache / f'{name}.py').is_file():
            return cache / f'{name}.py'
        why = f'{cache} does not have it'
    except OSError as e:
        why = f'the cache {cache} cannot be written: {e.strerror or e}'
    except RuntimeError as e:
        why = f'cloning failed: {e}'
    raise UserError(
        f'{name}.py of timm {timm.__version__} was not found ({why}): give the file with `script`, or set the '
        f'environment variable {VARIABLE} to its folder, or run this once with a network connection')


def _fetch(folder: Path, repository: str) -> None:
    """Clone the repository and copy the scripts out: atomically, and once if several processes start together.

    A script that stays beside the clone's own ``timm/`` could import it instead of the installed one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        if folder.is_dir():
            return  # another process fetched it while this one waited
        tag = f'v{timm.__version__}'
        print(f"timm-assemble: cloning timm's scripts from {repository}, tag {tag}, into {folder}",
              file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.fetch-') as temporary:
            clone, scripts = Path(temporary) / 'clone', Path(temporary) / 'scripts'
            _clone(repository, tag, clone)
            scripts.mkdir()
            for script in SCRIPTS:
                if (clone / f'{script}.py').is_file():
                    shutil.copyfile(clone / f'{script}.py', scripts / f'{script}.py')
            scripts.rename(folder)


def _clone(repository: str, tag: str, folder: Path) -> None:
    # A stalled connection fails after 30 s; git does not ask for a password.
    command = ['git', '-c', 'http.lowSpeedLimit=1', '-c', 'http.lowSpeedTime=30', '-c', 'advice.detachedHead=false',
               'clone', '--quiet', '--depth', '1', '--branch', tag, repository, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'GIT_TERMINAL_PROMPT': '0'})
    except FileNotFoundError as e:
        raise RuntimeError('git is not installed') from e
    if done.returncode:
        raise RuntimeError([f'git exited with status {done.returncode}', *done.stderr.strip().splitlines()][-1])
