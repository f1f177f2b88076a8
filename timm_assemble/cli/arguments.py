"""What several commands share of arguments: types, text to value or argparse's error that says what is allowed; and the
parting of a command's own from those of a script.
"""
import argparse
import ast
from typing import Any, List, Sequence, Tuple

__all__ = ['positive', 'key_value', 'take_options']


def positive(text: str) -> int:
    """Whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number from 1, got {text!r}')
    return int(text)


def key_value(text: str) -> Tuple[str, Any]:
    """``KEY=VALUE`` with a Python literal or a word as the value."""
    key, equals, value = text.partition('=')
    if not (key and equals):
        raise argparse.ArgumentTypeError(f'must be KEY=VALUE, got {text!r}')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value  # a word without quotes


def take_options(argv: Sequence[str], flags: Sequence[str], with_value: Sequence[str]) -> Tuple[List[str], List[str]]:
    """Options and what is left, both in order and untouched, which argparse's own ways of passing on do not keep."""
    own: List[str] = []
    rest: List[str] = []
    left = list(argv)
    while left:
        word = left.pop(0)
        if word in flags or word.startswith(tuple(f'{option}=' for option in with_value)):
            own.append(word)
        elif word in with_value:
            own += [word, *left[:1]]
            left = left[1:]
        else:
            rest.append(word)
    return own, rest
