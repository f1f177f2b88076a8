"""Errors, calibration and predictions of any callable from images to logits.

The callable takes (N, 3, S, S) uint8 RGB images on their device, normalizes them and returns (N, C) logits.
"""
from typing import Any, Callable, Dict, Iterable, Optional, Sequence

import torch

__all__ = ['CALIBRATION_BINS', 'Classify', 'LogitsError', 'compute_logits', 'measure_errors', 'predict']

Classify = Callable[[torch.Tensor], torch.Tensor]
BELOW_1 = 1 - 2 ** -24  # the next float32
CALIBRATION_BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


class LogitsError(ValueError):
    """A callable returns something else than finite logits."""


@torch.inference_mode()
def compute_logits(classify: Classify, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of images as float32; LogitsError if they are not (N, C) or not finite."""
    logits = classify(images)
    if logits.ndim != 2 or len(logits) != len(images):
        raise LogitsError(f'logits must be ({len(images)}, classes), got {tuple(logits.shape)}')
    logits = logits.float()
    wrong = ~logits.isfinite().all(1)
    if wrong.any():
        raise LogitsError(f'logits must be finite, got others for {int(wrong.sum())} of {len(logits)} images')
    return logits


def predict(classify: Classify, images: torch.Tensor) -> torch.Tensor:
    """Return (N,) predicted classes, on the CPU."""
    return compute_logits(classify, images).argmax(1).cpu()


@torch.inference_mode()
def measure_errors(
        classify: Classify, batches: Iterable[Any], class_map: Optional[Sequence[int]] = None,
) -> Dict[str, Any]:
    """Classify the images of batches, tuples that begin with images and (N,) classes, and count errors.

    ``class_map`` has the model's class of each class of the batches; None where they are the same.

    Returns:
        Counts ``images``, ``wrong_top1`` and ``wrong_top5``, and ``ece`` in percent: the mean over images of
        ``|accuracy - confidence|`` of their bin, 15 equal bins of the largest probability.
    """
    from torchmetrics.classification import MulticlassCalibrationError

    count, wrong1, wrong5 = 0, torch.tensor(0), torch.tensor(0)
    calibration = None
    lookup = None if class_map is None else torch.as_tensor(class_map, dtype=torch.long)
    for images, classes, *_ in batches:
        logits = compute_logits(classify, images)
        target = (classes if lookup is None else lookup[classes]).to(logits.device, non_blocking=True)
        if calibration is None:
            # torchmetrics would pool the ranks, which measure different tasks
            calibration = MulticlassCalibrationError(
                logits.shape[1], n_bins=CALIBRATION_BINS, norm='l1', validate_args=False,
                sync_on_compute=False).to(logits.device)
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise ValueError(f'classes must be below {logits.shape[1]}, as many as logits, got {int(target.max())}')
        top = logits.topk(min(5, logits.shape[1])).indices == target[:, None]
        wrong1 = wrong1 + (~top[:, 0]).sum()
        wrong5 = wrong5 + (~top.any(1)).sum()
        # torchmetrics puts a confidence that rounds to 1 into a bin of its own, above the last
        calibration.update(logits.softmax(1).clamp(max=BELOW_1), target)
        count += len(target)
    if calibration is None:
        raise ValueError('batches must have at least one image, got none')
    return dict(images=count, wrong_top1=int(wrong1), wrong_top5=int(wrong5), ece=100 * float(calibration.compute()))
