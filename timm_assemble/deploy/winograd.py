"""3x3 convolutions by Winograd's minimal filtering, with a quarter of the multiply-adds."""
import ctypes
import functools
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from torch import nn

__all__ = ['winograd_filters', 'winograd_conv3x3', 'WinogradConv2d', 'use_winograd', 'remove_winograd']

TILE = 4  # side of an output tile
# G, at the points 0, 1, -1, 2, -2 and infinity; winograd.cpp has B^T and A^T
FILTER_TRANSFORM = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1))
LANES = 16  # winograd.cpp takes this many channels at once
MIN_CHS = 64  # with fewer, the transforms cost more than the products they save
MIN_POSITIONS = 256  # spatial positions in a batch; with fewer, reading four times the filters costs more
BLOCK = 256  # tiles whose transforms and products stay in the processor's cache


def winograd_filters(weight: torch.Tensor) -> torch.Tensor:
    """Transform filters ``(K, C, 3, 3)`` to ``(36, C, K)``, rounded once."""
    transform = torch.tensor(FILTER_TRANSFORM, dtype=torch.float64, device=weight.device)
    filters = torch.einsum('ai,kcij,bj->abck', transform, weight.double(), transform)
    return filters.flatten(0, 1).to(weight.dtype).contiguous()


@functools.cache
def _transforms() -> ctypes.CDLL:
    """Return winograd.cpp, compiled by inductor's compiler and flags, and cached in its folder."""
    from torch._inductor.codecache import CppCodeCache  # slow to import

    library = CppCodeCache.load((Path(__file__).parent / 'winograd.cpp').read_text())
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.input_tiles.argtypes = [pointer] * 2 + [integer] * 5
    library.output_tiles.argtypes = [pointer] * 3 + [integer] * 5
    library.input_tiles.restype = library.output_tiles.restype = None
    return library


# one operator for the whole convolution: a compiler would write out the transforms again for every layer
@torch.library.custom_op('timm_assemble::winograd_conv3x3', mutates_args=(), device_types='cpu')
def winograd_conv3x3(x: torch.Tensor, filters: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:
    r"""Compute a 3x3 convolution of stride 1 and padding 1 with a quarter of the multiply-adds.

    Each 4x4 tile of the output comes from a 6x6 tile :math:`d` of the input,

    .. math:: Y = A^T \left[\sum_c (G\,g_c\,G^T) \odot (B^T d_c\,B)\right] A,

    so that all tiles together take 36 matrix products over the channels instead of 9 * 16.

    Args:
        x: ``(B, C, H, W)``, float32 on a CPU, fastest in channels-last.
        filters: ``(36, C, K)`` from :func:`winograd_filters`; C and K are multiples of 16.
        bias: ``(K,)`` or None.

    Returns:
        ``(B, K, H, W)``, channels-last. The float32 error is up to about 1e-4 of the output's standard deviation.

    Source: arXiv 1509.09308 section 4.2, F(4x4, 3x3).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = x.shape
    y = _output(x, filters, bias)
    total = batch * ((height + TILE - 1) // TILE) * ((width + TILE - 1) // TILE)
    transforms, bias_pointer = _transforms(), None if bias is None else bias.data_ptr()
    for start in range(0, total, BLOCK):
        end = min(start + BLOCK, total)
        tiles = x.new_empty(filters.shape[0], end - start, channels)
        transforms.input_tiles(x.data_ptr(), tiles.data_ptr(), start, end, height, width, channels)
        products = torch.bmm(tiles, filters)
        transforms.output_tiles(
            products.data_ptr(), bias_pointer, y.data_ptr(), start, end, height, width, filters.shape[2])
    return y


@winograd_conv3x3.register_fake
def _output(x: torch.Tensor, filters: torch.Tensor, bias: Optional[torch.Tensor]) -> torch.Tensor:
    batch, _, height, width = x.shape
    return torch.empty(
        (batch, filters.shape[2], height, width), device=x.device, memory_format=torch.channels_last)


class WinogradConv2d(nn.Conv2d):
    """A convolution that runs as ``winograd_conv3x3`` in float32 on a CPU, and as itself elsewhere.

    Args:
        conv: A convolution that :meth:`suits`; its parameters are shared.
    """

    filters: torch.Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None, device='meta')
        self.weight, self.bias = conv.weight, conv.bias
        self.register_buffer('filters', winograd_filters(conv.weight.detach()), persistent=False)
        self.train(conv.training)

    @staticmethod
    def suits(module: nn.Module) -> bool:
        """Return whether Winograd's filtering pays on large feature maps: dense 3x3, stride 1, wide, float32, CPU.

        A half precision would lose accuracy in the transforms, and CUDA's libraries choose the algorithm themselves.
        """
        return (
            type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.stride == (1, 1)
            and module.padding == (1, 1) and module.dilation == (1, 1) and module.groups == 1
            and module.padding_mode == 'zeros' and min(module.in_channels, module.out_channels) >= MIN_CHS
            and module.in_channels % LANES == module.out_channels % LANES == 0
            and module.weight.dtype == torch.float32 and module.weight.device.type == 'cpu')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or x.device.type != 'cpu':
            return super().forward(x)
        return winograd_conv3x3(x, self.filters, self.bias)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.filters = winograd_filters(self.weight.detach())

    def to_conv2d(self) -> nn.Conv2d:
        """Return the plain convolution with the same parameters."""
        conv = nn.Conv2d(
            self.in_channels, self.out_channels, 3, padding=1, bias=self.bias is not None, device='meta')
        conv.weight, conv.bias = self.weight, self.bias
        return conv.train(self.training)


def _replace(model: nn.Module, replacements: Dict[nn.Module, nn.Module]) -> nn.Module:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if child in replacements:
                setattr(module, name, replacements[child])
    return model


@functools.cache
def is_available() -> bool:
    """Return whether inductor's compiler takes winograd.cpp; MSVC and others have no vector extensions."""
    try:
        _transforms()
    except Exception:  # of inductor's classes
        return False
    return True


def use_winograd(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Replace the convolutions in ``model`` that gain by it with :class:`WinogradConv2d`, in place.

    Args:
        model: Called once with ``example`` if any convolution suits, to see how large its feature maps are.
        example: Images. For other sizes and batch sizes the choice is correct, but may be slower.
    """
    chosen: Dict[nn.Module, nn.Module] = {}

    def choose(conv: Any, arguments: Any) -> None:
        if conv not in chosen and arguments[0].numel() // arguments[0].shape[1] >= MIN_POSITIONS:
            chosen[conv] = WinogradConv2d(conv)

    suited = [module for module in model.modules() if WinogradConv2d.suits(module)]
    hooks = [module.register_forward_pre_hook(choose) for module in suited] if suited and is_available() else []
    try:
        if hooks:
            with torch.no_grad():
                model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return _replace(model, chosen)


def remove_winograd(model: nn.Module) -> nn.Module:
    """Replace every :class:`WinogradConv2d` in ``model`` with the plain convolution, in place."""
    return _replace(model, {m: m.to_conv2d() for m in model.modules() if isinstance(m, WinogradConv2d)})
