"""Robustness to corruptions, perturbations and shifts, and calibration, of any classifier."""
from .evaluation import evaluate
from .results.report import Results

__all__ = ['Results', 'evaluate']
