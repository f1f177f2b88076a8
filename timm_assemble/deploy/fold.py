"""Folding: batch norms into their convolutions, weights channels-last and in the dtype they run in."""
import copy
from numbers import Integral
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_map_only

from ..errors import UserError
from ..layers import ConvNormAct
from ..models.assemble_mobilenet import AssembleMobileNet

__all__ = ['fold_batch_norms', 'FoldedModel', 'check_size', 'fold_for_inference']

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PAIRS: Dict[type, Sequence[Tuple[str, str]]] = {  # convolutions and the norms that follow them
    ConvNormAct: [('conv', 'norm')],
    AssembleMobileNet: [('conv_stem', 'bn1.norm')],
    DepthwiseSeparableConv: [('conv_dw', 'bn1.norm'), ('conv_pw', 'bn2.norm')],
}
TIMM_ATTRIBUTES = ('pretrained_cfg', 'default_cfg', 'num_classes', 'num_features', 'feature_info')


def _fold(layer: nn.Module, conv_name: str, norm_name: str) -> None:
    conv = getattr(layer, conv_name)
    try:
        norm: Any = layer.get_submodule(norm_name)
    except AttributeError:
        return  # of timm's own MobileNet
    if getattr(norm, 'running_mean', None) is None:
        return  # already folded, or another norm
    dtype = conv.weight.dtype
    setattr(layer, conv_name, fuse_conv_bn_eval(conv.double(), norm.double()).to(dtype))
    layer.set_submodule(norm_name, nn.Identity().eval())  # DropBlock, which follows, is the identity in eval mode


def fold_batch_norms(model: nn.Module) -> nn.Module:
    r"""Fold the batch norms of ``ConvNormAct`` layers and MobileNet blocks into their convolutions, in place.

    .. math:: w' = w\,\frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \qquad
        b' = \beta + (b - \mu)\,\frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}

    is computed in float64 and rounded to the weights' dtype once. These hold every batch norm of this package's models:
    also those of selective kernels, little branches, shortcuts and the head's embedding.

    Args:
        model: In eval mode. Its convolutions get biases, and identities replace its norms.

    Returns:
        ``model``.

    Raises:
        UserError: The model or a part of it is in training mode, where batch norm uses the batch's statistics.
    """
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise UserError(f'model must be in eval mode, call model.eval(); in training mode: {", ".join(training[:3])}'
                         f'{" and more" if len(training) > 3 else ""}.')
    with torch.no_grad():
        for module in model.modules():
            for kind, pairs in PAIRS.items():
                for names in pairs if isinstance(module, kind) else ():
                    _fold(module, *names)
    return model


class FoldedModel(nn.Module):
    """A folded model: the same call as before, without gradients, computed in the dtype of the weights.

    The casts of the images to this dtype and of the outputs back are compiled and exported together with the model.

    Args:
        model: In eval mode.
    """

    memory_format = torch.channels_last  # of the images: one layout, one compilation

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.in_chans = input_channels(model)
        for name in TIMM_ATTRIBUTES:  # timm.data.resolve_model_data_config and others read them
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self.training = False

    def train(self, mode: bool = True) -> 'FoldedModel':
        """Stay in eval mode; raise UserError for training mode."""
        if mode:
            raise UserError('mode must be False: an optimized model has no batch norms left to train.')
        return self

    def contiguous(self) -> 'FoldedModel':
        """Return this model with weights and images in torch's default layout."""
        self.model.to(memory_format=torch.contiguous_format)
        self.memory_format = torch.contiguous_format
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Reject another dtype or device, which compiled calls would not follow."""
        raise UserError('model must be optimized again, from the original, for another dtype or device')

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise UserError('model must be optimized again, from the original, for other weights')

    def __call__(self, x: torch.Tensor) -> Any:
        if not (isinstance(x, torch.Tensor) and x.is_floating_point()):
            got = getattr(x, 'dtype', type(x).__name__)
            raise UserError(f'x must be a tensor of floating point, images as preprocessed for the model, got {got}.')
        if x.ndim != 4 or self.in_chans not in (None, x.shape[1]):
            raise UserError(f'x must be (B, {self.in_chans or "C"}, H, W), got {tuple(x.shape)}.')
        if x.shape[0] == 0:
            return tree_map_only(torch.Tensor, lambda y: y[:0], self(x.new_zeros(1, *x.shape[1:])))
        with torch.no_grad():  # inductor folds constants only without gradients
            return super().__call__(x.contiguous(memory_format=self.memory_format))

    def forward(self, x: torch.Tensor) -> Any:
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        y = self.model(x.to(dtype, memory_format=self.memory_format))
        return tree_map_only(torch.Tensor, lambda z: z.to(x.dtype) if z.is_floating_point() else z, y)


def input_channels(model: nn.Module) -> Optional[int]:
    """Return the channels of a model's images, None without a convolution."""
    return getattr(model, 'in_chans', None) or next(
        (m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)


def check_size(model: nn.Module, size: Sequence[int], name: str = 'example_size') -> None:
    """Raise UserError, which calls the size ``name``, unless the model can be called with it."""
    if len(size) not in (3, 4) or not all(isinstance(n, Integral) and n > 0 for n in size):  # numpy's too
        raise UserError(f'{name} must be (B, C, H, W) or (C, H, W), positive integers, got {tuple(size)!r}.')
    channels = input_channels(model)
    if channels not in (None, size[-3]):
        raise UserError(f"{name} must have the model's {channels} channels, got {tuple(size)!r}.")


def fold_for_inference(
        model: nn.Module, example_size: Sequence[int], dtype: Optional[torch.dtype] = None) -> FoldedModel:
    """Return a folded copy of a model, channels-last and cast: ``optimize_for_inference`` without compilation.

    Args and errors are those of :func:`~timm_assemble.deploy.optimize.optimize_for_inference`.
    """
    check_size(model, example_size)
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f'dtype must be one of {DTYPES} or None, got {dtype!r}.')
    if isinstance(model, FoldedModel):
        raise UserError('model must be the original, got one that is optimized already')
    own = next((p.dtype for p in model.parameters()), torch.float32)
    if dtype is None and own not in DTYPES:
        raise UserError(f'dtype must be one of {DTYPES} for a model in {own}, got None')
    folded = fold_batch_norms(copy.deepcopy(model)).requires_grad_(False)
    return FoldedModel(folded.to(dtype=dtype, memory_format=torch.channels_last))  # type: ignore[call-overload]
