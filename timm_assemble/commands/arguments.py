"""Argument types that several commands share: text to value, or argparse's error that says what is allowed."""
import argparse
import ast
from typing import Any, Tuple

__all__ = ['positive', 'key_value']


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
