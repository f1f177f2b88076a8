"""Robustness and calibration of any image classifier."""
from .evaluation import evaluate
from .results import Results

__all__ = ['Results', 'evaluate']
