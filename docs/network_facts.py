"""Facts about a network for its drawing, read from its modules."""
from typing import Any, Dict, List, Tuple

import timm
import torch
from torch import nn

import timm_assemble  # noqa: F401  (registers the models)
from timm_assemble.layers import Bottleneck, ConvNormAct, DropBlock2d

__all__ = ['TIMES', 'TO', 'NetworkFacts']

TIMES, TO = '\N{MULTIPLICATION SIGN}', '\N{RIGHTWARDS ARROW}'


def _present(module: nn.Module) -> bool:
    return not isinstance(module, nn.Identity)


class NetworkFacts:
    """Shapes and counts of a registered model, from a pass on the meta device.

    Modules are named as in the model's ``named_modules``.

    Args:
        name: Registered name; the model is built with DropBlock.
        side: Height and width of the image.
    """

    def __init__(self, name: str, side: int) -> None:
        self.model = timm.create_model(name, drop_block_rate=0.1, device='meta').eval()
        self._shapes: Dict[str, Tuple[torch.Size, torch.Size]] = {}

        def remember(module_name: str) -> Any:
            def hook(module: nn.Module, inputs: Tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
                self._shapes[module_name] = inputs[0].shape, output.shape
            return hook

        handles = [m.register_forward_hook(remember(n)) for n, m in self.model.named_modules()]
        with torch.no_grad():
            self.model(torch.empty(1, 3, side, side, device='meta'))
        for handle in handles:
            handle.remove()

    def module(self, name: str) -> Any:
        return self.model.get_submodule(name)

    @staticmethod
    def _size(shape: torch.Size) -> str:
        _, channels, height, width = shape
        return f'{width} {TIMES} {height} {TIMES} {channels}'

    def input_size(self, name: str) -> str:
        """Return width, height and channels of a module's input."""
        return self._size(self._shapes[name][0])

    def size(self, name: str) -> str:
        """Return width, height and channels of a module's output."""
        return self._size(self._shapes[name][1])

    def stride(self, name: str) -> int:
        before, after = self._shapes[name]
        return before[2] // after[2]

    def blocks(self, name: str) -> List[Bottleneck]:
        """Return the bottleneck blocks of a module, in order."""
        return [m for m in self.module(name).modules() if isinstance(m, Bottleneck)]

    def inner_width(self, name: str) -> int:
        """Return the inner width F of a module's blocks."""
        widths = {block.conv1.conv.out_channels for block in self.blocks(name)}
        if len(widths) != 1:
            raise ValueError(f'name must be a module with blocks of one width; {name} has {sorted(widths)}')
        return widths.pop()

    def has_drop_block(self, name: str) -> bool:
        return any(isinstance(m, DropBlock2d) for m in self.module(name).modules())

    def parameters(self, name: str = '') -> float:
        """Return the parameters of a module in millions."""
        return sum(p.numel() for p in self.module(name).parameters()) / 1e6

    def kernel(self, name: str) -> str:
        """Return the kernel of a convolution or pool, such as 3x3."""
        module = self.module(name)
        size = (module.conv if isinstance(module, ConvNormAct) else module).kernel_size
        height, width = size if isinstance(size, tuple) else (size, size)
        return f'{width}{TIMES}{height}'

    def channels(self, name: str) -> str:
        """Return input and output channels."""
        before, after = self._shapes[name]
        return f'{before[1]} {TO} {after[1]}'

    def after_convolution(self, name: str) -> str:
        """Return what follows a convolution, in order; in brackets if only in training."""
        layer = self.module(name)
        names = ['BN'] + ['[DropBlock]'] * isinstance(layer.drop, DropBlock2d) + ['ReLU'] * _present(layer.act)
        return ', '.join(names)
