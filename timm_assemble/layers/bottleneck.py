"""Bottleneck block: 1x1, 3x3 or selective kernel, 1x1, SE, shortcut."""
from functools import partial
from typing import Any, Callable, Dict, Optional

import torch
from timm.layers import ConvNormAct, LayerType, SEModule
from torch import nn
from torch.utils.checkpoint import checkpoint

from .anti_alias import AntiAlias2d
from .selective_kernel import SelectiveKernelC3

__all__ = ['Bottleneck', 'ATTENTIONS']

ATTENTIONS = ('sk', 'se', None)


class Bottleneck(nn.Module):
    r"""Residual bottleneck, ``ReLU(residual(x) + shortcut(x))``.

    The middle convolution has the stride. With anti-aliasing it runs at stride 1, and its output is blurred and
    subsampled. DropBlock follows each normalisation and the selective kernel's output.

    Input ``(B, in_chs, H, W)``, output ``(B, 4 * width, ceil(H / stride), ceil(W / stride))``.

    Source: arXiv 2001.06268 figure 1 and section 3.1; arXiv 1512.03385.

    Args:
        in_chs: Input channels.
        width: Channels of the middle convolution.
        stride: 1 or 2.
        shortcut: Projection of the input to the output's shape; None for the identity.
        attn: ``'sk'`` for :class:`SelectiveKernelC3`, ``'se'`` for squeeze-excitation (ratio 1/16, no bias), or None.
        aa_size: Anti-aliasing filter size if the stride is 2; 0 for none.
        act_last: End in a ReLU. The last block of a Big-Little branch has none; its sum applies it.
        norm_layer: Normalisation layer.
        drop_layer: Callable that returns a new DropBlock layer, or None.

    Raises:
        ValueError: Unknown ``attn``.
    """

    expansion = 4

    def __init__(
            self,
            in_chs: int,
            width: int,
            stride: int = 1,
            shortcut: Optional[nn.Module] = None,
            attn: Optional[str] = None,
            aa_size: int = 0,
            act_last: bool = True,
            norm_layer: LayerType = nn.BatchNorm2d,
            drop_layer: Optional[Callable[[], nn.Module]] = None,
            device=None,
            dtype=None,
    ) -> None:
        super().__init__()
        if attn not in ATTENTIONS:
            raise ValueError(f'attn must be one of {ATTENTIONS}, got {attn!r}.')
        dd: Dict[str, Any] = dict(device=device, dtype=dtype)
        out_chs = self.expansion * width
        conv_norm_act: Callable[..., Any] = partial(
            ConvNormAct, norm_layer=norm_layer, drop_layer=drop_layer, **dd)  # type: ignore[arg-type]
        use_aa = bool(aa_size) and stride == 2
        conv_stride = 1 if use_aa else stride

        self.conv1 = conv_norm_act(in_chs, width, 1)
        if attn == 'sk':
            self.conv2 = SelectiveKernelC3(width, width, conv_stride, norm_layer=norm_layer, **dd)
            self.drop2 = drop_layer() if drop_layer is not None else nn.Identity()
        else:
            self.conv2 = conv_norm_act(width, width, 3, stride=conv_stride)
            self.drop2 = nn.Identity()  # inside conv2, between normalisation and activation
        self.aa = AntiAlias2d(width, filt_size=aa_size, stride=stride, **dd) if use_aa else nn.Identity()
        self.conv3 = conv_norm_act(width, out_chs, 1, apply_act=False)
        self.se = SEModule(out_chs, rd_channels=out_chs // 16, bias=False, **dd) if attn == 'se' else nn.Identity()
        self.shortcut = shortcut if shortcut is not None else nn.Identity()
        self.act = nn.ReLU(inplace=True) if act_last else nn.Identity()
        self.grad_checkpointing = False

    def zero_init_last(self) -> None:
        """Set the last gamma of the residual branch to zero."""
        nn.init.zeros_(self.conv3.bn.weight)

    def _block(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.aa(self.drop2(self.conv2(self.conv1(x))))
        residual = self.se(self.conv3(residual))
        residual += self.shortcut(x)
        return self.act(residual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting() and torch.is_grad_enabled():
            return checkpoint(self._block, x, use_reentrant=False)
        return self._block(x)
