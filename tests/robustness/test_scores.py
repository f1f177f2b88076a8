"""Proper scores and selection: loops, other libraries on a trained network, and how often the intervals hold."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from timm_assemble.data.preprocessing import normalize
from timm_assemble.robustness import evaluate, statistics
from timm_assemble.robustness.statistics import Drawn, image_scores
from timm_assemble.robustness.test_sets import synsets

from .. import _oracles as oracles
from .._trained import lite0

LOGITS = st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4)


def drawn(confidence, hits, weights=None):
    """Return images drawn, once each if ``weights`` is None."""
    confidence, hits = np.array(confidence, np.float32), np.array(hits, bool)
    records = dict(confidence=confidence, hit1=hits, hit5=hits, nll=confidence, brier=confidence)
    return Drawn(records, np.ones((1, len(hits))) if weights is None else weights)


@settings(deadline=None)
@given(LOGITS, st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_scores_are_those_of_a_loop_over_the_classes(logits, right):
    columns = torch.tensor([[*right, *[-1] * (4 - len(right))]])
    got = image_scores(torch.tensor([logits]), columns)
    nll, brier = oracles.scores(oracles.softened(logits), right)
    assert got['nll'].item() == pytest.approx(nll, abs=1e-5) and got['brier'].item() == pytest.approx(brier, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40), st.data())
def test_selection_is_that_of_a_loop_in_any_order_and_for_images_drawn_twice(images, data):
    """Many images are equally confident."""
    confidence, hits = [c / 12 for c, _ in images], [h for _, h in images]
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(hits), max_size=len(hits)).filter(any))
    got = drawn(confidence, hits, np.array([np.ones(len(hits)), times], float)).by_confidence
    repeated = [[v for v, n in zip(values, times) for _ in range(n)] for values in (confidence, hits)]
    for i, expected in enumerate((oracles.selection(confidence, hits), oracles.selection(*repeated))):
        assert {name: values[i] for name, values in got.items()} == pytest.approx(expected, abs=1e-4)


def test_trained_network_on_photos_has_the_scores_of_other_libraries(tmp_path):
    model, photos = lite0()
    for path, label in photos:
        target = tmp_path / 'photos' / synsets()[label] / f'{path.stem}.png'
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert('RGB').save(target)
    seen = []

    def classify(images):
        seen.append(model(normalize(images, torch.tensor((127 / 255,) * 3).view(3, 1, 1),
                                    torch.tensor((128 / 255,) * 3).view(3, 1, 1))))
        return seen[-1]
    results = evaluate(dict(lite0=classify), clean=tmp_path / 'photos')
    logits = torch.cat(seen[1:])  # the first is a trial
    labels = torch.tensor(sorted(label for _, label in photos))
    got, probabilities = results.to_dict()['models'][0]['clean'], logits.softmax(1)
    hits = (logits.argmax(1) == labels).tolist()
    expected = dict(
        oracles.selection(probabilities.amax(1).tolist(), hits), images=20, top1_error=100 - 5 * sum(hits),
        nll=torch.nn.functional.cross_entropy(logits, labels).item(),
        brier=100 * brier_score_loss(labels.numpy(), logits.double().softmax(1).numpy(), labels=range(1000)),
        ece=100 * multiclass_calibration_error(probabilities, labels, 1000, n_bins=15).item())
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-4) and sum(hits) >= 17
    # torch-uncertainty 0.13's AURC is the trapezoid from the most confident image to all
    errors = 1 - np.array(hits)[probabilities.amax(1).argsort(descending=True).numpy()]
    risks = 100 * errors.cumsum() / np.arange(1, 21)
    assert got['aurc'] == pytest.approx(risks.mean(), abs=1e-4)


def population(rng, images):
    """Return records of an overconfident model, whose NLL has a long tail."""
    confidence = rng.beta(3, 1, images).astype(np.float32)
    hits = rng.random(images) < confidence ** 1.5
    nll = np.where(hits, -np.log(confidence), rng.exponential(1, images) - np.log1p(1e-3 - confidence))
    return dict(confidence=confidence, hit1=hits, hit5=hits, nll=nll, brier=nll, item=np.arange(images))


def coverage(images, sets, resamples):
    """Return how often the intervals of NLL, AURC and accuracy at 80 % hold the true value, in percent of the sets."""
    names = ('nll', 'aurc', 'accuracy_at_80')
    rng, held = np.random.default_rng(0), dict.fromkeys(names, 0)
    true = Drawn(population(rng, 10 ** 6), np.ones((1, 10 ** 6))).metrics()
    for _ in range(sets):
        weights = rng.multinomial(images, np.full(images, 1 / images), resamples).astype(float)
        found = Drawn(population(rng, images), weights).metrics()
        for name in names:
            low, high = statistics.percentiles(found[name])
            held[name] += low <= true[name].item() <= high
    return {name: 100 * count / sets for name, count in held.items()}


def test_intervals_of_scores_hold_the_true_value():
    assert min(coverage(400, 60, 150).values()) >= 85  # 57 of 60 are expected; fewer than 51 have a chance of 0.003
