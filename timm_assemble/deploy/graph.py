"""The graph of an exported file: checks and layout of images, normalization, then the folded model."""
from typing import Any, Optional, Sequence, Tuple

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn

from ..errors import UserError
from .fold import FoldedModel

__all__ = ['AXES', 'DeployedModel', 'check_images', 'free_sizes', 'trace']

SAME_PADDING = (AvgPool2dSame, Conv2dSame, MaxPool2dSame)  # padded by the images' size
AXES = ('batch', 'height', 'width')  # of images, where a file accepts any
Normalization = Tuple[Sequence[float], Sequence[float]]  # mean and standard deviation


def check_images(images: torch.Tensor, size: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return images in contiguous memory; reject another dtype or size when the graph runs, also compiled.

    AOTInductor compiles for the memory layout of the example, and generates no checks that are on by default. It does
    not compile ``index_reduce`` but calls torch's, which checks dtype, rank and size and reads every layout. Products
    with 1 are the images.

    Args:
        images: Any batch of images.
        size: All their sizes but the batch size.
        dtype: Their dtype.
    """
    batch = images.shape[0]
    ones = torch.ones(batch, *size, dtype=dtype, device=images.device)
    rows = torch.arange(batch, device=images.device)
    return ones.index_reduce(0, rows, images, 'prod')


class DeployedModel(nn.Module):
    """What an exported file computes.

    Args:
        model: Folded, from images ``(B, C, H, W)`` in float32.
        normalization: Mean and standard deviation per channel. With them, images are uint8 ``(B, H, W, C)``, and
            scaling, normalization and layout are part of the graph.
        checked_size: ``(C, H, W)`` for :func:`check_images` in the graph.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
            self,
            model: FoldedModel,
            normalization: Optional[Normalization] = None,
            checked_size: Optional[Sequence[int]] = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.uint8 = normalization is not None
        self.checked_size = checked_size
        if normalization is not None:
            device = next(model.parameters()).device
            for name, values in zip(('mean', 'std'), normalization):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1))
        self.eval()

    def size(self, size: Sequence[int]) -> Tuple[int, ...]:
        """Return ``(C, H, W)`` in the order of this model's images."""
        return (*size[1:], size[0]) if self.uint8 else tuple(size)

    @property
    def dtype(self) -> torch.dtype:
        """Of the images."""
        return torch.uint8 if self.uint8 else torch.float32

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Return the model's images ``(B, C, H, W)`` of this module's."""
        if not self.uint8:
            return images
        return (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std  # the order of timm's transforms

    def forward(self, images: torch.Tensor) -> Any:
        if self.checked_size is not None:
            images = check_images(images, self.size(self.checked_size), self.dtype)
        return self.model(self.normalize(images))


def _simplify(program: Any) -> None:
    """Replace, in place, three operators that become more than arithmetic when they are exported.

    A global average pool, channels-last, becomes a mean and an ``as_strided`` with indices of the images' shape, which
    makes OpenVINO drop the first convolution's bias. The flattening that follows reads the images' batch size.
    ``lerp`` becomes a choice of two formulas per value, which quantizers leave in float.
    """
    aten, graph = torch.ops.aten, program.graph_module.graph

    def call(target: Any, *args: Any) -> Any:
        new = graph.call_function(target, args)
        new.meta = dict(node.meta)
        return new

    for node in list(graph.nodes):
        if node.target not in (aten.adaptive_avg_pool2d.default, aten.flatten.using_ints, aten.lerp.Tensor):
            continue
        with graph.inserting_before(node):
            if node.target is aten.lerp.Tensor:
                start, end, weight = node.args
                new = call(aten.add.Tensor, start, call(aten.mul.Tensor, weight, call(aten.sub.Tensor, end, start)))
            elif node.target is aten.flatten.using_ints:
                if node.args[1:] not in ((1,), (1, -1)) or tuple(node.args[0].meta['val'].shape[2:]) != (1, 1):
                    continue
                new = call(aten.squeeze.dims, node.args[0], [2, 3])
            elif tuple(node.args[1]) == (1, 1):
                new = call(aten.mean.dim, node.args[0], [-2, -1], True)
            else:
                continue
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    program.graph_module.recompile()


def free_sizes(model: nn.Module) -> bool:
    """Return whether to try to trace a model with free sizes, which takes minutes to hours with attention.

    So it does with TensorFlow's padding; with attention most networks are for one size in the end.
    """
    return not any(isinstance(module, SAME_PADDING) or 'Attention' in type(module).__name__
                   for module in model.modules())


def trace(model: DeployedModel, example_size: Sequence[int], any_batch: bool, any_size: bool) -> Any:
    """Trace a model as a torch.export program.

    Args:
        model: The model.
        example_size: ``(B, C, H, W)``.
        any_batch: Whether the batch size is free, from 1.
        any_size: Whether height and width are free, from the smallest whose feature maps have several positions.
    """
    if any_size and any(isinstance(module, SAME_PADDING) for module in model.modules()):
        raise UserError("any_size must be False for a model with TensorFlow's padding: to trace its sizes takes hours")
    batch = max(2, example_size[0]) if any_batch else example_size[0]  # torch.export takes a size of 1 for a constant
    images = torch.zeros(
        batch, *model.size(example_size[1:]), dtype=model.dtype, device=next(model.parameters()).device)
    axes = {0: torch.export.Dim('batch', min=1)} if any_batch else {}
    if any_size:  # the smallest size depends on the model: torch.export finds it
        height = 1 if model.uint8 else 2
        axes.update({height: torch.export.Dim.DYNAMIC, height + 1: torch.export.Dim.DYNAMIC})
    with torch.no_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=(axes,))
    _simplify(program)
    return program
