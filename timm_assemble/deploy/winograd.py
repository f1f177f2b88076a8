"""3x3 convolutions by Winograd's minimal filtering, with a quarter of the multiply-adds."""
from typing import Any, Dict, List, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ['winograd_filters', 'winograd_conv3x3', 'WinogradConv2d', 'use_winograd', 'remove_winograd']

Matrix = Tuple[Tuple[float, ...], ...]
TILE = 4  # side of an output tile
# B^T of input tiles, G of filters and A^T of output tiles, at the points 0, 1, -1, 2, -2 and infinity
INPUT_TRANSFORM: Matrix = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1))
FILTER_TRANSFORM: Matrix = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1))
OUTPUT_TRANSFORM: Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
MIN_CHS = 64  # with fewer, the transforms cost more than the products they save
MIN_POSITIONS = 256  # spatial positions in a batch; with fewer, reading four times the filters costs more


def winograd_filters(weight: torch.Tensor) -> torch.Tensor:
    """Transform filters ``(K, C, 3, 3)`` to ``(36, C, K)``, rounded once."""
    transform = torch.tensor(FILTER_TRANSFORM, dtype=torch.float64, device=weight.device)
    filters = torch.einsum('ai,kcij,bj->back', transform, weight.double(), transform)
    return filters.flatten(0, 1).to(weight.dtype).contiguous()


def _transform(matrix: Matrix, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply the matrix by the stacked parts, written out as sums that a compiler fuses."""
    rows: List[torch.Tensor] = []
    for row in matrix:
        first, *others = [part if factor == 1 else factor * part for factor, part in zip(row, parts) if factor]
        rows.append(sum(others, first))
    return torch.stack(rows)


def winograd_conv3x3(x: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    r"""Compute a 3x3 convolution of stride 1 and padding 1 with a quarter of the multiply-adds.

    Each 4x4 tile of the output comes from a 6x6 tile :math:`d` of the input,

    .. math:: Y = A^T \left[\sum_c (G\,g_c\,G^T) \odot (B^T d_c\,B)\right] A,

    so that all tiles together take 36 matrix products over the channels instead of 9 * 16. The transforms before and
    after the products must be fused by a compiler: eager, they cost more than the products save.

    Args:
        x: ``(B, C, H, W)``, fastest in channels-last.
        filters: ``(36, C, K)`` from :func:`winograd_filters`.

    Returns:
        ``(B, K, H, W)``, channels-last. The float32 error is up to about 1e-4 of the output's standard deviation.

    Source: arXiv 1509.09308 section 4.2, F(4x4, 3x3).
    """
    batch, channels, height, width = x.shape
    n, rows, cols = TILE + 2, (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    # zeros: one row and column before, and after as many as complete the last tile
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, cols * TILE - width + 1, 1, rows * TILE - height + 1))
    # Rows first, then columns: written out in one step, the sums take a compiler minutes.
    transformed = _transform(INPUT_TRANSFORM, [x[:, i:i + (rows - 1) * TILE + 1:TILE] for i in range(n)])
    tiles = _transform(INPUT_TRANSFORM, [transformed[..., j:j + (cols - 1) * TILE + 1:TILE, :] for j in range(n)])
    products = torch.bmm(tiles.view(n * n, batch * rows * cols, channels), filters)
    y = _transform(OUTPUT_TRANSFORM, products.view(n, n, batch, rows, cols, -1).unbind())
    y = _transform(OUTPUT_TRANSFORM, y.unbind(1))  # (row in tile, column in tile, B, rows, cols, K)
    y = y.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * TILE, cols * TILE, -1)
    return y[:, :height, :width].permute(0, 3, 1, 2)


class WinogradConv2d(nn.Conv2d):
    """A convolution that runs as :func:`winograd_conv3x3` where it is compiled in float32, and as itself elsewhere.

    Args:
        conv: A convolution that :meth:`suits`; its parameters are shared.
    """

    filters: torch.Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None, device='meta')
        self.weight, self.bias = conv.weight, conv.bias
        # a buffer, because inductor would transform the weights again in every call
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
            and module.weight.dtype == torch.float32 and module.weight.device.type == 'cpu')

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_compiling() or x.dtype != torch.float32:
            return super().forward(x)
        y = winograd_conv3x3(x, self.filters)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)

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

    hooks = [module.register_forward_pre_hook(choose) for module in model.modules() if WinogradConv2d.suits(module)]
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
