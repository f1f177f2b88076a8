"""What other code replaces or fills in a model: batch norms by converters, all values after ``to_empty``."""
import copy

import pytest
import timm
import torch
from timm.layers import convert_splitbn_model, convert_sync_batchnorm, freeze_batch_norm_2d, unfreeze_batch_norm_2d
from torch import nn

from timm_assemble.layers import ATTENTIONS, DropBlock2d
from timm_assemble.models.family import registered_models

CONVERTERS = dict(
    torch_sync=nn.SyncBatchNorm.convert_sync_batchnorm, timm_sync=convert_sync_batchnorm, split=convert_splitbn_model,
    frozen=freeze_batch_norm_2d, unfrozen=lambda model: unfreeze_batch_norm_2d(freeze_batch_norm_2d(model)))
SMALL = dict(width=8, num_classes=10, drop_block_rate=0.3)
NORMS = ('batchnorm2d', 'groupnorm1', 'layernorm2d', 'layernorm2dfp32', 'rmsnorm2d', 'frn', 'frntlu', 'evonormb0',
         'evonorms0a', 'evonorms2a')


def as_trained(model):
    """Give every norm values that a lost one changes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith(('weight', 'var')) else -0.5))
    return model


@pytest.mark.parametrize('converter', CONVERTERS)
@pytest.mark.parametrize('name', registered_models())
def test_a_converter_of_batch_norms_keeps_the_function(name, converter):
    """Activation and DropBlock included, which must not be lost with the norm that they follow."""
    model, x = as_trained(timm.create_model(name, **SMALL)).eval(), torch.randn(2, 3, 64, 64)
    expected, before = model(x), {type(m) for m in model.modules()}
    drops = [path for path, m in model.named_modules() if isinstance(m, DropBlock2d)]
    converted = CONVERTERS[converter](copy.deepcopy(model)).eval()
    assert ({type(m) for m in converted.modules()} == before) == (converter == 'unfrozen')
    assert [path for path, m in converted.named_modules() if isinstance(m, DropBlock2d)] == drops and drops
    torch.testing.assert_close(converted(x), expected, rtol=1e-4, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize('converter', ['split', 'unfrozen'])
def test_a_converter_of_batch_norms_keeps_the_training_step(converter):
    """With batches and masks that are the same for each half."""
    x = torch.randn(2, 3, 64, 64).repeat(2, 1, 1, 1)
    for name in ('test_assemble_resnet', 'assemble_mobilenet_se2'):
        model = as_trained(timm.create_model(name, **SMALL))
        losses = []
        for m in (model, CONVERTERS[converter](copy.deepcopy(model)).train()):
            torch.manual_seed(0)
            losses.append(m(x).square().mean())
            losses[-1].backward()
        torch.testing.assert_close(*losses, rtol=1e-4, atol=0)


@pytest.mark.parametrize('norm_layer', NORMS)
@pytest.mark.parametrize('name', ['test_assemble_resnet', 'assemble_mobilenet_se2'])
def test_init_weights_fills_every_value_of_an_empty_model(name, norm_layer):
    kwargs = {} if 'mobile' in name else dict(embedding_size=32, big_little=(1, 2))
    model = timm.create_model(name, width=32, num_classes=10, norm_layer=norm_layer, device='meta', **kwargs)
    model.to_empty(device='cpu')
    for t in [*model.parameters(), *model.buffers()]:
        if t.is_floating_point():
            t.data.fill_(float('nan'))
    model.init_weights()
    assert not [key for key, t in model.state_dict().items() if not t.isfinite().all()]
    y = model.train()(torch.randn(2, 3, 64, 64))
    y.square().sum().backward()
    assert y.isfinite().all() and all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize('attn', [attn for attn in ATTENTIONS if attn])
def test_every_attention_layer_of_timm_is_in_every_block(attn):
    kwargs = dict(width=16, num_classes=10, attn=attn, layers=(2, 2, 2, 1))
    model = timm.create_model('test_assemble_resnet', device='meta', **kwargs).to_empty(device='cpu')
    for t in model.state_dict().values():
        t.fill_(7 if t.ndim == 0 else float('nan'))
    model.init_weights()
    x = torch.randn(2, 3, 70, 95)
    assert model(x).isfinite().all()
    without = timm.create_model('test_assemble_resnet', **{**kwargs, 'attn': ''})
    assert sum(p.numel() for p in model.parameters()) >= sum(p.numel() for p in without.parameters())
    assert [type(m) for m in model.modules()] != [type(m) for m in without.modules()]
