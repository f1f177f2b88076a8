"""Errors and calibration against counting by hand, and wrong logits."""
import pytest
import torch

from timm_assemble.robustness.tasks.classify import measure_errors

from .. import _oracles as oracles


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
    assert (got['images'], got['wrong_top1'], got['wrong_top5']) == (40, wrong1, wrong5) and 0 < wrong5 < wrong1 < 40
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
    assert got['wrong_top1'] == 2 and got['ece'] == pytest.approx(100 * abs(0.75 - confidence), abs=1e-4)


def test_class_map_is_from_folders_to_the_models_classes():
    images, target, classify = batch(torch.eye(4), [0, 1, 2, 2])  # image i is of class i
    assert measure_errors(classify, [(images, target)])['wrong_top1'] == 1
    assert measure_errors(classify, [(images, target)], class_map=[1, 2, 3])['wrong_top1'] == 3


@pytest.mark.parametrize('logits, message', [
    (torch.full((3, 2), torch.nan), 'finite, got others for 3 of 3'), (torch.zeros(3), r'\(3, classes\), got \(3,\)'),
    (torch.zeros(3, 2), 'classes must be below 2, as many as logits, got 2'), (None, 'at least one image'),
])
def test_wrong_logits_and_no_images_are_rejected(logits, message):
    batches = [] if logits is None else [batch(torch.zeros(3, 2), [0, 1, 2])[:2]]
    with pytest.raises(ValueError, match=message):
        measure_errors(lambda images: logits, batches)
