"""Robustness to corruptions, perturbations and shifts, and calibration.

``metrics`` is the arithmetic, ``evaluator`` takes any callable from pictures to logits; only ``models`` knows timm.
"""
