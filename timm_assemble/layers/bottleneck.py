"""Bottleneck block: 1x1, 3x3 or selective kernel, 1x1, attention, shortcut."""
from typing import Any, Callable, Dict, Optional

import torch
from timm.layers import LayerType, create_act_layer, create_attn
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import check
from .anti_alias import AntiAlias2d
from .conv_norm_act import ConvNormAct
from .selective_kernel import SelectiveKernelC3

__all__ = ['Bottleneck', 'ATTENTIONS']

ATTENTIONS = (  # all but 'sk' are timm's, take channels alone, and keep the shape
    None, 'sk', 'se', 'ese', 'eca', 'ecam', 'ceca', 'gc', 'gca', 'cbam', 'lcbam', 'coord', 'scoord', 'ela',
    'strip')


class Bottleneck(nn.Module):
    r"""Residual bottleneck, ``ReLU(residual(x) + shortcut(x))``.

    The middle convolution has the stride. With anti-aliasing it runs at stride 1, and its output is blurred and
    subsampled. DropBlock follows each normalization and the selective kernel's output.

    A stride becomes a dilation as in timm's ResNet: stride 1, the ``first_dilation`` of the input, and twice that as
    ``dilation`` of what follows. The output then has the strided block's values, among others between them.

    Input ``(B, in_chs, H, W)``, output ``(B, 4 * width, ceil(H / stride), ceil(W / stride))``.

    Source: arXiv 2001.06268 figure 1 and section 3.1; arXiv 1512.03385.

    Args:
        in_chs: Input channels.
        width: Channels of the middle convolution.
        stride: 1 or 2.
        dilation: Dilation of what follows the block; unless ``first_dilation`` is given, of the block too.
        first_dilation: Dilation of the block.
        shortcut: Projection of the input to the output's shape; None for the identity.
        attn: ``'sk'`` for :class:`SelectiveKernelC3`, ``'se'`` for squeeze-excitation (ratio 1/16, no bias), another
            of ``ATTENTIONS`` for timm's layer of this name with its defaults, or None.
        aa_size: Anti-aliasing filter size if the stride is 2; 0 for none.
        act_last: End in a ReLU. The last block of a Big-Little branch has none; its sum applies it.
        norm_layer: Normalisation layer.
        act_layer: Activation layer.
        drop_layer: Callable that returns a new DropBlock layer, or None.
        drop_path: Stochastic depth of the residual branch, such as timm's ``DropPath``, or None.

    Raises:
        UserError: Unknown ``attn``.
    """

    expansion = 4

    def __init__(
            self,
            in_chs: int,
            width: int,
            stride: int = 1,
            dilation: int = 1,
            first_dilation: Optional[int] = None,
            shortcut: Optional[nn.Module] = None,
            attn: Optional[str] = None,
            aa_size: int = 0,
            act_last: bool = True,
            norm_layer: LayerType = nn.BatchNorm2d,
            act_layer: LayerType = nn.ReLU,
            drop_layer: Optional[Callable[[], nn.Module]] = None,
            drop_path: Optional[nn.Module] = None,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        super().__init__()
        check(attn in ATTENTIONS, 'attn', attn, f'one of {ATTENTIONS}')
        dd: Dict[str, Any] = dict(device=device, dtype=dtype)
        common: Dict[str, Any] = dict(norm_layer=norm_layer, **dd)
        out_chs = self.expansion * width
        first_dilation = first_dilation or dilation
        use_aa = bool(aa_size) and (stride == 2 or first_dilation != dilation)
        spacing: Dict[str, Any] = dict(stride=1 if use_aa else stride, dilation=first_dilation)

        self.conv1 = ConvNormAct(in_chs, width, 1, act_layer=act_layer, drop_layer=drop_layer, **common)
        self.conv2: nn.Module
        if attn == 'sk':
            self.conv2 = SelectiveKernelC3(width, width, act_layer=act_layer, **spacing, **common)
            self.drop2 = drop_layer() if drop_layer is not None else nn.Identity()
        else:
            self.conv2 = ConvNormAct(width, width, 3, act_layer=act_layer, drop_layer=drop_layer, **spacing, **common)
            self.drop2 = nn.Identity()  # inside conv2, between normalization and activation
        self.aa = AntiAlias2d(width, aa_size, stride, first_dilation, **dd) if use_aa else nn.Identity()
        self.conv3 = ConvNormAct(width, out_chs, 1, act_layer=None, drop_layer=drop_layer, **common)
        self.attn: Any = nn.Identity()
        if attn is not None and attn != 'sk':
            official = dict(rd_channels=out_chs // 16, bias=False, act_layer=act_layer) if attn == 'se' else {}
            self.attn = create_attn(attn, out_chs, **official, **dd)
        self.drop_path = drop_path if drop_path is not None else nn.Identity()
        self.shortcut = shortcut if shortcut is not None else nn.Identity()
        self.act = create_act_layer(act_layer, inplace=True) if act_last else nn.Identity()
        self.grad_checkpointing = False

    def zero_init_last(self) -> None:
        """Set the last gamma of the residual branch to zero."""
        weight = getattr(self.conv3.norm, 'weight', None)
        if isinstance(weight, nn.Parameter):
            nn.init.zeros_(weight)

    def _block(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.aa(self.drop2(self.conv2(self.conv1(x))))
        residual = self.drop_path(self.attn(self.conv3(residual)))
        residual += self.shortcut(x)
        return self.act(residual)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting() and torch.is_grad_enabled():
            return checkpoint(self._block, x, use_reentrant=False)
        return self._block(x)
