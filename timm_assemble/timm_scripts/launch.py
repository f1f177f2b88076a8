"""Run one of timm's scripts in this process, where the models are registered; train.py with the hook in it.

The scripts import no plugin by themselves, but for the modules of train.py's ``--device-modules``. Knows the recipes,
and of train.py how it reads its arguments.
"""
import argparse
import ast
import os
import runpy
import symtable
import sys
import tokenize
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from ..recipes import check_keys, read_config, recipe_path

__all__ = ['HOOK', 'argument_names', 'check_config', 'check_names', 'run_script', 'train_arguments']

HOOK = 'timm_assemble.train_hook'
PACKAGE = Path(__file__).parents[1]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _source(path: Path) -> str:
    try:
        with tokenize.open(path) as file:
            source = file.read()
        ast.parse(source, str(path))
    except (SyntaxError, UnicodeDecodeError, ValueError) as e:
        raise ValueError(f'{path} must be a Python script: {" ".join(str(e).split())}') from e
    return source


def check_names(path: Path, needed: Sequence[str]) -> None:
    """Refuse a train.py without the names that the hook binds, before it is run.

    Raises:
        ValueError: The file is no Python, or lacks a name at its top level: which, and which versions have them.
    """
    top = symtable.symtable(_source(path), str(path), 'exec')
    there = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    missing = [name for name in needed if name not in there]
    if missing:
        raise ValueError(f'{path} lacks {", ".join(missing)}, which the hook binds; train.py of timm 1.0.25 and newer '
                         f'has them')


def argument_names(path: Path) -> Optional[List[str]]:
    """Names (argparse's ``dest``) of the arguments that a script adds to its parsers, in order.

    They are read from the calls of ``add_argument`` in its source, since running it would run all of it. None where
    there are none, or one is not written out.
    """
    names = []
    for node in ast.walk(ast.parse(_source(path))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == 'add_argument':
            given = [ast.unparse(k.value) for k in node.keywords if k.arg == 'dest'] or [
                ast.unparse(a) for a in node.args]
            try:
                texts = [str(ast.literal_eval(text)) for text in given]
                names.append(next((t for t in texts if t.startswith('--')), texts[0]).lstrip('-').replace('-', '_'))
            except (ValueError, IndexError):
                return None
    return names or None


def _split_config(arguments: Sequence[str]) -> Tuple[str, List[str]]:
    """The value of train.py's ``-c`` and the other arguments, by a parser of its own as in train.py: it takes the same
    abbreviations, and the last of several holds.
    """
    parser = _Parser(add_help=False)
    parser.add_argument('-c', '--config', default='')
    found, rest = parser.parse_known_args(arguments)
    return found.config, rest


def train_arguments(arguments: Sequence[str]) -> List[str]:
    """train.py's arguments with a recipe's name replaced by its file, and the hook among the device modules.

    ``-c`` is a file or, where there is none, the name of a recipe. Device modules of the user's are kept.

    Raises:
        ValueError: Unknown recipe, or a configuration that cannot be read.
    """
    named, rest = _split_config(arguments)
    config: Dict[str, Any] = {}
    if named:
        try:
            path = Path(named) if Path(named).is_file() else recipe_path(named)
        except ValueError as e:
            raise ValueError(f'--config must be a file or a recipe: {e}') from e
        config = read_config(path)
        rest = ['--config', str(path), *rest]

    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument('--device-modules', nargs='+')
    modules = parser.parse_known_args(rest)[0].device_modules or config.get('device_modules') or []
    if not isinstance(modules, list):
        raise ValueError(f'device_modules must be a list of modules, got {modules!r}')
    return rest if HOOK in modules else [*rest, '--device-modules', *modules, HOOK]


def check_config(path: Path, arguments: Sequence[str]) -> None:
    """Refuse a configuration with a key that is no argument of the script; nothing where its arguments are not plain.

    Raises:
        ValueError: See :func:`~timm_assemble.recipes.check_keys`.
    """
    config, _ = _split_config(arguments)
    known = argument_names(path)
    if config and known is not None:
        check_keys(read_config(config), known, config)


def run_script(path: Path, arguments: Sequence[str]) -> None:
    """Run a script as ``python path arguments`` would, with its exit status, but in this process; says which it is.

    A folder ``timm`` beside the script, as in a checkout of timm, is not imported in the place of the installed timm:
    the script's folder is the last place to look for modules and not the first. Worker processes look in the same
    places.

    Raises:
        ValueError, OSError: Raised by this package, for the user to mend.
        SystemExit: As the script raises it; with status 1 after any other error, whose traceback is printed.
    """
    if os.environ.get('RANK', '0') == '0':  # of torchrun's processes the first
        print(f'timm-assemble: running {path}', file=sys.stderr, flush=True)
    argv, places = sys.argv, list(sys.path)
    sys.argv = [str(path), *arguments]
    sys.path.append(str(path.parent))
    try:
        runpy.run_path(str(path), run_name='__main__')
    except Exception as e:
        if isinstance(e, (ValueError, OSError)) and _is_ours(e.__traceback__):
            raise
        traceback.print_exception(type(e), e, _from(path, e.__traceback__))
        sys.exit(1)
    finally:
        sys.argv, sys.path[:] = argv, places


def _is_ours(trace: Optional[TracebackType]) -> bool:
    frames = [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(trace)]
    return PACKAGE in frames[-1].parents


def _from(path: Path, trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """The part of a traceback that begins in the script."""
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename != str(path):
        part = part.tb_next
    return part or trace
