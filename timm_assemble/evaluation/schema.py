"""Parts of the JSON schemas of results.json, and their check."""
from typing import Any, Dict

from ..errors import UserError
from .requirements import check_packages

__all__ = [
    'CHECKSUM', 'COUNT', 'NATURAL', 'NUMBER', 'PERCENT', 'RATIO', 'TEXT', 'check', 'each', 'list_of', 'object_of',
    'or_null']

PERCENT = dict(type='number', minimum=0, maximum=100)
RATIO = dict(type='number', minimum=0)  # of errors, percent of the baseline's
NUMBER = dict(type='number')  # the same of errors added to the clean one, which may be negative
TEXT = dict(type='string', minLength=1)
COUNT = dict(type='integer', minimum=1)
NATURAL = dict(type='integer', minimum=0)
CHECKSUM = dict(type='string', pattern='^[0-9a-f]{64}$')


def object_of(**required: Any) -> Dict[str, Any]:
    """Return an object with exactly these keys."""
    return dict(type='object', properties=required, required=[*required], additionalProperties=False)


def each(value: Dict[str, Any], names: str = '.') -> Dict[str, Any]:
    """Return an object of any keys that match ``names``, with such values."""
    return dict(type='object', patternProperties={names: value}, additionalProperties=False)


def or_null(value: Dict[str, Any]) -> Dict[str, Any]:
    """Return such a value or null."""
    return dict(anyOf=[value, dict(type='null')])


def list_of(value: Dict[str, Any]) -> Dict[str, Any]:
    """Return an array of such values."""
    return dict(type='array', items=value)


def check(results: Any, schema: Dict[str, Any], extra: str) -> None:
    """Check results against a schema; the ValueError names where they break it, or the ``extra`` that is missing."""
    check_packages(extra, 'jsonschema')
    import jsonschema

    try:
        jsonschema.validate(results, schema)
    except jsonschema.ValidationError as e:
        raise UserError(f'results{e.json_path[1:]}: {e.message}') from e
