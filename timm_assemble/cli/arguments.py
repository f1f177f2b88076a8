"""What several commands share: argument types, split argument lists, and parameters named as options in messages."""
import argparse
import ast
import os
import re
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

__all__ = [
    'MODEL_HELP', 'integer', 'key_value', 'name_options', 'non_negative', 'option_names', 'option_of_path', 'positive',
    'take_options']

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
