"""The JSON schema of results.json."""
from typing import Any, Dict

from ...evaluation.schema import (
    CHECKSUM, COUNT, NATURAL, NUMBER, PERCENT, RATIO, TEXT, check, each, list_of, object_of, or_null,
)

__all__ = ['SCHEMA', 'SCHEMA_VERSION', 'check_results']

SCHEMA_VERSION = 3
_ERRORS = object_of(images=COUNT, top1_error=PERCENT, top5_error=PERCENT, ece=PERCENT)
_AGREEMENT = object_of(images=COUNT, consistency=PERCENT)
_CORRUPTION = object_of(
    severities=each(_ERRORS, '^[1-5]$'), mean_error=PERCENT, ce=or_null(RATIO), relative_ce=or_null(NUMBER))
_PERTURBATION = object_of(
    sequences=COUNT, flips=NATURAL, pairs=COUNT, flip_rate=PERCENT,
    flip_ratio=or_null(RATIO), top5_distance=RATIO, top5_ratio=or_null(RATIO))
_SHIFT = object_of(pixels=COUNT, clean=or_null(_AGREEMENT), corruptions=each(each(_AGREEMENT, '^[1-5]$')))
_REFERENCE = dict(images=COUNT, top1_error=PERCENT, top5_error=PERCENT, ece=PERCENT, predicted_among=TEXT)
_TEST_SET = object_of(**_REFERENCE, reference=or_null(TEXT), top1_diff=or_null(NUMBER), top5_diff=or_null(NUMBER))
_DETECTION = object_of(auroc=PERCENT, aupr=PERCENT, fpr95=PERCENT)
_OOD = object_of(images=COUNT, predicted_among=TEXT, msp=_DETECTION, energy=_DETECTION)
_INTERVAL = or_null(dict(type='array', items=NUMBER, minItems=2, maxItems=2))
_BIN = object_of(images=NATURAL, accuracy=or_null(PERCENT), confidence=or_null(PERCENT))
_STATISTICS = object_of(
    resamples=COUNT, intervals=each(_INTERVAL),  # by the path of a number in the model's results
    temperature=or_null(object_of(
        temperature=RATIO, fitted_images=COUNT, images=COUNT, ece_before=PERCENT, ece_after=PERCENT)),
    reliability=each(list_of(_BIN)),
    per_class=each(each(object_of(images=COUNT, top1=PERCENT))))
_COMPARISON = object_of(
    models=dict(type='array', items=TEXT, minItems=2, maxItems=2),
    differences=each(object_of(difference=NUMBER, interval=_INTERVAL)),
    mcnemar=each(object_of(images=COUNT, only_first_right=NATURAL, only_second_right=NATURAL, p_value=RATIO)))
_MODEL = object_of(
    label=TEXT, source=TEXT, num_classes=COUNT,
    # null for a callable
    architecture=or_null(TEXT), checksum=or_null(CHECKSUM),
    own_size=or_null(COUNT), parameters=or_null(COUNT), mean=or_null(list_of(NUMBER)),
    std=or_null(list_of(NUMBER)),
    clean=or_null(_ERRORS), corruptions=each(_CORRUPTION), perturbations=each(_PERTURBATION), shift=or_null(_SHIFT),
    references=each(object_of(**_REFERENCE)), test_sets=each(_TEST_SET), ood=each(_OOD),
    mean_error=or_null(PERCENT), mean_ece=or_null(PERCENT), ece_by_severity=each(PERCENT, '^[1-5]$'),
    mce=or_null(RATIO), relative_mce=or_null(NUMBER), mean_flip_rate=or_null(PERCENT), mfr=or_null(RATIO),
    mean_top5_distance=or_null(RATIO), mt5d=or_null(RATIO), statistics=or_null(_STATISTICS))
_PROTOCOL = object_of(
    name=TEXT, text=TEXT,
    images=dict(enum=['published', 'generated', 'none']),  # of corruptions
    corruptions=list_of(TEXT), perturbations=list_of(TEXT), severities=list_of(COUNT), input_size=COUNT,
    crop_pct=RATIO, seed=dict(type='integer'), precision=TEXT, baseline=or_null(TEXT))
# `run` is the one part that differs between two runs of the same measurement
_RUN = object_of(
    date=TEXT, command=TEXT, device=TEXT, batch_size=COUNT, workers=NATURAL,
    world_size=COUNT, seconds=each(each(dict(type='number', minimum=0))))  # by model and task, cached ones too

SCHEMA: Dict[str, Any] = dict(
    {'$schema': 'https://json-schema.org/draft/2020-12/schema'},
    **object_of(
        schema_version=dict(const=SCHEMA_VERSION), versions=each(TEXT), protocol=_PROTOCOL,
        data=each(object_of(folder=TEXT, fingerprint=TEXT, items=COUNT, classes=COUNT)),
        measurement=CHECKSUM,  # equal for two runs of the same measurement
        unreadable=list_of(object_of(path=TEXT, reason=TEXT, tasks=COUNT)),
        models=dict(type='array', items=_MODEL, minItems=1), comparisons=list_of(_COMPARISON),
        notes=list_of(TEXT), run=_RUN))


def check_results(results: Any) -> None:
    """Check results against the schema; the ValueError names where they break it."""
    check(results, SCHEMA, 'robustness')
