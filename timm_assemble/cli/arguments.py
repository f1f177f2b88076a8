"""What several commands share: argument types, split argument lists, and parameters named as options in messages."""
import argparse
import ast
import collections.abc
import os
import re
import shlex
import sys
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, get_args, get_origin

from ..data.images import printable
from ..errors import UserError

__all__ = [
    'MODEL_HELP', 'add_options', 'integer', 'key_value', 'name_options', 'non_negative', 'option_names',
    'option_of_path', 'path', 'positive', 'run_evaluation', 'take_options']

MODEL_HELP = ('name that timm has weights for, hf-hub:USER/NAME, local-dir:FOLDER, or NAME=CHECKPOINT; LABEL= before '
              'the last three gives a label')


def integer(minimum: int, text: str) -> int:
    """Parse an integer of ``minimum`` or more; with ``partial``, a ``type`` of argparse."""
    if not text.isdecimal() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f'must be an integer of {minimum} or more, got {text!r}')
    return int(text)


positive = partial(integer, 1)
non_negative = partial(integer, 0)


def key_value(text: str) -> Tuple[str, Any]:
    """Parse ``KEY=VALUE``; the value is a Python literal or a word."""
    key, equals, value = text.partition('=')
    if not (key and equals):
        raise argparse.ArgumentTypeError(f'must be KEY=VALUE, got {text!r}')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value  # a word without quotes


def take_options(argv: Sequence[str], flags: Sequence[str], with_value: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Split off options; both parts keep their order and spelling, which argparse's own ways of passing on do not."""
    own: List[str] = []
    rest: List[str] = []
    words = iter(argv)
    for word in words:
        if word in with_value:
            own += [word, *islice(words, 1)]
        else:
            (own if word in flags or word.partition('=')[0] in with_value else rest).append(word)
    return own, rest


def path(text: str) -> Path:
    """Parse a path; the empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''")
    return Path(text)


def _named_folder(text: str) -> Tuple[str, Path]:
    """Parse ``NAME=DIR``."""
    name, equals, folder = text.partition('=')
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f'must be NAME=DIR, got {text!r}')
    return name, Path(folder)


def _argument(kind: Any, about: Any) -> Dict[str, Any]:
    """Return what argparse needs for an option of a type."""
    if kind is bool:
        return dict(action='store_true')
    integers = {0: non_negative, 1: positive}.get(about.minimum, int)
    if get_origin(kind) is collections.abc.Mapping:
        return dict(type=_named_folder, nargs='+', metavar='NAME=DIR')
    if get_origin(kind) in (tuple, collections.abc.Sequence):
        return dict(type=positive if get_args(kind)[0] is int else str, nargs='+', metavar=about.metavar)
    named: Dict[str, Any] = dict(choices=about.choices) if about.choices else dict(metavar=about.metavar)
    return dict(named, type={int: integers, float: float, Path: path}.get(kind, str))


def add_options(parser: argparse.ArgumentParser, options: Any, output: str) -> None:
    """Add the options that an evaluation declares; ``output`` is the default of ``--output``."""
    from ..evaluation.options import declared

    defaults = dict(output=Path(output), workers=min(4, os.cpu_count() or 1))
    groups: Dict[str, Any] = {'': parser}
    for name, default, _, kind, about in declared(options):
        if not about.public:
            continue
        if about.group not in groups:
            groups[about.group] = parser.add_argument_group(about.group)
        default = defaults.get(name, default)
        text = re.sub(r'`(\w+)`', lambda m: '--' + m[1].replace('_', '-'), about.help).rstrip('.')
        if default not in (None, False):
            text += f' (default: {default})'
        groups[about.group].add_argument(f'--{name.replace("_", "-")}', default=default, help=text.replace('%', '%%'),
                                         **_argument(kind, about))


def run_evaluation(evaluate: Callable[..., Any], args: argparse.Namespace, consequence: str) -> None:
    """Measure and print; unreadable files are an error after the results are written.

    All ranks end together, after the first one has printed.
    """
    from ..evaluation.results import unreadable_line
    from ..runtime.ranks import Ranks

    options = {key: value for key, value in vars(args).items() if key not in ('command', 'options', 'passed')}
    for name, value in options.items():
        if isinstance(value, list) and value and isinstance(value[0], tuple):  # NAME=DIR
            if len(dict(value)) < len(value):
                raise UserError(f'{name} must have distinct names, got {", ".join(name for name, _ in value)}')
            options[name] = dict(value)
    with Ranks() as ranks:
        results = evaluate(**options, progress=True, command=shlex.join(['timm-assemble', *sys.argv[1:]]))
        if ranks.rank == 0:
            written = ', '.join(map(printable, sorted(os.listdir(args.output))))
            print(f'{results.tables()}\n\nwritten: {printable(args.output)}: {written}', flush=True)
        ranks.barrier()
    if results.unreadable:
        raise UserError(f'{unreadable_line(results.unreadable, consequence)}; the results are of the others')


def option_names(parser: argparse.ArgumentParser) -> Dict[str, str]:
    """Return what the user types for each argument of a parser: its long option, or its metavar."""
    return {action.dest: max(action.option_strings, key=len, default=str(action.metavar or action.dest))
            for action in parser._actions}


def _paths(value: Any) -> Iterator[str]:
    """Yield what may be a path in an argument."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _paths(part)
    elif isinstance(value, (str, Path)) and str(value):
        yield os.path.abspath(str(value).rpartition('=')[2])


def option_of_path(error: OSError, arguments: Mapping[str, Any], names: Mapping[str, str]) -> Optional[str]:
    """Return the option whose path an error of the operating system is about, None for none.

    The path is the option's, lies in it, or is a folder above it that could not be made.
    """
    for file in (error.filename, error.filename2):
        if not file:
            continue
        failed = Path(os.path.abspath(os.fsdecode(file)))
        for name, value in arguments.items():
            for path in map(Path, _paths(value)):
                if failed in (path, *path.parents) or path in failed.parents:
                    return names.get(name, name)
    return None


def name_options(message: str, names: Mapping[str, str]) -> str:
    """Translate parameters into options: the first word of a message, and every word between backticks.

    Library errors begin with the parameter that is wrong and put others between backticks.
    """
    first, space, rest = message.partition(' ')
    rest = re.sub(r'`(\w+)`', lambda m: names.get(m[1], m[0]), rest)
    return names.get(first, first) + space + rest
