"""Convolution, normalization, DropBlock and activation, each a child of its own."""
from functools import partial
from inspect import Parameter, signature
from typing import Any, Callable, Dict, Optional, Tuple

import torch
from timm.layers import LayerType, create_act_layer, get_norm_act_layer, get_norm_layer
from torch import nn

from ..errors import UserError, check, error_line

__all__ = ['ConvNormAct', 'NormAct', 'resolve_norm_layer']

PLAIN = ('batchnorm2d', 'groupnorm', 'groupnorm1', *(
    f'{kind}{dims}{dtype}' for kind in ('layernorm', 'rmsnorm') for dims in ('', '2d') for dtype in ('', 'fp32')))
LAST_DIMENSION = ('layernorm', 'rmsnorm')  # normalise the last dimension, not the channels


def resolve_norm_layer(norm_layer: LayerType, **batch_norm: float) -> Callable[..., nn.Module]:
    """Return a normalization layer without an activation of its own, where timm has one.

    Args:
        norm_layer: timm's name, a class, or a ``functools.partial`` of one, whose first argument are the channels.
        batch_norm: Arguments of layers with a momentum; what a partial sets stays.

    Raises:
        UserError: It is none of these, or does not normalise ``(B, C, H, W)``.
    """
    layer: Any = norm_layer
    given: Dict[str, Any] = {}
    if isinstance(layer, partial) and not layer.args:
        layer, given = layer.func, layer.keywords
    try:
        layer = get_norm_act_layer(layer) if isinstance(layer, str) else layer
        layer = getattr(layer, 'func', layer)  # timm binds the activation
        name = getattr(layer, '__name__', '').replace('Act', '').lower()  # BatchNormAct2d is BatchNorm2d and a ReLU
        layer = get_norm_layer(name) if name in PLAIN else layer
        parameters = dict(signature(layer).parameters)
    except (AssertionError, KeyError, TypeError, ValueError):
        name, parameters = '', {}
    first = next(iter(parameters.values()), None)
    check(first is not None and first.default is Parameter.empty and name.removesuffix('fp32') not in LAST_DIMENSION,
          'norm_layer', norm_layer, "a class, or a name of timm such as 'batchnorm2d', 'groupnorm' or 'layernorm2d'")
    return partial(layer, **{**(batch_norm if 'momentum' in parameters else {}), **given})


def _norm_drop_act(
        channels: int,
        norm_layer: LayerType,
        act_layer: Optional[LayerType],
        drop_layer: Optional[Callable[[], nn.Module]],
        **dd: Any,
) -> Tuple[nn.Module, nn.Module, nn.Module]:
    make = resolve_norm_layer(norm_layer)
    kwargs: Dict[str, Any] = {key: value for key, value in dd.items() if value is not None}
    with_act = 'apply_act' in signature(make).parameters  # EvoNorm and others, which cannot be taken apart
    if with_act:
        kwargs.update(apply_act=act_layer is not None, act_layer=act_layer)
    try:
        norm = make(channels, **kwargs)
        if with_act:  # EvoNorm's groups are divided in its forward pass
            norm.eval()(next(norm.parameters()).new_zeros(2, channels, 2, 2))
            norm.train()
    except (AssertionError, TypeError, ValueError) as e:  # of the layer, for what the user bound or for the channels
        raise UserError(f'norm_layer must take {channels} channels, got {norm_layer!r}: {error_line(e)}') from e
    act = nn.Identity() if with_act or act_layer is None else create_act_layer(act_layer, inplace=True)
    assert act is not None
    return norm, nn.Identity() if drop_layer is None else drop_layer(), act


class NormAct(nn.Module):
    """Normalisation, DropBlock, activation.

    Each is a child: what replaces a model's batch norms, such as ``SyncBatchNorm.convert_sync_batchnorm``, replaces
    the norm alone. timm's ``BatchNormAct2d`` is a batch norm with the others inside. Its weights load.

    Args:
        channels: Channels of the input.
        norm_layer: Normalisation layer, see :func:`resolve_norm_layer`.
        act_layer: Activation layer, or None.
        drop_layer: Callable that returns a new DropBlock layer, or None.
    """

    def __init__(
            self,
            channels: int,
            norm_layer: LayerType = nn.BatchNorm2d,
            act_layer: Optional[LayerType] = nn.ReLU,
            drop_layer: Optional[Callable[[], nn.Module]] = None,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        super().__init__()
        self.norm, self.drop, self.act = _norm_drop_act(
            channels, norm_layer, act_layer, drop_layer, device=device, dtype=dtype)
        self.register_load_state_dict_pre_hook(_rename_weights_of_timm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(self.norm(x)))


def _rename_weights_of_timm(module: nn.Module, state: Dict[str, Any], prefix: str, *_: Any) -> None:
    for leaf in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'):
        if prefix + leaf in state:
            state[f'{prefix}norm.{leaf}'] = state.pop(prefix + leaf)


class ConvNormAct(nn.Module):
    """Convolution without bias, normalization, DropBlock, activation.

    Input ``(B, in_chs, H, W)``, output ``(B, out_chs, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_chs, out_chs: Channels.
        kernel_size: Odd size of the kernel, padded by half of it.
        stride, dilation: Of the convolution.
        norm_layer, act_layer, drop_layer: Those of :class:`NormAct`.
    """

    def __init__(
            self,
            in_chs: int,
            out_chs: int,
            kernel_size: int = 1,
            stride: int = 1,
            dilation: int = 1,
            norm_layer: LayerType = nn.BatchNorm2d,
            act_layer: Optional[LayerType] = nn.ReLU,
            drop_layer: Optional[Callable[[], nn.Module]] = None,
            device: Any = None,
            dtype: Any = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_chs, out_chs, kernel_size, stride, dilation * (kernel_size // 2), dilation, bias=False, device=device,
            dtype=dtype)
        self.norm, self.drop, self.act = _norm_drop_act(
            out_chs, norm_layer, act_layer, drop_layer, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(self.norm(self.conv(x))))
