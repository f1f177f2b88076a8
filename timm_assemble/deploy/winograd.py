"""3x3 convolutions by Winograd's minimal filtering, a quarter of the multiply-adds: part of the fast form on a CPU.

Knows torch alone.
"""
from typing import Any, Dict, List, Sequence, Set, Tuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['winograd_filters', 'winograd_conv3x3', 'WinogradConv2d', 'use_winograd', 'use_direct']

Matrix = Tuple[Tuple[float, ...], ...]
TILE = 4  # side of a tile of the result
# The transforms B' of a tile of the map, G of a filter and A' of a tile of the result, at 0, 1, -1, 2, -2 and infinity.
FROM_MAP: Matrix = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1))
FROM_FILTER: Matrix = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1))
TO_RESULT: Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
MIN_CHS = 64  # with fewer, the sums before and after cost more than the products they save
MIN_PLACES = 256  # with fewer in all pictures' maps, reading four times the filters takes longer than the products


def winograd_filters(weight: torch.Tensor) -> torch.Tensor:
    """Filters ``(K, C, 3, 3)`` as the ``(36, C, K)`` of :func:`winograd_conv3x3`, rounded once."""
    transform = torch.tensor(FROM_FILTER, dtype=torch.float64, device=weight.device)
    filters = torch.einsum('ai,kcij,bj->back', transform, weight.double(), transform)
    return filters.flatten(0, 1).to(weight.dtype).contiguous()


def _transform(matrix: Matrix, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The matrix times the parts, stacked; written out, as sums that a compiler fuses."""
    rows: List[torch.Tensor] = []
    for row in matrix:
        first, *others = [part if factor == 1 else factor * part for factor, part in zip(row, parts) if factor]
        rows.append(sum(others, first))
    return torch.stack(rows)


def winograd_conv3x3(x: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    r"""3x3 convolution of stride 1 and padding 1 with 4 times fewer multiply-adds.

    Each 4x4 places of the result come from a tile :math:`d` of 6x6 places of the map,

    .. math:: Y = A^T \left[\sum_c (G\,g_c\,G^T) \odot (B^T d_c\,B)\right] A,

    which of all tiles together is 36 matrix products over the channels, in the place of 9 * 16. The sums before and
    after them are for a compiler to fuse: eager, they cost more than is saved.

    Args:
        x: ``(B, C, H, W)``, fastest in channels-last.
        filters: ``(36, C, K)``, of :func:`winograd_filters`.

    Returns:
        ``(B, K, H, W)``, channels-last. In float32 it differs from the exact result by up to some 1e-4 of its standard
        deviation.

    Source: arXiv 1509.09308 section 4.2, F(4x4, 3x3).
    """
    batch, channels, height, width = x.shape
    n, rows, cols = TILE + 2, (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    # one line of zeros before, and after it as many as make the last tile whole
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, cols * TILE - width + 1, 1, rows * TILE - height + 1))
    # Lines first, then columns of what that gave: written out in one, the sums take a compiler minutes.
    lines = _transform(FROM_MAP, [x[:, i:i + (rows - 1) * TILE + 1:TILE] for i in range(n)])
    tiles = _transform(FROM_MAP, [lines[..., j:j + (cols - 1) * TILE + 1:TILE, :] for j in range(n)])
    products = torch.bmm(tiles.view(n * n, batch * rows * cols, channels), filters)
    y = _transform(TO_RESULT, products.view(n, n, batch, rows, cols, -1).unbind())
    y = _transform(TO_RESULT, y.unbind(1))  # (line, column, B, rows, cols, K)
    y = y.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * TILE, cols * TILE, -1)
    return y[:, :height, :width].permute(0, 3, 1, 2)


class WinogradConv2d(nn.Conv2d):
    """A convolution that is :func:`winograd_conv3x3` where it is compiled in float32, and elsewhere what it was.

    Args:
        conv: For which :meth:`suits` holds; its parameters are shared.
    """

    filters: torch.Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None, device='meta')
        self.weight, self.bias = conv.weight, conv.bias
        # stored, as their transform is not among the computations that a compiler does with constants beforehand
        self.register_buffer('filters', winograd_filters(conv.weight.detach()), persistent=False)
        self.train(conv.training)

    @staticmethod
    def suits(module: nn.Module) -> bool:
        """Whether Winograd's way pays where maps are large: a dense 3x3 of stride 1, wide, in float32, on a CPU.

        In a half precision the sums would cost accuracy; and CUDA's libraries choose the algorithm themselves.
        """
        return (
            type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.stride == (1, 1)
            and module.padding == (1, 1) and module.dilation == (1, 1) and module.groups == 1
            and module.padding_mode == 'zeros' and min(module.in_channels, module.out_channels) >= MIN_CHS
            and module.weight.dtype == torch.float32 and module.weight.device.type == 'cpu')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() or x.dtype != torch.float32:
            return super().forward(x)
        y = winograd_conv3x3(x, self.filters)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

    def direct(self) -> nn.Conv2d:
        """The plain convolution of the same parameters."""
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


def use_winograd(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Have the convolutions below ``model`` that gain by it computed by Winograd's way, in place.

    Args:
        model: Called once with ``example`` if any suits, to see how large the maps of each convolution are.
        example: Pictures; others may be of other sizes and numbers, which the choice then fits less well.
    """
    chosen: Set[nn.Module] = set()

    def choose(conv: nn.Module, arguments: Any) -> None:
        if arguments[0].numel() // arguments[0].shape[1] >= MIN_PLACES:
            chosen.add(conv)

    hooks = [module.register_forward_pre_hook(choose) for module in model.modules() if WinogradConv2d.suits(module)]
    try:
        if hooks:
            with torch.no_grad():
                model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return _replace(model, {conv: WinogradConv2d(conv) for conv in chosen})  # type: ignore[arg-type]


def use_direct(model: nn.Module) -> nn.Module:
    """Undo :func:`use_winograd`, in place: the filters' other form is gone."""
    found = [module for module in model.modules() if isinstance(module, WinogradConv2d)]
    return _replace(model, {module: module.direct() for module in found})
