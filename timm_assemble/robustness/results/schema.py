"""The schema of results.json, and the file's writing: what does not keep to it is not written. Knows jsonschema."""
import json
import os
from pathlib import Path
from typing import Any, Dict

__all__ = ['SCHEMA', 'SCHEMA_VERSION', 'check_results', 'write_results', 'write_whole']

SCHEMA_VERSION = 1
_PERCENT = dict(type='number', minimum=0, maximum=100)
_RATIO = dict(type='number', minimum=0)  # of errors, percent of the normaliser's
_NUMBER = dict(type='number')  # the same of what is added to the clean error, which may be negative
_TEXT = dict(type='string', minLength=1)
_COUNT = dict(type='integer', minimum=1)


def _object(required: Dict[str, Any]) -> Dict[str, Any]:
    return dict(type='object', properties=required, required=[*required], additionalProperties=False)


def _each(value: Dict[str, Any], names: str = '.') -> Dict[str, Any]:
    return dict(type='object', patternProperties={names: value}, additionalProperties=False)


def _or_null(value: Dict[str, Any]) -> Dict[str, Any]:
    return dict(anyOf=[value, dict(type='null')])


def _list(value: Dict[str, Any]) -> Dict[str, Any]:
    return dict(type='array', items=value)


_ERRORS = _object(dict(pictures=_COUNT, top1_error=_PERCENT, top5_error=_PERCENT, ece=_PERCENT))
_AGREEMENT = _object(dict(pictures=_COUNT, consistency=_PERCENT))
_CORRUPTION = _object(dict(
    severities=_each(_ERRORS, '^[1-5]$'), mean_error=_PERCENT, ce=_or_null(_RATIO), relative_ce=_or_null(_NUMBER)))
_PERTURBATION = _object(dict(
    films=_COUNT, flips=dict(type='integer', minimum=0), pairs=_COUNT, flip_rate=_PERCENT,
    flip_ratio=_or_null(_RATIO)))
_SHIFT = _object(dict(
    pixels=_COUNT, clean=_or_null(_AGREEMENT), corruptions=_each(_each(_AGREEMENT, '^[1-5]$'))))
_MODEL = _object(dict(
    label=_TEXT, source=_TEXT, architecture=_TEXT, checksum=dict(type='string', pattern='^[0-9a-f]{64}$'),
    num_classes=_COUNT, own_size=_COUNT, mean=_list(_NUMBER), std=_list(_NUMBER),
    clean=_or_null(_ERRORS), corruptions=_each(_CORRUPTION), perturbations=_each(_PERTURBATION), shift=_or_null(_SHIFT),
    mean_error=_or_null(_PERCENT), mean_ece=_or_null(_PERCENT), mce=_or_null(_RATIO), relative_mce=_or_null(_NUMBER),
    mean_flip_rate=_or_null(_PERCENT), mfr=_or_null(_RATIO)))
_PROTOCOL = _object(dict(
    name=_TEXT, text=_TEXT,
    pictures=dict(enum=['published', 'generated', 'none']),  # none: clean pictures or films alone
    corruptions=_list(_TEXT), perturbations=_list(_TEXT), severities=_list(_COUNT), input_size=_COUNT,
    seed=dict(type='integer'), precision=_TEXT, normaliser=_or_null(_TEXT)))
# `run` is the one part that differs between two runs of the same measurement
_RUN = _object(dict(
    date=_TEXT, command=_TEXT, device=_TEXT, batch_size=_COUNT, workers=dict(type='integer', minimum=0),
    processes=_COUNT, seconds=_each(_each(dict(type='number', minimum=0)))))  # model, cell: also those kept from before

SCHEMA: Dict[str, Any] = dict(
    {'$schema': 'https://json-schema.org/draft/2020-12/schema'},
    **_object(dict(
        schema_version=dict(const=SCHEMA_VERSION), versions=_each(_TEXT), protocol=_PROTOCOL,
        data=_each(_object(dict(folder=_TEXT, fingerprint=_TEXT, items=_COUNT, classes=_COUNT))),
        models=dict(type='array', items=_MODEL, minItems=1), notes=_list(_TEXT), run=_RUN)))


def check_results(results: Any) -> None:
    """Check what a results file holds.

    Raises:
        ValueError: Says where it breaks the schema.
    """
    import jsonschema

    try:
        jsonschema.validate(results, SCHEMA)
    except jsonschema.ValidationError as e:
        raise ValueError(f'results{e.json_path[1:]}: {e.message}') from e


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or as it was."""
    made = path.with_name(f'.{path.name}.{os.getpid()}')
    made.write_text(text, encoding='utf-8')
    os.replace(made, path)


def write_results(path: Path, results: Dict[str, Any]) -> None:
    """Check and write."""
    check_results(results)
    write_whole(path, json.dumps(results, indent=1, allow_nan=False) + '\n')
