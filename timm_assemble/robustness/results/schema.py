"""The JSON schema of results.json."""
from typing import Any, Dict

__all__ = ['SCHEMA', 'SCHEMA_VERSION', 'check_results']

SCHEMA_VERSION = 3
_PERCENT = dict(type='number', minimum=0, maximum=100)
_RATIO = dict(type='number', minimum=0)  # of errors, percent of the baseline's
_NUMBER = dict(type='number')  # the same of errors added to the clean one, which may be negative
_TEXT = dict(type='string', minLength=1)
_COUNT = dict(type='integer', minimum=1)
_NATURAL = dict(type='integer', minimum=0)


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
    flip_ratio=_or_null(_RATIO), top5_distance=_RATIO, top5_ratio=_or_null(_RATIO))
_SHIFT = _object(pixels=_COUNT, clean=_or_null(_AGREEMENT), corruptions=_each(_each(_AGREEMENT, '^[1-5]$')))
_REFERENCE = dict(images=_COUNT, top1_error=_PERCENT, top5_error=_PERCENT, ece=_PERCENT, predicted_among=_TEXT)
_TEST_SET = _object(**_REFERENCE, reference=_or_null(_TEXT), top1_diff=_or_null(_NUMBER), top5_diff=_or_null(_NUMBER))
_DETECTION = _object(auroc=_PERCENT, aupr=_PERCENT, fpr95=_PERCENT)
_OOD = _object(images=_COUNT, predicted_among=_TEXT, msp=_DETECTION, energy=_DETECTION)
_INTERVAL = _or_null(dict(type='array', items=_NUMBER, minItems=2, maxItems=2))
_BIN = _object(images=_NATURAL, accuracy=_or_null(_PERCENT), confidence=_or_null(_PERCENT))
_STATISTICS = _object(
    resamples=_COUNT, intervals=_each(_INTERVAL),  # by the path of a number in the model's results
    temperature=_or_null(_object(
        temperature=_RATIO, fitted_images=_COUNT, images=_COUNT, ece_before=_PERCENT, ece_after=_PERCENT)),
    reliability=_each(_list(_BIN)),
    per_class=_each(_each(_object(images=_COUNT, top1=_PERCENT))))
_COMPARISON = _object(
    models=dict(type='array', items=_TEXT, minItems=2, maxItems=2),
    differences=_each(_object(difference=_NUMBER, interval=_INTERVAL)),
    mcnemar=_each(_object(images=_COUNT, only_first_right=_NATURAL, only_second_right=_NATURAL, p_value=_RATIO)))
_MODEL = _object(
    label=_TEXT, source=_TEXT, num_classes=_COUNT,
    # null for a callable
    architecture=_or_null(_TEXT), checksum=_or_null(dict(type='string', pattern='^[0-9a-f]{64}$')),
    own_size=_or_null(_COUNT), parameters=_or_null(_COUNT), mean=_or_null(_list(_NUMBER)),
    std=_or_null(_list(_NUMBER)),
    clean=_or_null(_ERRORS), corruptions=_each(_CORRUPTION), perturbations=_each(_PERTURBATION), shift=_or_null(_SHIFT),
    references=_each(_object(**_REFERENCE)), test_sets=_each(_TEST_SET), ood=_each(_OOD),
    mean_error=_or_null(_PERCENT), mean_ece=_or_null(_PERCENT), ece_by_severity=_each(_PERCENT, '^[1-5]$'),
    mce=_or_null(_RATIO), relative_mce=_or_null(_NUMBER), mean_flip_rate=_or_null(_PERCENT), mfr=_or_null(_RATIO),
    mean_top5_distance=_or_null(_RATIO), mt5d=_or_null(_RATIO), statistics=_or_null(_STATISTICS))
_PROTOCOL = _object(
    name=_TEXT, text=_TEXT,
    images=dict(enum=['published', 'generated', 'none']),  # of corruptions
    corruptions=_list(_TEXT), perturbations=_list(_TEXT), severities=_list(_COUNT), input_size=_COUNT,
    crop_pct=_RATIO, seed=dict(type='integer'), precision=_TEXT, baseline=_or_null(_TEXT))
# `run` is the one part that differs between two runs of the same measurement
_RUN = _object(
    date=_TEXT, command=_TEXT, device=_TEXT, batch_size=_COUNT, workers=dict(type='integer', minimum=0),
    world_size=_COUNT, seconds=_each(_each(dict(type='number', minimum=0))))  # by model and task, cached ones too

SCHEMA: Dict[str, Any] = dict(
    {'$schema': 'https://json-schema.org/draft/2020-12/schema'},
    **_object(
        schema_version=dict(const=SCHEMA_VERSION), versions=_each(_TEXT), protocol=_PROTOCOL,
        data=_each(_object(folder=_TEXT, fingerprint=_TEXT, items=_COUNT, classes=_COUNT)),
        measurement=dict(type='string', pattern='^[0-9a-f]{64}$'),  # equal for two runs of the same measurement
        unreadable=_list(_object(path=_TEXT, reason=_TEXT, tasks=_COUNT)),
        models=dict(type='array', items=_MODEL, minItems=1), comparisons=_list(_COMPARISON),
        notes=_list(_TEXT), run=_RUN))


def check_results(results: Any) -> None:
    """Check results against the schema; the ValueError names where they break it."""
    try:
        import jsonschema
    except ModuleNotFoundError as e:
        raise ValueError(f"robustness needs {e.name}: pip install 'timm-assemble[robustness]'") from e
    try:
        jsonschema.validate(results, SCHEMA)
    except jsonschema.ValidationError as e:
        raise ValueError(f'results{e.json_path[1:]}: {e.message}') from e
