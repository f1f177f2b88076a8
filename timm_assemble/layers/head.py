"""Classifier head: pooling, optional embedding, dropout, linear classifier."""
from typing import Any, Optional

import torch
import torch.nn.functional as F
from timm.layers import ConvNormAct, LayerType, SelectAdaptivePool2d
from torch import nn

from ..errors import UserError
from .gem_pool import GeMPool2d
from .weight_init import init_weights_official

__all__ = ['AssembleHead', 'GLOBAL_POOLS']

GLOBAL_POOLS = (
    '', 'gem', 'flatten', 'avg', 'max', 'avgmax', 'catavgmax', 'fast', 'fastavg', 'fastmax', 'fastavgmax',
    'fastcatavgmax')


class AssembleHead(nn.Module):
    """Pooling, embedding (1x1, BN, ReLU), dropout and classifier.

    Input ``(B, in_chs, h, w)``, output logits ``(B, num_classes)``. Without classes the output is the embedding or the
    pooled features, without pooling a feature map.

    Source: arXiv 2001.06268 section 4.3; the embedding is the official code's ``embedding_size``.

    Args:
        in_chs: Channels of the features.
        num_classes: Number of classes; 0 for no classifier.
        pool_type: One of ``GLOBAL_POOLS``: ``'gem'``, ``''`` for none, ``'flatten'`` for the feature map as a vector,
            or one of timm's ``SelectAdaptivePool2d``.
        embedding_size: Width of the embedding; 0 for none.
        drop_rate: Dropout rate before the classifier.
        norm_layer: Normalisation layer of the embedding.
        act_layer: Activation layer of the embedding.

    Raises:
        UserError: Unknown pooling, negative ``num_classes``, or ``'flatten'`` before a layer of fixed width.
    """

    def __init__(
            self,
            in_chs: int,
            num_classes: int,
            pool_type: str = 'avg',
            embedding_size: int = 0,
            drop_rate: float = 0.,
            norm_layer: LayerType = nn.BatchNorm2d,
            act_layer: LayerType = nn.ReLU,
            device=None,
            dtype=None,
    ) -> None:
        super().__init__()
        self.in_chs = in_chs
        self.embedding_size = embedding_size
        self.drop_rate = drop_rate
        self.norm_layer = norm_layer
        self.act_layer = act_layer
        self.embedding: Any = nn.Identity()
        self.reset(num_classes, pool_type, device=device, dtype=dtype)

    def reset(self, num_classes: int, pool_type: Optional[str] = None, device=None, dtype=None) -> None:
        """Replace the classifier and, if given, the pooling.

        The embedding stays unless its input width changes.
        """
        pool_type = self.global_pool.pool_type if pool_type is None else pool_type
        if pool_type not in GLOBAL_POOLS:
            raise UserError(f'global_pool must be one of {GLOBAL_POOLS}, got {pool_type!r}.')
        if num_classes < 0:
            raise UserError(f'num_classes must be 0 or more, got {num_classes!r}.')
        if pool_type == 'flatten' and (num_classes or self.embedding_size):
            raise UserError("global_pool must not be 'flatten' with `num_classes` or `embedding_size` above 0, since "
                            'its width depends on the size of the images')
        dd = dict(device=device, dtype=dtype)
        self.global_pool: Any = GeMPool2d() if pool_type == 'gem' else SelectAdaptivePool2d(
            pool_type='' if pool_type == 'flatten' else pool_type)
        self.global_pool.pool_type = pool_type
        pooled_chs = self.in_chs * self.global_pool.feat_mult()
        if self.embedding_size and getattr(self.embedding, 'in_channels', None) != pooled_chs:
            self.embedding = ConvNormAct(
                pooled_chs, self.embedding_size, 1, norm_layer=self.norm_layer, act_layer=self.act_layer, **dd)
            self.embedding.apply(init_weights_official)
        self.flatten = nn.Flatten(1) if pool_type else nn.Identity()
        self.hidden_size = self.embedding_size or pooled_chs
        self.fc: Any = nn.Linear(self.hidden_size, num_classes, **dd) if num_classes else nn.Identity()
        init_weights_official(self.fc)
        self.train(self.training)

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.global_pool(x)
        x = self.embedding(x)
        x = self.flatten(x)
        if self.drop_rate:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)
