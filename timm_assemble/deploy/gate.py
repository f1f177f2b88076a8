"""The accuracy gate of a quantized classifier: its logits and predictions on held-out images against the model's."""
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable

import torch
import torch.nn.functional as F

from ..errors import UserError

__all__ = ['DEFAULT_GATE', 'Agreement', 'Gate', 'GateError', 'compare', 'signal_to_noise']

MIN_IMAGES = 10  # held-out images; with fewer, the measurement says nothing


class GateError(UserError):
    """A quantized model whose predictions or logits are too far from the model's."""


def signal_to_noise(logits: torch.Tensor, quantized: torch.Tensor) -> float:
    r"""Compute the signal-to-quantization-noise ratio (SQNR) of logits in dB.

    .. math:: 10 \log_{10} \frac{\sum z^2}{\sum (\hat z - z)^2}

    with the mean over classes subtracted from both, which a softmax does not see. 20 dB are a noise of a tenth of the
    logits' standard deviation.

    Args:
        logits: Logits :math:`z` of the model, ``(B, classes)``.
        quantized: Logits :math:`\hat z` of the quantized model.

    Returns:
        The ratio; infinite for equal logits, minus infinite if any of ``quantized`` is not finite.
    """
    if not quantized.isfinite().all():
        return float('-inf')
    z, other = (x.double() - x.double().mean(1, keepdim=True) for x in (logits, quantized))
    signal, noise = z.square().sum(), (other - z).square().sum()
    return (10 * torch.log10(signal / noise)).item() if noise else float('inf')


@dataclass(frozen=True)
class Agreement:
    """A quantized model against the model, on held-out images.

    Attributes:
        images: Number of images.
        sure: Number of them of which the model is sure.
        top1: Images with the same top-1 prediction, in percent of those of which the model is sure.
        top1_all: The same, in percent of all images.
        sqnr: Signal-to-quantization-noise ratio of the logits in dB, see
            :func:`~timm_assemble.deploy.gate.signal_to_noise`.
    """

    images: int
    sure: int
    top1: float
    top1_all: float
    sqnr: float

    def __str__(self) -> str:
        return (f'same top-1 on {self.top1:.2f} % of the {self.sure} held-out images of which the model is sure, '
                f'{self.top1_all:.2f} % of all {self.images}; SQNR of the logits {self.sqnr:.1f} dB')

    def metadata(self) -> Dict[str, Any]:
        """Return JSON values for a file's metadata."""
        return dict(held_out_images=self.images, held_out_sure=self.sure, agreement=round(self.top1, 3),
                    agreement_all=round(self.top1_all, 3), sqnr_db=round(min(max(self.sqnr, -999), 999), 2))


@dataclass(frozen=True)
class Gate:
    """What a quantized model must reach on held-out images.

    Attributes:
        agreement: Least percentage of equal top-1 predictions, among the images of which the model is sure.
        sqnr: Least SQNR of the logits in dB.
        sure: The model is sure of an image if its top-1 probability is at least this; 0 for all images.

    Raises:
        UserError: A value out of range.
    """

    agreement: float = 99.0
    sqnr: float = 10.0
    sure: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.agreement <= 100:
            raise UserError(f'agreement must be a percentage from 0 to 100, got {self.agreement!r}.')
        if not self.sqnr < float('inf'):
            raise UserError(f'sqnr must be a number of dB, got {self.sqnr!r}.')
        if not 0 <= self.sure < 1:
            raise UserError(f'sure must be a probability from 0 to below 1, got {self.sure!r}.')

    def is_passed(self, measured: Agreement) -> bool:
        """Return whether ``measured`` reaches the gate."""
        return measured.sure > 0 and measured.top1 >= self.agreement and measured.sqnr >= self.sqnr

    def check(self, measured: Agreement) -> None:
        """Raise GateError unless ``measured`` reaches the gate."""
        if not measured.sure:
            raise GateError(
                f'sure must be a top-1 probability that the model reaches, got {self.sure:g}, which it reaches on none '
                f'of {measured.images} held-out images')
        if not self.is_passed(measured):
            raise GateError(
                f'the quantized model must keep the top-1 on at least {self.agreement:g} % of the images of which the '
                f'model is sure, and an SQNR of at least {self.sqnr:g} dB, got {measured}')


DEFAULT_GATE = Gate()


@torch.no_grad()
def compare(
        model: Callable[[torch.Tensor], Any],
        quantized: Callable[[torch.Tensor], Any],
        batches: Iterable[torch.Tensor],
        sure: float = Gate.sure,
) -> Agreement:
    """Measure a quantized classifier against the model.

    Args:
        model: Returns logits ``(B, classes)``. A single one is that of the second of two classes, the first has 0.
        quantized: The quantized model.
        batches: Batches of held-out images, which calibration did not use.
        sure: As in :class:`Gate`.

    Raises:
        UserError: Fewer than ten images, or the model returns no logits.
    """
    def logits_of(call: Callable[[torch.Tensor], Any], x: torch.Tensor) -> torch.Tensor:
        y = call(x)
        if not isinstance(y, torch.Tensor) or y.ndim != 2:
            raise UserError(f'model must return logits (B, classes) to be compared, got {type(y).__name__}'
                            f'{f" of {tuple(y.shape)}" if isinstance(y, torch.Tensor) else ""}')
        y = y.float().cpu()
        return F.pad(y, (1, 0)) if y.shape[1] == 1 else y

    pairs = [(logits_of(model, x), logits_of(quantized, x)) for x in batches]
    images = sum(len(expected) for expected, _ in pairs)
    if images < MIN_IMAGES:
        raise UserError(f'batches must have at least {MIN_IMAGES} held-out images, got {images}.')
    logits, got = (torch.cat(parts) for parts in zip(*pairs))
    is_sure = logits.softmax(1).amax(1) >= sure
    same = (got.argmax(1) == logits.argmax(1)) & got.isfinite().all(1)
    percent = 100 * same.double()
    return Agreement(images, int(is_sure.sum()), percent[is_sure].mean().item() if is_sure.any() else 0.0,
                     percent.mean().item(), signal_to_noise(logits, got))
