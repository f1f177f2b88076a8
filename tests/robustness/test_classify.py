"""Errors and calibration against counting by hand, and wrong logits."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from timm_assemble.robustness.protocols import Steps
from timm_assemble.robustness.statistics import calibration_bins
from timm_assemble.robustness.tasks import CleanTask, error_records
from timm_assemble.robustness.test_sets import LabelMap

from .. import _oracles as oracles


def measure_errors(classify, batches, label_map=None):
    """Return the metrics of batches of images and folders."""
    parts = [error_records(classify, images, folders, label_map) for images, folders, *_ in batches]
    return metrics({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def metrics(records, weights=None):
    """Return the metrics of records, or of weighted ones."""
    task = CleanTask('clean', None, 0, '', '', (), Steps(0, 1, (1, 1)), parameter='clean')
    found = task.metrics(records, np.ones((1, len(records['hit1']))) if weights is None else weights)
    return {name: value.item() for name, value in found.items()}


def batch(logits, classes):
    """Return images whose pixels number them, and the callable to their logits."""
    images = torch.arange(len(logits), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return images, torch.tensor(classes), lambda images: logits[images[:, 0, 0, 0].long()]


def test_errors_are_counted_as_by_hand():
    torch.manual_seed(0)
    logits = torch.randn(40, 7) * 2
    classes = torch.randint(0, 7, (40,)).tolist()
    images, target, classify = batch(logits, classes)
    got = measure_errors(classify, [(images[:13], target[:13]), (images[13:], target[13:], 'more')])
    order = logits.argsort(1, descending=True).tolist()
    wrong1 = sum(order[i][0] != classes[i] for i in range(40))
    wrong5 = sum(classes[i] not in order[i][:5] for i in range(40))
    assert (got['images'], got['top1_error'], got['top5_error']) == (40, 2.5 * wrong1, 2.5 * wrong5)
    assert 0 < wrong5 < wrong1 < 40
    confidence, predicted = logits.softmax(1).max(1)
    hits = [p == c for p, c in zip(predicted.tolist(), classes)]
    assert got['ece'] == pytest.approx(100 * oracles.calibration_error(confidence.tolist(), hits, 15), abs=1e-4)


def test_full_confidence_is_in_the_last_bin_of_the_calibration_error():
    """Half have confidence 1, half of these are right; the rest is nearly 1: one bin."""
    logits = torch.tensor([[40., 0.]] * 4 + [[3., 0.]] * 4)
    images, target, classify = batch(logits, [0, 0, 1, 1, 0, 0, 0, 0])
    assert logits.softmax(1).max() == 1 and logits.softmax(1)[-1, 0] > 14 / 15
    got = measure_errors(classify, [(images, target)])
    confidence = float(logits.softmax(1).max(1).values.mean())
    assert got['top1_error'] == 25 and got['ece'] == pytest.approx(100 * abs(0.75 - confidence), abs=1e-4)


def test_label_map_is_from_folders_to_the_models_classes():
    images, target, classify = batch(torch.eye(4), [0, 1, 2, 2])  # image i is of class i
    assert measure_errors(classify, [(images, target)])['top1_error'] == 25
    assert measure_errors(classify, [(images, target)], LabelMap(((1,), (2,), (3,))))['top1_error'] == 75
    assert measure_errors(classify, [(images, target)], LabelMap(((1, 0), (2,), (3, 2))))['top1_error'] == 25
    records = error_records(classify, images, target, LabelMap(()))  # images of no class
    assert records['label'].tolist() == [-1] * 4 and not records['hit1'].any() and not records['hit5'].any()


def test_mask_leaves_the_other_classes_out():
    torch.manual_seed(1)
    logits, folders, mask = torch.randn(30, 12), [i % 3 for i in range(30)], (7, 2, 11, 4)
    images, target, classify = batch(logits, folders)
    records = error_records(classify, images, target, LabelMap(((2,), (7,), (4,)), mask))
    for i in range(30):
        chances = [float(torch.exp(logits[i, c])) for c in mask]
        order = sorted(range(4), key=lambda k: -chances[k])
        assert records['top5'][i].tolist() == [mask[k] for k in order]
        assert records['confidence'][i] == pytest.approx(max(chances) / sum(chances), rel=1e-5)
        assert records['energy'][i] == pytest.approx(np.log(sum(chances)), rel=1e-4, abs=1e-5)
        assert records['hit1'][i] == (mask[order[0]] == (2, 7, 4)[folders[i]]) and records['hit5'][i]
        assert records['label'][i] == (2, 7, 4)[folders[i]]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50))
def test_images_drawn_twice_count_twice(values):
    confidence = np.array([c for c, _ in values], np.float32)
    hits = np.array([h for _, h in values])
    records = dict(confidence=confidence, hit1=hits, hit5=np.ones_like(hits), nll=1 - confidence, brier=confidence)
    weights = np.random.RandomState(len(values)).randint(0, 3, len(values)) + (np.arange(len(values)) == 0)
    repeated = {name: np.repeat(array, weights) for name, array in records.items()}
    assert metrics(records, weights[None].astype(float)) == pytest.approx(metrics(repeated), abs=1e-9)
    for bin_number, value in zip(calibration_bins(confidence), confidence):
        assert bin_number == min(14, int(np.float64(value) * 15)) or abs(value * 15 - round(value * 15)) < 1e-4


@pytest.mark.parametrize('logits, message', [
    (torch.full((3, 2), torch.nan), 'finite, got others for 3 of 3'), (torch.zeros(3), r'\(3, classes\), got \(3,\)'),
    (torch.zeros(3, 2), 'classes must be below 2, as many as logits, got 2'),
])
def test_wrong_logits_are_rejected(logits, message):
    with pytest.raises(ValueError, match=message):
        measure_errors(lambda images: logits, [batch(torch.zeros(3, 2), [0, 1, 2])[:2]])
