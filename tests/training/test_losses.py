"""Losses between student and teacher against loops over single numbers in float64."""
import numpy as np
import pytest
import torch

from timm_assemble.training import distillation_loss, dkd, standardize_logits
from timm_assemble.training.losses import LOSS_TYPES, soften

from .. import _oracles as oracle

BATCH = 6


def batch(classes, top_k, temperature, standardized, seed=0):
    """Student's logits, the teacher's probabilities of spread logits, and both as lists of floats."""
    rng = np.random.default_rng(seed)
    logits, teacher = 3 * rng.standard_normal((2, BATCH, classes))
    if top_k:
        teacher = np.log([oracle.spread_evenly(row, top_k) for row in teacher])
    rows = [oracle.softened(oracle.standardized(row) if standardized else row, temperature) for row in teacher]
    student = [oracle.standardized(row) if standardized else list(row) for row in logits]
    return torch.from_numpy(logits), soften(torch.from_numpy(teacher), temperature, standardized), student, rows


def mixed_labels(classes, smoothing, seed=0):
    """Class weights of pairs, one pair of a class with itself and one image that is not mixed; and what was mixed."""
    rng = np.random.default_rng(seed)
    pairs = [(0, 1, 0.3), (2, 2, 0.6), (1, 0, 1.0), *((*rng.choice(classes, 2, False), rng.random()) for _ in range(3))]
    weights, mixtures = torch.zeros(BATCH, classes), []
    for i, (first, second, weight) in enumerate(pairs):
        both = oracle.smoothed(np.array([first, second]), classes, smoothing)
        weights[i] = torch.from_numpy(weight * both[0] + (1 - weight) * both[1])
        mixtures.append({first: 1.0} if first == second else {first: weight, second: 1 - weight})
    return weights, mixtures


@pytest.mark.parametrize('temperature', [1.0, 3.0])
@pytest.mark.parametrize('top_k', [0, 2])
@pytest.mark.parametrize('name', LOSS_TYPES)
def test_loss_equals_the_papers_formula(name, top_k, temperature):
    """For class indices, mixed labels and mixed smoothed labels."""
    classes, loss = 7, distillation_loss(name)
    logits, probs, student, rows = batch(classes, top_k, temperature, loss.standardized)
    indices = torch.tensor([0, 1, 2, 3, 6, 6])
    cases = [(indices, [{int(i): 1.0} for i in indices]), *(mixed_labels(classes, s) for s in (0.0, 0.1))]
    for labels, mixtures in cases:
        expected = oracle.distillation_loss(loss.name, student, rows, mixtures, temperature)
        assert loss(logits.float(), probs, labels, temperature).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize('name', LOSS_TYPES)
def test_loss_vanishes_for_the_teachers_logits_and_gradients_are_finite(name):
    """The cross entropy is then the teacher's entropy. One teacher is certain: all its probability is one class's."""
    loss = distillation_loss(name)
    teacher = torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(0))
    teacher[0] = torch.tensor([0.0, *4 * [-65504.0]])
    probs = soften(teacher, 2.0, loss.standardized)
    value = loss(teacher, probs, torch.zeros(BATCH, dtype=torch.long), 2.0)
    entropy = -4 * torch.special.xlogy(probs, probs).sum(1).mean().item()
    assert value.item() == pytest.approx(entropy if loss.name == 'ce' else 0, abs=2e-5)
    logits = torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss(logits, probs, torch.tensor([0, 0, 1, 2, 3, 4]), 2.0).backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().max() > 1e-4


@pytest.mark.parametrize('scale, shift', [(0.1, 0), (10, -5), (3, 5)])
def test_standardized_logits_have_no_scale_and_no_mean(scale, shift):
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(standardize_logits(scale * logits + shift), standardize_logits(logits), atol=1e-4)
    assert standardize_logits(torch.full((2, 4), float(shift))).abs().max() == 0


@pytest.mark.parametrize('name', ['KL', 'mse', '', 'kl+', 'dkd+standard', '+std'])
def test_unknown_names_are_rejected(name):
    with pytest.raises(ValueError) as e:
        distillation_loss(name)
    assert str(e.value).startswith('loss_type must be one of kl, ce, dist, dkd, ') and f', got {name!r}' in str(e.value)


def test_dkd_needs_three_classes():
    with pytest.raises(ValueError, match='logits must have 3 classes or more for dkd, got 2'):
        dkd(torch.zeros(1, 2), torch.full((1, 2), 0.5), torch.tensor([0]))
