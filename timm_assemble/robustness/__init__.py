"""Robustness and calibration of any image classifier."""
from .evaluation import evaluate
from .results.report import Results

__all__ = ['Results', 'evaluate']
