"""Out-of-distribution detection, from one score for each image."""
from typing import Any, Dict, Optional, Sequence

import numpy as np

from ..tasks.cache import CachedResult
from ..tasks.task import Records

__all__ = ['SCORES', 'detection_metrics', 'with_detection']

# Hendrycks and Gimpel, ICLR 2017: maximum softmax probability; Liu et al., NeurIPS 2020: energy. Larger is inside.
SCORES = dict(msp='confidence', energy='energy')


def detection_metrics(
        inside: np.ndarray, outside: np.ndarray, inside_weights: Optional[np.ndarray] = None,
        outside_weights: Optional[np.ndarray] = None,
) -> Dict[str, float]:
    """Return how well a score tells images of the classes from others, in percent.

    Args:
        inside: (N,) scores of images of the classes; larger ones are to be inside.
        outside: (M,) scores of the others.
        inside_weights: How often each image counts; once if None.
        outside_weights: The same of the others.

    Returns:
        ``auroc``; ``aupr`` with the others as positives; ``fpr95``, the percent of the others above the threshold that
        keeps 95 % of the images of the classes.
    """
    from sklearn import config_context
    from sklearn.metrics import auc, average_precision_score, roc_curve

    scores = np.concatenate([inside, outside]).astype(np.float64)
    is_inside = np.arange(len(scores)) < len(inside)
    weights = np.concatenate([
        np.ones(len(part)) if given is None else given
        for part, given in ((inside, inside_weights), (outside, outside_weights))])
    with config_context(assume_finite=True, skip_parameter_validation=True):  # a thousand resamples of small sets
        false, true, _ = roc_curve(is_inside, scores, sample_weight=weights, drop_intermediate=False)
        aupr = average_precision_score(~is_inside, -scores, sample_weight=weights)
    # cumulated weights end a little below or above 1
    return {name: 100 * min(1.0, float(value)) for name, value in dict(
        auroc=auc(false, true), aupr=aupr, fpr95=false[np.argmax(true >= 0.95 - 1e-12)]).items()}


def detect(inside: Records, outside: Records, *weights: np.ndarray) -> Dict[str, Any]:
    """Return :func:`detection_metrics` of each score."""
    return {name: detection_metrics(inside[key], outside[key], *weights) for name, key in SCORES.items()}


def reference_of(name: str, results: Sequence[CachedResult]) -> CachedResult:
    """Return the clean images that a test set compares with: those of its own classes, or all."""
    by_name = {result.task.name: result for result in results if result.task.group in ('clean', 'reference')}
    return by_name.get(f'{name}-clean') or by_name['clean']


def with_detection(results: Sequence[CachedResult]) -> Sequence[CachedResult]:
    """Return a model's results, whose metrics of other images say how well they are told from clean ones."""
    return [result._replace(metrics=dict(
        images=len(result.records['item']),
        **detect(reference_of(result.task.name, results).records, result.records)))
        if result.task.group == 'ood' else result for result in results]
