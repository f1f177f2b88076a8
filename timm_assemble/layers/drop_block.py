"""DropBlock of the official code: a mask per channel, shared by the batch."""
from typing import Any, List, Optional, Union

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import check
from .constant_buffers import ConstantBuffers

__all__ = ['drop_block_mask', 'drop_block_2d', 'DropBlock2d', 'set_drop_block_rate']


def _sliding_all(keep: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    """Compute a sliding `all` of ``size`` along ``dim`` by doubling."""
    covered = 1
    while covered < size:
        step = min(covered, size - covered)
        length = keep.shape[dim] - step
        keep = keep.narrow(dim, 0, length) & keep.narrow(dim, step, length)
        covered += step
    return keep


def drop_block_mask(
        channels: int,
        height: int,
        width: int,
        rate: Union[float, torch.Tensor],
        block_size: int = 7,
        gamma_scale: float = 1.0,
        device: Optional[torch.device] = None,
) -> torch.Tensor:
    r"""Draw the mask of :func:`drop_block_2d`.

    It is 0 in dropped blocks and ``size / sum`` elsewhere, so its mean is 1. A block of
    :math:`k_h \times k_w = \min(k, H) \times \min(k, W)` starts at each of the :math:`(H - k_h + 1)(W - k_w + 1)`
    positions where it fits completely, with probability

    .. math:: \gamma = s\,r\,\frac{H W}{k_h k_w (H - k_h + 1)(W - k_w + 1)}

    Args:
        channels: Channels C, each with its own blocks.
        height: Height H of the feature map.
        width: Width W of the feature map.
        rate: DropBlock rate r (1 - keep_prob), 0 to 1; a 0-d tensor changes it without recompilation or device sync.
        block_size: Block size k.
        gamma_scale: Factor s of the rate.
        device: Device of the mask.

    Returns:
        float32 ``(1, C, H, W)``, channels-last. A side that a single block fills has size 1 and broadcasts.

    Source: arXiv 1810.12890 algorithm 1; arXiv 2001.06268 section 3.2.

    Departures: a feature map smaller than the block shrinks the block, where the official code fails. If all is
    dropped the mask is 0, where the official code divides by 0.
    """
    kh, kw = min(block_size, height), min(block_size, width)
    rows, cols = height - kh + 1, width - kw + 1
    factor = gamma_scale * height * width / (kh * kw * rows * cols)
    gamma = rate * factor if isinstance(rate, torch.Tensor) else torch.full((), rate * factor, device=device)
    # channels innermost, as in channels-last activations: every step below reads contiguous memory
    keep = torch.rand(rows, cols, channels, device=device) >= gamma
    # A position is kept if no block that covers it starts: a sliding `all` over the starts, one side after the other.
    # A single start covers its whole side, and broadcasting spreads it.
    pad_h, pad_w = kh - 1 if rows > 1 else 0, kw - 1 if cols > 1 else 0
    if pad_h > 0 or pad_w > 0:
        keep = F.pad(keep, (0, 0, pad_w, pad_w, pad_h, pad_h), value=1.0)
    keep = _sliding_all(keep, pad_h + 1, 0)
    keep = _sliding_all(keep, pad_w + 1, 1)
    mask = keep.float()
    mask = mask / mask.mean().clamp(min=1 / mask.numel())  # all 0 stays all 0
    return mask.permute(2, 0, 1).unsqueeze(0)


def drop_block_2d(
        x: torch.Tensor,
        rate: Union[float, torch.Tensor] = 0.1,
        block_size: int = 7,
        gamma_scale: float = 1.0,
) -> torch.Tensor:
    r"""Zero square blocks of each channel and scale the rest, :math:`y = x \odot m`.

    Args:
        x: ``(B, C, H, W)``, any floating dtype and memory format.
        rate: DropBlock rate r, 0 to 1, of :func:`drop_block_mask`, which draws the mask m.
        block_size: Block size k.
        gamma_scale: Factor s of the rate.

    Returns:
        ``(B, C, H, W)`` in dtype and memory format of ``x``.

    Source: arXiv 1810.12890; arXiv 2001.06268 section 3.2. Departures: see :func:`drop_block_mask`. timm's
    ``drop_block_2d`` draws a mask per image (optionally per channel), with blocks that the border cuts off too.
    """
    _, channels, height, width = x.shape
    mask = drop_block_mask(channels, height, width, rate, block_size, gamma_scale, device=x.device).to(x.dtype)
    if not x.is_contiguous(memory_format=torch.channels_last):
        mask = mask.contiguous()  # the small mask follows the layout of x
    return x * mask


torch.fx.wrap('drop_block_2d')  # the mask's shape depends on that of x, which symbolic tracing does not know


class DropBlock2d(ConstantBuffers):
    """Apply :func:`drop_block_2d` in training mode, the identity in eval mode.

    The rate is a non-persistent buffer: a schedule sets it with :meth:`set_rate` without recompilation or device sync,
    and checkpoints do not contain it.

    Args:
        rate: DropBlock rate, 0 to 1.
        block_size: Side of a block, 1 or more.
        gamma_scale: Factor of the rate, positive.

    Raises:
        UserError: An argument is outside its range.
    """

    rate: torch.Tensor

    def __init__(self, rate: float = 0.1, block_size: int = 7, gamma_scale: float = 1.0, device: Any = None) -> None:
        super().__init__()
        check(block_size >= 1, 'block_size', block_size, '1 or more')
        check(gamma_scale > 0, 'gamma_scale', gamma_scale, 'positive')
        self.block_size, self.gamma_scale = block_size, gamma_scale
        self.last_rate = 0.0  # the meta device and to_empty() lose the buffer's value
        self.register_buffer('rate', torch.zeros((), device=device, dtype=torch.float32), persistent=False)
        self.set_rate(rate)

    @torch.jit.ignore
    def set_rate(self, rate: float) -> None:
        """Set the DropBlock rate, 0 to 1, of the following forward passes."""
        check(0.0 <= rate <= 1.0, 'rate', rate, 'from 0 to 1')
        self.last_rate = float(rate)
        self.init_non_persistent_buffers()

    @torch.jit.ignore
    def init_non_persistent_buffers(self) -> None:
        """Fill the buffer, for example after ``to_empty()``."""
        self.rate.fill_(self.last_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        return drop_block_2d(x, self.rate, self.block_size, self.gamma_scale)

    def extra_repr(self) -> str:
        return f'rate={self.last_rate:g}, block_size={self.block_size}, gamma_scale={self.gamma_scale:g}'


def set_drop_block_rate(model: nn.Module, rate: float) -> bool:
    """Set the rate of every :class:`DropBlock2d` in a model, scripted or not; return whether the model has any."""
    kinds = (DropBlock2d, torch.jit.ScriptModule)  # scripted layers keep their methods
    layers: List[Any] = [m for m in model.modules() if isinstance(m, kinds) and hasattr(m, 'set_rate')]
    return bool([layer.set_rate(rate) for layer in layers])
