"""Run one of timm's scripts in this process, where the models are registered; train.py with the hook.

The scripts do not import plugins by themselves, except train.py, which imports its ``device_modules``.
"""
import argparse
import os
import runpy
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, NoReturn, Optional, Sequence

from ..data.samples import use_image_extensions
from ..errors import UserError, error_line
from ..recipes import find_config, read_config
from . import HOOK

__all__ = ['run_script', 'train_arguments']


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def train_arguments(arguments: Sequence[str]) -> List[str]:
    """Replace a recipe's name by its file and add the hook to the device modules.

    Args:
        arguments: Arguments of train.py, where ``-c`` may name a recipe. A file of that name comes first.

    Raises:
        UserError: The recipe does not exist or the configuration cannot be read.
    """
    parser = _Parser(add_help=False)  # as in train.py: it accepts abbreviations, and the last of several values wins
    parser.add_argument('-c', '--config', default='')
    found, rest = parser.parse_known_args(arguments)
    config: Dict[str, Any] = {}
    if found.config:
        path = find_config(found.config)
        config = read_config(path)
        rest = ['--config', str(path), *rest]

    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument('--device-modules', nargs='+')
    modules = parser.parse_known_args(rest)[0].device_modules or config.get('device_modules') or []
    if not isinstance(modules, list):
        raise UserError(f'device_modules must be a list of modules, got {modules!r}')
    return rest if HOOK in modules else [*rest, '--device-modules', *modules, HOOK]


def run_script(script: Path, arguments: Sequence[str]) -> None:
    """Run a script in this process as ``python script arguments`` would, with its exit status.

    The script's folder is searched last for modules, in worker processes too, so that a folder ``timm`` beside the
    script, as in a checkout of timm, does not replace the installed timm.

    Raises:
        UserError: Raised by this package, or because ``script`` is not Python.
        SystemExit: As the script raises it; with status 1 after any other error, whose traceback is printed.
    """
    if os.environ.get('RANK', '0') == '0':
        print(f'timm-assemble: running {script}', file=sys.stderr, flush=True)
    use_image_extensions()
    argv, search_path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.append(str(script.parent))
    try:
        runpy.run_path(str(script), run_name='__main__')
    except Exception as e:
        trace = _from(script, e.__traceback__)
        if trace is None and isinstance(e, (SyntaxError, ValueError)):  # null bytes are a ValueError
            raise UserError(f'script must be a Python file, got {script}: {error_line(e)}') from e
        if isinstance(e, UserError):
            raise  # other errors are the script's own
        traceback.print_exception(type(e), e, trace or e.__traceback__)
        sys.exit(1)
    finally:
        sys.argv, sys.path[:] = argv, search_path


def _from(script: Path, trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """Return the traceback without this launcher's frames; None if the script did not start."""
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    return trace
