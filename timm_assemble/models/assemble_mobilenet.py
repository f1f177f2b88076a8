"""Assembled MobileNet-V1: timm's network with squeeze-excitation and DropBlock.

Paper: `Compounding the Performance Improvements of Assembled Techniques in a Convolutional Neural Network`
    - https://arxiv.org/abs/2001.06268

Importing this module registers the models.
"""
import warnings
from functools import partial
from typing import Any, Dict

import torch
from torch import nn
from timm.layers import LayerType
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._efficientnet_blocks import SqueezeExcite
from timm.models._efficientnet_builder import decode_arch_def, efficientnet_init_weights, round_channels
from timm.models.efficientnet import EfficientNet

from ..errors import check
from ..layers import DropBlock2d, NormAct, fill_constant_buffers, init_weights_official
from .arguments import check_classifier, check_network, resolve_layers
from .family import DropBlockRate, base_cfg

__all__ = ['AssembleMobileNet']  # register_model adds the entry points

WIDTH = 32  # of the stem, of a network of the paper
STAGES = ('r1_k3_s1_c64', 'r2_k3_s2_c128', 'r2_k3_s2_c256', 'r6_k3_s2_c512', 'r2_k3_s2_c1024')


def _squeezed(channels: float) -> int:
    return max(1, round(channels))


class AssembleMobileNet(DropBlockRate, EfficientNet):
    """MobileNet-V1 of timm (``mobilenetv1_100``), with squeeze-excitation and DropBlock switched by arguments.

    Input ``(B, in_chans, H, W)`` of any H and W, output ``(B, num_classes)``. A stem and 13 depthwise-separable blocks
    (3x3 depthwise, 1x1), each convolution followed by batch norm and ReLU6, give feature maps of strides 2, 4, 8, 16
    and 32 with 2, 4, 8, 16 and 32 times ``width`` channels. Weights have timm's names: without squeeze-excitation,
    those of ``mobilenetv1_100`` load.

    Source: arXiv 2001.06268 (v2), section on MobileNet; arXiv 1704.04861; arXiv 1709.01507.

    Departures: no code was published for these networks, and the paper leaves details open. Squeeze-excitation is where
    timm's block has it, between the depthwise and the 1x1 convolution, in every block, with biases. DropBlock is where
    the official code has it in ResNets: after every batch norm of the last two stages (strides 16 and 32), before the
    activation, with 7x7 blocks and scales 0.25 and 1.0; a block takes the whole feature map at stride 32 and 224
    pixels. Padding is symmetric, preprocessing is that of the official ResNets, initial weights are timm's.

    Args:
        num_classes: Number of classes; 0 for no classifier.
        in_chans: Number of input channels.
        global_pool: ``'avg'`` or another pooling of timm; ``''`` for none, without classes only.
        width: Width of the stem, a multiple of 8.
        se_reduction: Channels per channel of the squeeze, at least 1; 0 for no squeeze-excitation.
        output_stride: Stride of the last feature map, 8, 16 or 32: dilations replace the strides beyond it.
        drop_block_rate: DropBlock rate in the last two stages (scaled by 0.25 and 1.0); 0 for a model without
            DropBlock.
        drop_rate: Dropout rate before the classifier.
        drop_path_rate: Taken, as by every network of timm, but without effect: there is no residual branch to drop.
        act_layer, norm_layer: Layers, by timm's names or as classes.
        bn_momentum: Batch norm momentum as PyTorch defines it.
        bn_eps: Batch norm epsilon.
        device, dtype: Device and data type of the parameters.

    Raises:
        UserError: An argument is outside its range.
    """

    def __init__(
            self,
            num_classes: int = 1000,
            in_chans: int = 3,
            global_pool: str = 'avg',
            width: int = WIDTH,
            se_reduction: int = 0,
            output_stride: int = 32,
            drop_block_rate: float = 0.,
            drop_rate: float = 0.,
            drop_path_rate: float = 0.,
            act_layer: LayerType = 'relu6',
            norm_layer: LayerType = 'batchnorm2d',
            bn_momentum: float = 0.1,
            bn_eps: float = 1e-5,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        check_network(num_classes, global_pool, in_chans, width, output_stride, bn_eps, bn_momentum,
                      drop_rate=drop_rate, drop_block_rate=drop_block_rate, drop_path_rate=drop_path_rate)
        check_classifier(num_classes, global_pool)
        if drop_path_rate:
            warnings.warn('drop_path_rate has no effect: MobileNet-V1 has no residual branches.', stacklevel=2)
        check(se_reduction >= 0, 'se_reduction', se_reduction, '0 or more')
        layer_args = resolve_layers(act_layer, norm_layer, bn_eps, bn_momentum, device, dtype)

        def norm_act(channels: int, inplace: bool = True, apply_act: bool = True, **dd: Any) -> NormAct:
            layer = NormAct(channels, **{**layer_args, **({} if apply_act else {'act_layer': None})})
            check(not isinstance(layer.norm, nn.BatchNorm2d) or layer.norm.affine, 'norm_layer', norm_layer,
                  'affine if it is a batch norm, whose weights timm initializes')
            return layer

        se = f'_se{1 / se_reduction}' if se_reduction else ''
        super().__init__(
            decode_arch_def([[f'dsa_{stage}{se}'] for stage in STAGES]), num_classes, num_features=0,
            in_chans=in_chans, stem_size=WIDTH, round_chs_fn=partial(round_channels, multiplier=width / WIDTH),
            se_layer=partial(SqueezeExcite, rd_round_fn=_squeezed), output_stride=output_stride,
            act_layer=layer_args['act_layer'], norm_layer=norm_act, drop_rate=drop_rate, global_pool=global_pool,
            device=device, dtype=dtype)
        stages: Any = self.blocks
        for stage, scale in ((stages[-2], 0.25), (stages[-1], 1.0)) if drop_block_rate else ():
            for block in stage:
                for norm in (block.bn1, block.bn2):
                    norm.drop = DropBlock2d(drop_block_rate, 7, scale, device)
        self.register_load_state_dict_post_hook(fill_constant_buffers)

    @torch.jit.ignore
    def init_weights(self) -> None:
        efficientnet_init_weights(self)
        for m in self.modules():
            if isinstance(m, NormAct):
                m.apply(init_weights_official)
        fill_constant_buffers(self)


def _create(variant: str, pretrained: bool, overrides: Dict[str, Any], **model_args: Any) -> AssembleMobileNet:
    return build_model_with_cfg(
        AssembleMobileNet, variant, pretrained, feature_cfg=dict(flatten_sequential=True),
        **{**model_args, **overrides})


_names = dict(first_conv='conv_stem', classifier='classifier')
default_cfgs = generate_default_cfgs({
    'assemble_mobilenet': base_cfg(**_names),
    'assemble_mobilenet_se16': base_cfg(**_names),
    'assemble_mobilenet_se2': base_cfg(**_names),
})


@register_model
def assemble_mobilenet(pretrained: bool = False, **kwargs: Any) -> AssembleMobileNet:
    """MobileNet-V1. Rows M0, M2, M3, M4 and M5 of the paper."""
    return _create('assemble_mobilenet', pretrained, kwargs)


@register_model
def assemble_mobilenet_se16(pretrained: bool = False, **kwargs: Any) -> AssembleMobileNet:
    """MobileNet-V1 with squeeze-excitation of reduction 16. Rows M1 and M6 of the paper."""
    return _create('assemble_mobilenet_se16', pretrained, kwargs, se_reduction=16)


@register_model
def assemble_mobilenet_se2(pretrained: bool = False, **kwargs: Any) -> AssembleMobileNet:
    """Assemble-MobileNet: MobileNet-V1 with squeeze-excitation of reduction 2. Rows M7 and M8 of the paper."""
    return _create('assemble_mobilenet_se2', pretrained, kwargs, se_reduction=2)
