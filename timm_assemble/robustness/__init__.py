"""Robustness and calibration of any image classifier."""
from .evaluation import evaluate
from .results import Results
from .table import make_table

__all__ = ['Results', 'evaluate', 'make_table']
