"""95 % intervals of rates and means of independent values."""
from typing import Optional, Tuple

import numpy as np

__all__ = ['LEVEL', 'student', 'wilson']

LEVEL = 0.95


def wilson(rate: float, count: int) -> Tuple[float, float]:
    """Return Wilson's 95 % score interval of a rate in percent of so many independent images."""
    from scipy.stats import binomtest

    found = binomtest(round(rate * count / 100), count).proportion_ci(LEVEL, method='wilson')
    return 100 * float(found.low), 100 * float(found.high)


def student(values: np.ndarray) -> Optional[Tuple[float, float]]:
    """Return Student's 95 % interval of the mean of percents, within 0 and 100; None of fewer than two values."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return max(0.0, float(values.mean()) - half), min(100.0, float(values.mean()) + half)
