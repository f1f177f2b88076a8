"""Arguments that users of timm pass to every model: dilation, activation, normalisation, stochastic depth, blur."""
from functools import partial

import pytest
import timm
import torch
from timm.layers import BlurPool2d, DropPath, GroupNormAct
from torch import nn

from timm_assemble.layers import (
    AntiAlias2d, Bottleneck,
)

tiny = partial(timm.create_model, 'test_assemble_resnet', num_classes=10)
PLAIN = dict(big_little=(), attn='')


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize('output_stride, kwargs', [
    *((8, dict(PLAIN, **kwargs)) for kwargs in (
        dict(aa_size=0, shortcut='plain'), dict(aa_size=0, shortcut='d'), dict(aa_size=0, shortcut='big_little'),
        dict(aa_size=3, shortcut='plain', aa_shortcut=True), dict(aa_size=5, shortcut='d'))),
    (16, dict(attn='')),  # Big-Little's stage 4
])
def test_dilated_network_has_the_strided_networks_values(output_stride, kwargs):
    """Dilation computes the same values, and those between them; gates, which average over all, are left out."""
    strided = tiny(zero_init_last=False, **kwargs).eval()
    dilated = tiny(output_stride=output_stride, **kwargs).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.randn(2, 3, 129, 97)
    for i, (theirs, ours) in enumerate(zip(strided.forward_intermediates(x, intermediates_only=True),
                                           dilated.forward_intermediates(x, intermediates_only=True))):
        step = strided.feature_info[i]['reduction'] // dilated.feature_info[i]['reduction']
        torch.testing.assert_close(ours[:, :, ::step, ::step], theirs, rtol=1e-4, atol=1e-4 * theirs.std().item())
    assert step == 32 // output_stride


def test_big_little_at_stride_8_stays_close_to_the_strided_network():
    """The big branch at half resolution is repeated between the strided network's positions."""
    kwargs = dict(attn='', zero_init_last=False)
    strided, dilated = tiny(**kwargs).eval(), tiny(output_stride=8, **kwargs).eval()
    dilated.load_state_dict(strided.state_dict())
    x = torch.nn.functional.interpolate(torch.randn(2, 3, 9, 9), (129, 129), mode='bicubic')
    theirs, ours = (m.forward_intermediates(x, indices=[3], intermediates_only=True)[0] for m in (strided, dilated))
    similarity = torch.cosine_similarity(ours[:, :, ::2, ::2].flatten(1), theirs.flatten(1))
    assert ours.shape[-1] == 17 and similarity.min() > 0.95


@pytest.mark.parametrize('act_layer', ['silu', nn.LeakyReLU])
def test_act_layer_replaces_every_relu(act_layer):
    for kwargs in (dict(embedding_size=8), dict(PLAIN, attn='se', deep_stem=True, shortcut='d')):
        model = tiny(act_layer=act_layer, **kwargs)
        kinds = [type(m).__name__ for m in model.modules()]
        assert 'ReLU' not in kinds and kinds.count('SiLU' if act_layer == 'silu' else 'LeakyReLU') > 20
        assert torch.isfinite(model(torch.randn(2, 3, 64, 64))).all()


def test_norm_layer_replaces_every_batch_norm():
    for norm_layer in ('groupnorm1', partial(GroupNormAct, num_groups=4)):
        model = tiny(norm_layer=norm_layer, embedding_size=8)
        assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.conv3.norm.weight == 0).all().item() for m in model.modules() if isinstance(m, Bottleneck)} == {True}
        assert torch.isfinite(model(torch.randn(1, 3, 64, 64))).all()
    assert {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)} == {4}
    own = tiny(norm_layer=partial(nn.BatchNorm2d, momentum=0.01), bn_eps=1e-3)
    assert {(m.momentum, m.eps) for m in own.modules() if isinstance(m, nn.BatchNorm2d)} == {(0.01, 1e-3)}


def test_drop_path_rate_grows_linearly_in_the_order_of_computation():
    """Stages of 3, 3, 4 and 2 blocks; the last block of a Big-Little stage merges its branches."""
    model = tiny(drop_path_rate=0.11)
    rates = {name: m.drop_prob for name, m in model.named_modules() if isinstance(m, DropPath)}
    order = [  # the first block has rate 0
        'stages.0.big.1', 'stages.1.merge.0', 'stages.1.big.0', 'stages.1.big.1', 'stages.2.merge.0', 'stages.2.big.0',
        'stages.2.big.1', 'stages.2.big.2', 'stages.3.0', 'stages.3.1', 'stages.3.2']
    expected = {f'{name}.drop_path': 0.01 * i for i, name in enumerate(order, 1)}
    expected |= {'stages.1.little.0.drop_path': 0.03, 'stages.2.little.0.drop_path': 0.06}
    assert rates == pytest.approx(expected)


def test_drop_path_drops_residuals_in_training_only():
    block = tiny(drop_path_rate=1.0, zero_init_last=False).stages[3][2]
    x = torch.rand(2, 256, 4, 4)
    assert torch.equal(block.train()(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_aa_layer_blur_is_filter_size_3():
    for aa_layer in ('blur', BlurPool2d):
        model = tiny(aa_layer=aa_layer, aa_size=0)
        assert {m.filt_size for m in model.modules() if isinstance(m, AntiAlias2d)} == {3}
