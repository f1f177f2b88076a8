"""Layers of the Assemble-ResNet family."""
from .anti_alias import AntiAlias2d
from .big_little import BigLittleStage, BigLittleStem, big_little_sum
from .bottleneck import ATTENTIONS, Bottleneck
from .constant_buffers import fill_constant_buffers
from .conv_norm_act import ConvNormAct, NormAct, resolve_norm_layer
from .drop_block import DropBlock2d, drop_block_2d, drop_block_mask, set_drop_block_rate
from .pooling import GeMPool2d, MaxPool2dSame, gem_pool_2d
from .selective_kernel import SelectiveKernelC3, selective_kernel_merge
from .shortcut import SHORTCUTS, DilatedAvgPool2d, ProjectionShortcut, shortcut_pool
from .weight_init import init_weights_official

__all__ = [
    'ATTENTIONS', 'AntiAlias2d', 'BigLittleStage', 'BigLittleStem', 'Bottleneck', 'ConvNormAct', 'DilatedAvgPool2d',
    'DropBlock2d', 'GeMPool2d', 'MaxPool2dSame', 'NormAct', 'ProjectionShortcut', 'SHORTCUTS', 'SelectiveKernelC3',
    'big_little_sum', 'drop_block_2d', 'drop_block_mask', 'fill_constant_buffers', 'gem_pool_2d',
    'init_weights_official', 'resolve_norm_layer', 'selective_kernel_merge', 'set_drop_block_rate', 'shortcut_pool',
]
