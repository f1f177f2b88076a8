"""Predictions of any callable from images to logits, and errors and calibration from predictions.

The callable takes (N, 3, S, S) uint8 RGB images on their device, normalizes them and returns (N, C) logits.
"""
from typing import Any, Dict, Optional, Tuple

import numpy as np
import torch

from ...errors import UserError
from ...evaluation.models import FromPixels, compute_outputs
from ..datasets.test_sets import LabelMap

__all__ = [
    'CALIBRATION_BINS', 'Classify', 'calibration_bins', 'calibration_error', 'compute_logits',
    'error_metrics', 'error_records', 'error_sums', 'metrics_of_error_sums', 'predict', 'split_halves',
]

Classify = FromPixels
BELOW_1 = 1 - 2 ** -24  # the next float32
CALIBRATION_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


def compute_logits(classify: Classify, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of images as float32; OutputError if they are not (N, C) or not finite."""
    return compute_outputs(classify, images, 'logits', 'classes')


def predict(classify: Classify, images: torch.Tensor) -> torch.Tensor:
    """Return (N, 5) classes of the largest logits, the largest first, on the CPU; fewer for fewer classes."""
    logits = compute_logits(classify, images)
    return logits.topk(min(5, logits.shape[1])).indices.cpu()


def _lookup(label_map: LabelMap) -> torch.Tensor:
    """Return (folders, M) right classes, filled up with -1."""
    most = max(map(len, label_map.targets))
    return torch.tensor([[*targets, *[-1] * (most - len(targets))] for targets in label_map.targets])


@torch.inference_mode()
def error_records(
        classify: Classify, images: torch.Tensor, folders: torch.Tensor, label_map: Optional[LabelMap],
        keep_logits: bool = False,
) -> Dict[str, np.ndarray]:
    """Classify (N, 3, S, S) images in (N,) folders.

    Args:
        label_map: The model's classes of the folders, and those among which it predicts. Without targets no prediction
            is right; without a map a folder's number is its class.
        keep_logits: Return the logits, too.

    Returns:
        Of each image ``label`` (its class, the first if there are more, -1 for none), ``top5`` (the predicted classes),
        ``confidence`` (the largest probability), ``energy`` (log-sum-exp of the logits), ``hit1`` and ``hit5``
        (whether a right class is predicted first, or among five).
    """
    logits = compute_logits(classify, images)
    mask = label_map.mask if label_map else None
    if mask is not None:
        logits = logits[:, torch.tensor(mask, device=logits.device)]
    top = logits.topk(min(5, logits.shape[1])).indices.cpu()
    confidence = logits.softmax(1).amax(1)
    result = dict(confidence=confidence, energy=logits.logsumexp(1))
    if mask is not None:
        top = torch.tensor(mask)[top]
    if label_map is None:
        targets = folders[:, None].cpu()
        if len(targets) and int(targets.max()) >= logits.shape[1]:
            raise UserError(f'classes must be below {logits.shape[1]}, as many as logits, got {int(targets.max())}')
    elif label_map.targets:
        targets = _lookup(label_map)[folders.cpu()]
    else:
        targets = torch.full((len(top), 1), -1)
    hits = (top[:, :, None] == targets[:, None, :]).any(2)
    result.update(label=targets[:, 0].int(), top5=top.int(), hit1=hits[:, 0], hit5=hits.any(1))
    if keep_logits:
        columns = targets if mask is None else torch.tensor([mask.index(int(t)) for t in targets[:, 0]])[:, None]
        result.update(logits=logits, column=columns[:, 0])
    return {name: value.cpu().numpy() for name, value in result.items()}


def calibration_error(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Return ECE in percent: the mean over images of ``|accuracy - confidence|`` of their bin, 15 equal bins."""
    from torchmetrics.functional.classification import binary_calibration_error

    # torchmetrics puts a confidence that rounds to 1 into a bin of its own, above the last
    values = torch.from_numpy(np.minimum(confidence, np.float32(BELOW_1)))
    return 100 * float(binary_calibration_error(
        values, torch.from_numpy(hits.astype(np.int64)), n_bins=CALIBRATION_BINS, norm='l1', validate_args=False))


def calibration_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence, as torchmetrics puts it."""
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1)
    return (torch.bucketize(torch.from_numpy(np.minimum(confidence, np.float32(BELOW_1))), edges, right=True)
            - 1).numpy()


def error_metrics(records: Dict[str, np.ndarray]) -> Dict[str, Any]:
    """Return the counts ``images``, ``wrong_top1`` and ``wrong_top5``, and ``ece`` in percent."""
    if not len(records['hit1']):
        raise UserError('records must have at least one image, got none')
    return dict(
        images=len(records['hit1']), wrong_top1=int((~records['hit1']).sum()), wrong_top5=int((~records['hit5']).sum()),
        ece=calibration_error(records['confidence'], records['hit1']))


def error_sums(records: Dict[str, np.ndarray]) -> np.ndarray:
    """Return (N, 3 + bins): 1, wrong top-1, wrong top-5, and accuracy minus confidence in the column of its bin."""
    hits = records['hit1']
    sums = np.zeros((len(hits), 3 + CALIBRATION_BINS))
    sums[:, :3] = np.stack([np.ones(len(hits)), ~hits, ~records['hit5']], 1)
    sums[np.arange(len(hits)), 3 + calibration_bins(records['confidence'])] = hits - records['confidence'].astype(float)
    return sums


def metrics_of_error_sums(sums: np.ndarray) -> Dict[str, Any]:
    """Return :func:`error_metrics` from the sums over images of :func:`error_sums`."""
    images, wrong1, wrong5 = sums[:3].tolist()
    return dict(images=images, wrong_top1=wrong1, wrong_top5=wrong5, ece=100 * float(np.abs(sums[3:]).sum()) / images)


def split_halves(items: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Return which rows have even and which odd numbers in the file list: two halves of each class.

    The halves stay the same where files are left out later.
    """
    return items % 2 == 0, items % 2 == 1
