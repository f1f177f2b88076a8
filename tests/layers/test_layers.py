"""Properties that every layer has, whatever it computes; its values are tested in the other files.

Channels-last, autocast, TorchScript, torch.compile and copies are tested with complete models, which have all layers.
"""
from functools import partial

import pytest
import torch
from torch import nn

from timm_assemble.layers import (
    AntiAlias2d, BigLittleStage, BigLittleStem, Bottleneck, ConvNormAct, DilatedAvgPool2d, DropBlock2d, GeMPool2d,
    MaxPool2dSame, NormAct, ProjectionShortcut, SelectiveKernelC3,
)
from timm_assemble.layers.constant_buffers import ConstantBuffers


def big_little(kind, stride):
    return lambda **dd: kind(
        big=ConvNormAct(8, 8, 3, stride=stride, act_layer=None, **dd),
        little=ConvNormAct(8, 8, 3, stride=1 if kind is BigLittleStage else stride, act_layer=None, **dd),
        merge=ConvNormAct(8, 8 if kind is BigLittleStage else 16, 1, **dd))


def bottleneck(drop=False, **kwargs):
    def make(device=None, dtype=None):
        drop_layer = partial(DropBlock2d, device=device) if drop else None
        common = dict(drop_layer=drop_layer, device=device, dtype=dtype)
        shortcut = ProjectionShortcut(8, 32, 2, kind='big_little', **common)
        return Bottleneck(8, 8, stride=2, shortcut=shortcut, **kwargs, **common)
    return make


# layer -> factory and output shape for (2, 8, 9, 12)
LAYERS = {
    'selective_kernel': (lambda **dd: SelectiveKernelC3(8, 16, **dd), (2, 16, 9, 12)),
    'selective_kernel_strided': (lambda **dd: SelectiveKernelC3(8, stride=2, **dd), (2, 8, 5, 6)),
    'big_little_stem': (big_little(BigLittleStem, 2), (2, 16, 5, 6)),
    'big_little_stage': (big_little(BigLittleStage, 2), (2, 8, 9, 12)),
    'anti_alias': (lambda **dd: AntiAlias2d(8, filt_size=3, **dd), (2, 8, 5, 6)),
    'anti_alias_even': (lambda **dd: AntiAlias2d(filt_size=4, **dd), (2, 8, 5, 6)),
    'drop_block': (lambda device=None, dtype=None: DropBlock2d(0.5, device=device), (2, 8, 9, 12)),
    'gem_pool': (lambda device=None, dtype=None: GeMPool2d(), (2, 8, 1, 1)),
    'shortcut_plain': (lambda **dd: ProjectionShortcut(8, 16, 2, kind='plain', aa_size=3, **dd), (2, 16, 5, 6)),
    'max_pool': (lambda device=None, dtype=None: MaxPool2dSame(), (2, 8, 5, 6)),
    'dilated_pool': (lambda device=None, dtype=None: DilatedAvgPool2d(3, 2, 2, 2), (2, 8, 5, 6)),
    'shortcut_d': (lambda **dd: ProjectionShortcut(8, 16, 2, kind='d', **dd), (2, 16, 5, 6)),
    'shortcut_d_1': (lambda **dd: ProjectionShortcut(8, 16, 1, kind='d', **dd), (2, 16, 9, 12)),
    'shortcut_d_dilated': (lambda **dd: ProjectionShortcut(8, 16, 1, 4, 2, kind='d', **dd), (2, 16, 9, 12)),
    'bottleneck_sk_aa': (bottleneck(attn='sk', aa_size=3, drop=True), (2, 32, 5, 6)),
    'bottleneck_se': (bottleneck(attn='se'), (2, 32, 5, 6)),
    'bottleneck_cbam': (bottleneck(attn='cbam'), (2, 32, 5, 6)),
    'conv_norm_act': (lambda **dd: ConvNormAct(8, 16, 3, 2, norm_layer='groupnorm1', **dd), (2, 16, 5, 6)),
    'norm_act': (lambda **dd: NormAct(8, act_layer='silu', **dd), (2, 8, 9, 12)),
}
SHAPE = (2, 8, 9, 12)


@pytest.fixture(params=LAYERS)
def case(request):
    """Return the factory and the output shape of one layer."""
    torch.manual_seed(0)
    return LAYERS[request.param]


def features(dtype=torch.float32):
    return torch.rand(SHAPE, dtype=dtype).contiguous(memory_format=torch.channels_last)


def test_output_shape_and_finite_gradients_of_all_parameters(case):
    make, shape = case
    layer, x = make().train(), features().requires_grad_()
    y = layer(x)
    assert y.shape == shape
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0
    assert all(p.grad is not None for p in layer.parameters())


def test_gradients_equal_numerical_ones(case):
    make, _ = case
    layer = make(dtype=torch.float64).double().eval()
    assert torch.autograd.gradcheck(layer, features(torch.float64)[:1, :, :4, :5].requires_grad_(), fast_mode=True)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('training', [False, True])
def test_output_keeps_shape_and_dtype(case, dtype, training):
    make, shape = case
    layer, x = make().to(dtype).train(training), features(dtype)
    y = layer(x)
    assert y.dtype == dtype and y.shape == shape and torch.isfinite(y).all()


def test_meta_device_computes_shapes(case):
    make, shape = case
    layer = make(device='meta')
    assert all(t.is_meta for t in [*layer.parameters(), *layer.buffers()])
    assert layer.train()(torch.empty(SHAPE, device='meta')).shape == shape


def test_constant_buffers_survive_a_move_from_the_meta_device(case):
    make, _ = case
    layer = make(device='meta')
    for module in layer.modules():  # libraries load a meta model's weights one by one, without load_state_dict
        for name in module._parameters:
            setattr(module, name, None)
        if not isinstance(module, ConstantBuffers):
            module._buffers.clear()
    expected = {name: buffer for name, buffer in make().named_buffers() if name in dict(layer.named_buffers())}
    torch.testing.assert_close(dict(layer.to('cpu').named_buffers()), expected)


def test_state_dict_has_no_constants(case):
    make, _ = case
    learned = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    assert all(key.endswith(learned) for key in make().state_dict())


def test_every_public_layer_is_tested():
    import timm_assemble.layers as layers
    modules = {v for v in vars(layers).values() if isinstance(v, type) and issubclass(v, nn.Module)}
    assert {type(make()) for make, _ in LAYERS.values()} == modules
