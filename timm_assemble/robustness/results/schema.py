"""The JSON schema of results.json."""
from typing import Any, Dict

__all__ = ['SCHEMA', 'SCHEMA_VERSION', 'check_results']

SCHEMA_VERSION = 2
_PERCENT = dict(type='number', minimum=0, maximum=100)
_RATIO = dict(type='number', minimum=0)  # of errors, percent of the baseline's
_NUMBER = dict(type='number')  # the same of errors added to the clean one, which may be negative
_TEXT = dict(type='string', minLength=1)
_COUNT = dict(type='integer', minimum=1)


def _object(**required: Any) -> Dict[str, Any]:
    return dict(type='object', properties=required, required=[*required], additionalProperties=False)


def _each(value: Dict[str, Any], names: str = '.') -> Dict[str, Any]:
    return dict(type='object', patternProperties={names: value}, additionalProperties=False)


def _or_null(value: Dict[str, Any]) -> Dict[str, Any]:
    return dict(anyOf=[value, dict(type='null')])


def _list(value: Dict[str, Any]) -> Dict[str, Any]:
    return dict(type='array', items=value)


_ERRORS = _object(images=_COUNT, top1_error=_PERCENT, top5_error=_PERCENT, ece=_PERCENT)
_AGREEMENT = _object(images=_COUNT, consistency=_PERCENT)
_CORRUPTION = _object(
    severities=_each(_ERRORS, '^[1-5]$'), mean_error=_PERCENT, ce=_or_null(_RATIO), relative_ce=_or_null(_NUMBER))
_PERTURBATION = _object(
    sequences=_COUNT, flips=dict(type='integer', minimum=0), pairs=_COUNT, flip_rate=_PERCENT,
    flip_ratio=_or_null(_RATIO))
_SHIFT = _object(pixels=_COUNT, clean=_or_null(_AGREEMENT), corruptions=_each(_each(_AGREEMENT, '^[1-5]$')))
_MODEL = _object(
    label=_TEXT, source=_TEXT, num_classes=_COUNT,
    # null for a callable
    architecture=_or_null(_TEXT), checksum=_or_null(dict(type='string', pattern='^[0-9a-f]{64}$')),
    own_size=_or_null(_COUNT), mean=_or_null(_list(_NUMBER)), std=_or_null(_list(_NUMBER)),
    clean=_or_null(_ERRORS), corruptions=_each(_CORRUPTION), perturbations=_each(_PERTURBATION), shift=_or_null(_SHIFT),
    mean_error=_or_null(_PERCENT), mean_ece=_or_null(_PERCENT), mce=_or_null(_RATIO), relative_mce=_or_null(_NUMBER),
    mean_flip_rate=_or_null(_PERCENT), mfr=_or_null(_RATIO))
_PROTOCOL = _object(
    name=_TEXT, text=_TEXT,
    images=dict(enum=['published', 'generated', 'none']),  # of corruptions
    corruptions=_list(_TEXT), perturbations=_list(_TEXT), severities=_list(_COUNT), input_size=_COUNT,
    seed=dict(type='integer'), precision=_TEXT, baseline=_or_null(_TEXT))
# `run` is the one part that differs between two runs of the same measurement
_RUN = _object(
    date=_TEXT, command=_TEXT, device=_TEXT, batch_size=_COUNT, workers=dict(type='integer', minimum=0),
    world_size=_COUNT, seconds=_each(_each(dict(type='number', minimum=0))))  # by model and task, cached ones too

SCHEMA: Dict[str, Any] = dict(
    {'$schema': 'https://json-schema.org/draft/2020-12/schema'},
    **_object(
        schema_version=dict(const=SCHEMA_VERSION), versions=_each(_TEXT), protocol=_PROTOCOL,
        data=_each(_object(folder=_TEXT, fingerprint=_TEXT, items=_COUNT, classes=_COUNT)),
        models=dict(type='array', items=_MODEL, minItems=1), notes=_list(_TEXT), run=_RUN))


def check_results(results: Any) -> None:
    """Check results against the schema; the ValueError names where they break it."""
    import jsonschema

    try:
        jsonschema.validate(results, SCHEMA)
    except jsonschema.ValidationError as e:
        raise ValueError(f'results{e.json_path[1:]}: {e.message}') from e
