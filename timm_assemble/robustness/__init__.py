"""Robustness and calibration of any image classifier."""
from .evaluation import evaluate
from .results.merge import merge
from .results.report import Results

__all__ = ['Results', 'evaluate', 'merge']
