"""Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2)."""
import numpy as np

from .classify import split_halves
from .task import Records

__all__ = ['calibrate', 'fit_temperature']

LOG_RANGE = (-4.0, 4.0)  # temperatures from 0.018 to 55


def fit_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """Return the temperature of the least negative log-likelihood: logits are divided by it.

    Args:
        logits: (N, C).
        classes: (N,) right columns of the logits.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    values = logits.astype(np.float64)
    rows = np.arange(len(values))

    def loss(log_temperature: float) -> float:
        return -float(np.mean(log_softmax(values * np.exp(-log_temperature), axis=1)[rows, classes]))
    return float(np.exp(minimize_scalar(loss, bounds=LOG_RANGE, method='bounded', options=dict(xatol=1e-6)).x))


def calibrate(records: Records) -> Records:
    """Replace the logits of all files by the confidence at a temperature that is fitted on every second file.

    Returns:
        The records with ``calibrated``, each file's confidence at the temperature, and ``temperature``, the same value
        for all files.
    """
    from scipy.special import softmax

    records = dict(records)
    logits, columns = records.pop('logits'), records.pop('column')
    fitted, _ = split_halves(records['item'])
    if not fitted.any():  # the first file alone cannot be read
        fitted = ~fitted
    temperature = fit_temperature(logits[fitted], columns[fitted])
    calibrated = np.concatenate([  # in parts: the probabilities in float64 are twice the logits
        softmax(logits[i:i + 1024].astype(np.float64) / temperature, axis=1).max(1).astype(np.float32)
        for i in range(0, len(logits), 1024)])
    return dict(records, calibrated=calibrated, temperature=np.full(len(logits), temperature))
