"""Assemble-ResNet: ResNet-D, SK, Big-Little, anti-aliasing and DropBlock in timm.

Paper: `Compounding the Performance Improvements of Assembled Techniques in a Convolutional Neural Network`
    - https://arxiv.org/abs/2001.06268

The network computes what the official TensorFlow 1 code computes, also where paper and code disagree, because that
code gave the paper's numbers. Importing this module registers the models.
"""
import warnings
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from timm.layers import LayerType, SelectAdaptivePool2d, calculate_drop_path_rates, get_device_dtype
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import nn

from ..errors import check
from ..layers import Bottleneck, ConvNormAct, GeMPool2d, fill_constant_buffers, init_weights_official
from .arguments import POOLS, check_classifier, check_network, resolve_aa_size, resolve_layers
from .family import DropBlockRate, base_cfg
from .stages import make_stages, make_stem, make_stem_pool

__all__ = ['AssembleResNet']  # register_model adds the entry points


class AssembleResNet(DropBlockRate, nn.Module):
    """Bottleneck ResNet with the assembled techniques, each switched by an argument.

    Input ``(B, in_chans, H, W)`` of any H and W, output ``(B, num_classes)``. Stem and stages give the feature pyramid
    of a ResNet: strides 2, 4, 8, 16 and 32, and 1, 4, 8, 16 and 32 times ``width`` channels.

    Source: arXiv 2001.06268 section 3.1 and figure 1.

    Departures: Big-Little takes every input size; the official code takes only sides whose quarter is a multiple of 8.
    DropBlock and anti-aliasing take feature maps smaller than their block and filter. The official code has no
    ``output_stride``, ``act_layer``, ``norm_layer`` and ``drop_path_rate``, and ``bn_momentum`` 0.003.

    Args:
        layers: Blocks of the four stages. With Big-Little, n blocks are n - 1 big ones and a merging one, which opens
            the next stage.
        num_classes: Number of classes; 0 for no classifier.
        in_chans: Number of input channels.
        global_pool: ``'avg'``, ``'gem'`` (exponent 3), ``'flatten'`` for the feature map as a vector, without classes
            and embedding, ``''`` for none, or another pooling of timm.
        width: Width of the stem and of stage 1's bottlenecks, a multiple of 8.
        deep_stem: Replace the 7x7 convolution by three 3x3 convolutions (ResNet-D).
        shortcut: ``'plain'``, ``'d'`` (ResNet-D) or ``'big_little'``. With Big-Little it applies to stage 4 only;
            stages 1 to 3 always have Big-Little's shortcut.
        attn: ``'sk'`` for selective kernels (SK-C3), ``'se'`` for squeeze-excitation, another of
            ``timm_assemble.layers.bottleneck.ATTENTIONS`` for timm's layer of this name, or None. ``create_model``
            drops arguments that are None: pass it ``attn=''`` and ``big_little=()`` to switch these off.
        big_little: ``(alpha, beta)``, the factors by which the little branch is thinner and shallower, or None.
        aa_size: Size of the anti-aliasing filter, 2 to 7; 0 for none.
        aa_layer: ``'blur'``, timm's name of ``aa_size=3``, or None.
        aa_shortcut: Blur before strided plain shortcuts too.
        last_stride: Stride of stage 4, 1 or 2.
        output_stride: Stride of the last feature map, 8, 16 or 32: dilations replace the strides beyond it, as in
            timm's ResNet. Big-Little keeps its big branches at half the resolution.
        embedding_size: Width of an embedding (1x1, BN, ReLU) before the classifier; 0 for none.
        zero_init_last: Initialise the last gamma of every residual branch to zero.
        drop_block_rate: DropBlock rate in stages 3 and 4 (scaled by 0.25 and 1.0); 0 for a model without DropBlock.
        drop_rate: Dropout rate before the classifier.
        drop_path_rate: Stochastic depth rate of the last block; it grows linearly from 0 at the first one.
        act_layer, norm_layer: Layers, by timm's names or as classes.
        bn_momentum: Batch norm momentum as PyTorch defines it. The official 0.003, which the recipes set, averages over
            about 300 updates: too slow for a training of less than a few thousand.
        bn_eps: Batch norm epsilon.
        device, dtype: Device and data type of the parameters.

    Raises:
        UserError: An argument is outside its range.
    """

    def __init__(
            self,
            layers: Sequence[int],
            num_classes: int = 1000,
            in_chans: int = 3,
            global_pool: str = 'avg',
            width: int = 64,
            deep_stem: bool = False,
            shortcut: str = 'plain',
            attn: Optional[str] = None,
            big_little: Optional[Sequence[int]] = None,
            aa_size: int = 0,
            aa_layer: Optional[LayerType] = None,
            aa_shortcut: bool = False,
            last_stride: int = 2,
            output_stride: int = 32,
            embedding_size: int = 0,
            zero_init_last: bool = True,
            drop_block_rate: float = 0.,
            drop_rate: float = 0.,
            drop_path_rate: float = 0.,
            act_layer: LayerType = 'relu',
            norm_layer: LayerType = 'batchnorm2d',
            bn_momentum: float = 0.1,
            bn_eps: float = 1e-5,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        super().__init__()
        check(len(layers) == 4 and min(layers) > 0, 'layers', layers, 'four positive numbers')
        check_network(num_classes, global_pool, in_chans, width, output_stride, bn_eps, bn_momentum,
                      drop_rate=drop_rate, drop_block_rate=drop_block_rate, drop_path_rate=drop_path_rate)
        aa_size = resolve_aa_size(aa_layer, aa_size)
        check(last_stride in (1, 2), 'last_stride', last_stride, '1 or 2')
        check(embedding_size >= 0, 'embedding_size', embedding_size, '0 or more')
        attn, big_little = attn or None, big_little or None
        if big_little is not None:
            alpha, beta = big_little if len(big_little) == 2 else (0, 0)
            check(alpha in (1, 2, 4, 8) and beta > 0, 'big_little', big_little,
                  '(alpha, beta) with alpha 1, 2, 4 or 8 and beta positive, or None')
            check(min(layers[:3]) > 1, 'layers', layers, 'at least 2 in stages 1 to 3 where big_little is set')
        if aa_shortcut and not (aa_size and shortcut == 'plain'):
            warnings.warn("aa_shortcut has no effect without an aa_size and shortcut='plain'.", stacklevel=2)

        self.in_chans, self.zero_init_last, self.drop_rate = in_chans, zero_init_last, drop_rate
        common = resolve_layers(act_layer, norm_layer, bn_eps, bn_momentum, device, dtype)
        self.stem = make_stem(in_chans, width, deep_stem, **common)
        self.stem_pool = make_stem_pool(width, big_little, **common)

        drop_paths: Any = calculate_drop_path_rates(drop_path_rate, list(layers), stagewise=True)
        stages, infos = make_stages(
            width, drop_paths, last_stride, output_stride, shortcut, aa_shortcut, big_little, drop_block_rate,
            attn=attn, aa_size=aa_size, **common)
        self.stages = nn.Sequential(*stages)
        self.feature_info: List[Dict[str, Any]] = [
            dict(num_chs=width, reduction=2, module=f'stem.{len(self.stem) - 1}'), *infos]
        self.num_features = infos[-1]['num_chs']
        self.embedding_args = dict(common, out_chs=embedding_size) if embedding_size else None
        self.global_pool: Any = nn.Identity()  # before the embedding, in the order of computation
        self.embedding: Any = nn.Identity()
        self._make_head(num_classes, global_pool, device, dtype)

        self.init_weights()
        self.register_load_state_dict_post_hook(fill_constant_buffers)

    def _make_head(self, num_classes: int, global_pool: str, device: Any, dtype: Any) -> None:
        """Make pooling and classifier, and the embedding between them if its input width changes."""
        check_classifier(num_classes, global_pool, (*POOLS, 'gem', 'flatten'))
        check(global_pool != 'flatten' or not self.embedding_args, 'global_pool', global_pool,
              'another where there is an embedding, whose width would depend on the size of the images')
        self.num_classes = num_classes
        self.global_pool = GeMPool2d() if global_pool == 'gem' else SelectAdaptivePool2d(
            pool_type='' if global_pool == 'flatten' else global_pool)
        self.global_pool.pool_type = global_pool
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        if self.embedding_args is not None:
            conv = getattr(self.embedding, 'conv', None)
            if conv is None or conv.in_channels != self.head_hidden_size:
                self.embedding = ConvNormAct(
                    self.head_hidden_size, **{**self.embedding_args, 'device': device, 'dtype': dtype})
            self.head_hidden_size = self.embedding_args['out_chs']
        self.flatten = nn.Flatten(1) if global_pool else nn.Identity()
        self.fc: Any = nn.Identity()
        if num_classes:
            self.fc = nn.Linear(self.head_hidden_size, num_classes, device=device, dtype=dtype)

    @torch.jit.ignore
    def init_weights(self) -> None:
        self.apply(init_weights_official)
        if self.zero_init_last:
            for m in self.modules():
                if isinstance(m, Bottleneck):
                    m.zero_init_last()
        fill_constant_buffers(self)

    __jit_unused_properties__ = ('grad_checkpointing',)

    @property
    def grad_checkpointing(self) -> bool:
        """Whether only the blocks' inputs are stored for the backward pass and the rest is computed again."""
        return any(m.grad_checkpointing for m in self.stages.modules() if isinstance(m, Bottleneck))

    @grad_checkpointing.setter
    def grad_checkpointing(self, enable: bool) -> None:
        for m in self.stages.modules():
            if isinstance(m, Bottleneck):
                m.grad_checkpointing = enable

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        """Return parameter groups for layer-wise decay, in the order of computation."""
        if coarse:
            return dict(stem=r'^stem', blocks=r'^stages\.(\d+)')
        return dict(stem=r'^stem', blocks=[
            (r'^stages\.(\d+)\.merge', (-1,)),  # before every block of the branches
            (r'^stages\.(\d+)\.(?:big\.|little\.)?(\d+)', None),
        ])

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        """Replace the classifier (0 classes for none) and, if given, the pooling."""
        before = self.embedding
        self._make_head(
            num_classes, self.global_pool.pool_type if global_pool is None else global_pool, **get_device_dtype(self))
        for new in (self.global_pool, self.embedding, self.flatten, self.fc):
            if new is not before:
                new.apply(init_weights_official).train(self.training)

    def forward_intermediates(
            self, x: torch.Tensor, indices: Optional[Union[int, List[int]]] = None, norm: bool = False,
            stop_early: bool = False, output_fmt: str = 'NCHW', intermediates_only: bool = False,
    ) -> Union[List[torch.Tensor], Tuple[torch.Tensor, List[torch.Tensor]]]:
        """Return the last feature map and those of the stem (0) and the stages (1 to 4).

        The arguments are timm's. ``norm`` has no effect, and ``output_fmt`` must be ``'NCHW'``.
        """
        check(output_fmt == 'NCHW', 'output_fmt', output_fmt, "'NCHW'")
        take_indices, max_index = feature_take_indices(len(self.feature_info), indices)
        x = self.stem(x)
        intermediates = [x] if 0 in take_indices else []
        x = self.stem_pool(x)
        last = max_index if stop_early else len(self.stages)  # fewer once pruned
        for i in range(1, last + 1):
            x = self.stages[i - 1](x)
            if i in take_indices:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
            self, indices: Union[int, List[int]] = 1, prune_norm: bool = False, prune_head: bool = True,
    ) -> List[int]:
        """Remove what :meth:`forward_intermediates` does not need for ``indices``."""
        take_indices, max_index = feature_take_indices(len(self.feature_info), indices)
        self.stages = self.stages[:max_index]
        if max_index == 0:
            self.stem_pool = nn.Identity()
        if prune_head or max_index < len(self.feature_info) - 1:
            self.num_features = int(self.feature_info[max_index]['num_chs'])
            self.embedding_args, self.embedding = None, nn.Identity()
            self.reset_classifier(0, '')
        return take_indices

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the last feature map, of stride 32 unless arguments say otherwise."""
        return self.stages(self.stem_pool(self.stem(x)))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Compute logits, or with ``pre_logits`` the classifier's input."""
        x = self.flatten(self.embedding(self.global_pool(x)))
        if self.drop_rate:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def _create(variant: str, pretrained: bool, overrides: Dict[str, Any], **model_args: Any) -> AssembleResNet:
    return build_model_with_cfg(
        AssembleResNet, variant, pretrained, feature_cfg=dict(flatten_sequential=True), **{**model_args, **overrides})


def _cfg(**kwargs: Any) -> Dict[str, Any]:
    return base_cfg(
        first_conv='stem.0.conv', classifier='fc', origin_url='https://github.com/clovaai/assembled-cnn', **kwargs)


_test_256 = dict(test_input_size=(3, 256, 256), test_pool_size=(8, 8))  # the paper's test size with Big-Little
default_cfgs = generate_default_cfgs({
    'assemble_resnet50_base': _cfg(),
    'assemble_resnet50_d': _cfg(),
    'assemble_resnet50_d_se': _cfg(),
    'assemble_resnet50_d_sk': _cfg(),
    'assemble_resnet50_bl': _cfg(**_test_256),
    'assemble_resnet50_bl_sk': _cfg(**_test_256),
    'assemble_resnet50': _cfg(**_test_256),
    'assemble_resnet101': _cfg(**_test_256),
    'assemble_resnet152': _cfg(**_test_256, test_crop_pct=256 / 257),
    'test_assemble_resnet': _cfg(input_size=(3, 160, 160), pool_size=(5, 5)),
})


@register_model
def assemble_resnet50_base(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """Plain ResNet-50 as the official code builds it. Row E0 of the paper's ablation."""
    return _create('assemble_resnet50_base', pretrained, kwargs, layers=(3, 4, 6, 3))


@register_model
def assemble_resnet50_d(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """ResNet-50-D. Rows E1, E2 and E3 of the paper's ablation."""
    return _create('assemble_resnet50_d', pretrained, kwargs, layers=(3, 4, 6, 3), deep_stem=True, shortcut='d')


@register_model
def assemble_resnet50_d_se(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """ResNet-50-D with squeeze-excitation. Rows E4 and E5 of the paper's ablation."""
    return _create(
        'assemble_resnet50_d_se', pretrained, kwargs, layers=(3, 4, 6, 3), deep_stem=True, shortcut='d', attn='se')


@register_model
def assemble_resnet50_d_sk(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """ResNet-50-D with selective kernels. Rows E6, E7 and E8 of the paper's ablation."""
    return _create(
        'assemble_resnet50_d_sk', pretrained, kwargs, layers=(3, 4, 6, 3), deep_stem=True, shortcut='d', attn='sk')


@register_model
def assemble_resnet50_bl(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """ResNet-50 with Big-Little. No row of the paper's ablation."""
    return _create(
        'assemble_resnet50_bl', pretrained, kwargs, layers=(3, 4, 6, 3), shortcut='big_little', big_little=(2, 4))


@register_model
def assemble_resnet50_bl_sk(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """ResNet-50 with Big-Little and SK-C3. Row E9 of the paper's ablation."""
    return _create(
        'assemble_resnet50_bl_sk', pretrained, kwargs,
        layers=(3, 4, 6, 3), shortcut='big_little', big_little=(2, 4), attn='sk')


@register_model
def assemble_resnet50(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """Assemble-ResNet-50. Rows E10 and E11 of the paper's ablation."""
    return _create(
        'assemble_resnet50', pretrained, kwargs,
        layers=(3, 4, 6, 3), shortcut='big_little', big_little=(2, 4), attn='sk', aa_size=3)


@register_model
def assemble_resnet101(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """Assemble-ResNet-101. No row of the paper's ablation."""
    return _create(
        'assemble_resnet101', pretrained, kwargs,
        layers=(4, 8, 18, 3), shortcut='big_little', big_little=(2, 4), attn='sk', aa_size=3)


@register_model
def assemble_resnet152(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """Assemble-ResNet-152, alpha 1, beta 2. Row E12 of the paper's ablation."""
    return _create(
        'assemble_resnet152', pretrained, kwargs,
        layers=(5, 12, 30, 3), shortcut='big_little', big_little=(1, 2), attn='sk', aa_size=3)


@register_model
def test_assemble_resnet(pretrained: bool = False, **kwargs: Any) -> AssembleResNet:
    """Assemble-ResNet of width 8 and few blocks, for tests."""
    return _create(
        'test_assemble_resnet', pretrained, kwargs,
        layers=(3, 3, 4, 2), width=8, shortcut='big_little', big_little=(2, 2), attn='sk', aa_size=3)
