"""The MobileNets as timm models: weights, squeeze-excitation, DropBlock, arguments and training."""
import copy
import re
from functools import partial

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import FeatureInfo
from timm.optim import param_groups_layer_decay
from torch import nn

from timm_assemble.layers import DropBlock2d
from timm_assemble.models.family import registered_models
from timm_assemble.recipes.paper import MOBILENETS, rows_of

tiny = partial(timm.create_model, 'assemble_mobilenet_se2', width=8, num_classes=10)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_networks_of_the_paper_are_registered():
    assert sorted(timm.list_models(module='assemble_mobilenet')) == sorted(MOBILENETS)
    assert {*MOBILENETS} < {*registered_models()}


@pytest.mark.parametrize('name', MOBILENETS)
def test_docstrings_name_the_rows_of_the_paper(name):
    text = timm.model_entrypoint(name).__doc__
    assert re.findall(r'\bM\d\b', text) == [row.name for row in rows_of(name)]


@pytest.mark.parametrize('name', MOBILENETS)
def test_configuration_has_the_official_preprocessing_and_the_classifier(name):
    model = timm.create_model(name, device='meta')
    cfg, resnet = model.pretrained_cfg, timm.get_pretrained_cfg('assemble_resnet50_d')
    assert cfg['architecture'] == name and cfg['paper_ids'] == 'arXiv:2001.06268'
    assert model.get_submodule(cfg['classifier']) is model.get_classifier()
    assert resolve_data_config(cfg) == resolve_data_config(resnet.to_dict())


def test_weights_of_timms_mobilenet_load_and_give_equal_logits():
    """timm's network, also with its smaller widths' weights."""
    theirs, x = timm.create_model('mobilenetv1_100').eval(), torch.randn(2, 3, 64, 64)
    ours = timm.create_model('assemble_mobilenet', drop_block_rate=0.1).eval()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(ours(x), theirs(x))
    wider = timm.create_model('assemble_mobilenet', width=40, device='meta').state_dict()
    assert {k: v.shape for k, v in timm.create_model('mobilenetv1_125', device='meta').state_dict().items()} == {
        k.replace('.norm.', '.'): v.shape for k, v in wider.items()}


@pytest.mark.parametrize('name, reduction, params', [
    ('assemble_mobilenet', 0, 4_231_976), ('assemble_mobilenet_se16', 16, None), ('assemble_mobilenet_se2', 2, None)])
def test_every_block_squeezes_its_channels(name, reduction, params):
    model = timm.create_model(name, device='meta')
    channels = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024]  # of the depthwise convolutions
    blocks = [block for stage in model.blocks for block in stage]
    assert [block.conv_dw.out_channels for block in blocks] == channels
    extra = 0
    for block, chs in zip(blocks, channels):
        if reduction:
            assert block.se.conv_reduce.out_channels == chs // reduction
            extra += 2 * chs * (chs // reduction) + chs // reduction + chs
        else:
            assert isinstance(block.se, nn.Identity)
    assert sum(p.numel() for p in model.parameters()) == 4_231_976 + extra


def test_narrow_networks_squeeze_to_one_channel_at_least():
    model = tiny(se_reduction=100)
    assert {block.se.conv_reduce.out_channels for stage in model.blocks for block in stage} == {1, 3}


def test_drop_block_follows_every_norm_of_the_last_two_stages():
    found = {path: m.gamma_scale for path, m in tiny(drop_block_rate=0.1).named_modules() if isinstance(m, DropBlock2d)}
    assert found == {f'blocks.{stage}.{i}.{norm}.drop': scale for stage, blocks, scale in ((3, 6, 0.25), (4, 2, 1.0))
                     for i in range(blocks) for norm in ('bn1', 'bn2')}
    assert not [m for m in tiny().modules() if isinstance(m, DropBlock2d)]


def test_drop_block_is_before_the_activation_and_in_training_only():
    """All blocks dropped: every activation of the last stage is ReLU6(0)."""
    model, x = tiny(drop_block_rate=1.0), torch.randn(2, 3, 64, 64)
    dropped = model.blocks[-1][0].bn2.drop
    seen = []
    model.blocks[-1][0].bn2.register_forward_hook(lambda module, args, output: seen.append(output))
    dropped.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    model.train()(x)
    assert not seen[0].any() and not seen[1].any()
    assert torch.equal(model.eval()(x), model(x))
    assert seen[-1].any() and seen[-1].min() >= 0 and (seen[-2] < 0).any()


def test_schedule_sets_the_rate_of_every_layer():
    model = tiny(drop_block_rate=0.1)
    model.set_drop_block_rate(0.4)
    assert {round(m.rate.item(), 6) for m in model.modules() if isinstance(m, DropBlock2d)} == {0.4}
    assert not [key for key in model.state_dict() if 'drop' in key]
    with pytest.warns(UserWarning, match='no effect: the model was made with drop_block_rate=0'):
        tiny().set_drop_block_rate(0.1)
    with pytest.raises(ValueError, match='rate must be from 0 to 1, got 2'):
        model.set_drop_block_rate(2)


def test_features_have_the_widths_and_strides_of_feature_info():
    model, x = tiny().eval(), torch.randn(1, 3, 64, 96)
    info = FeatureInfo(model.feature_info, (0, 1, 2, 3, 4))
    assert info.reduction() == [2, 4, 8, 16, 32] and info.channels() == [16, 32, 64, 128, 256]
    listed = tiny(features_only=True).eval()
    listed.load_state_dict(
        {key.replace('blocks.', 'blocks_', 1): value for key, value in model.state_dict().items()}, strict=False)
    torch.testing.assert_close(listed(x), model.forward_intermediates(x)[1])


@pytest.mark.parametrize('kwargs, message', [
    (dict(width=12), 'width must be a positive multiple of 8, got 12'),
    (dict(se_reduction=-1), 'se_reduction must be 0 or more, got -1'),
    (dict(output_stride=4), 'output_stride must be 8, 16 or 32, got 4'),
    (dict(drop_block_rate=1.1), 'drop_block_rate must be from 0 to 1, got 1.1'),
    (dict(drop_rate=-0.1), 'drop_rate must be from 0 to 1, got -0.1'),
    (dict(global_pool='gem'), "global_pool must be one of .* got 'gem'"),
    (dict(global_pool=''), "num_classes must be 0 where global_pool is '', got 10"),
    (dict(num_classes=-1), 'num_classes must be 0 or more, got -1'),
    (dict(act_layer='x'), "act_layer must be a class, or a name of timm .* got 'x'"),
    (dict(norm_layer='x'), "norm_layer must be a class, or a name of timm .* got 'x'"),
])
def test_arguments_out_of_range_are_rejected(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


def test_unknown_arguments_are_rejected():
    with pytest.raises(TypeError, match='deep_stem'):
        tiny(deep_stem=True)


def test_drop_path_rate_is_taken_and_warns():
    """train.py passes it to every model."""
    with pytest.warns(UserWarning, match='drop_path_rate has no effect: MobileNet-V1 has no residual branches'):
        tiny(drop_path_rate=0.1)


def test_batch_norm_arguments_reach_every_norm():
    norms = [m for m in tiny(bn_momentum=0.003, bn_eps=1e-3).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 27 and {(m.momentum, m.eps) for m in norms} == {(0.003, 1e-3)}


def test_weights_load_into_an_empty_model():
    reference, x = tiny(drop_block_rate=0.2).eval(), torch.randn(2, 3, 64, 64)
    model = tiny(device='meta', drop_block_rate=0.2).to_empty(device='cpu').eval()
    assigned = tiny(device='meta', drop_block_rate=0.2).eval()
    for empty, assign in ((model, False), (assigned, True)):
        empty.load_state_dict(reference.state_dict(), assign=assign)
        assert torch.equal(empty(x), reference(x)) and not [t for t in empty.buffers() if t.is_meta]
        assert empty.blocks[4][0].bn1.drop.rate.item() == pytest.approx(0.2)


def test_gradient_checkpointing_gives_equal_gradients():
    x, gradients, model = torch.randn(4, 3, 64, 64), [], tiny(drop_block_rate=0.2)
    for enable in (False, True):
        torch.manual_seed(1)
        again = copy.deepcopy(model).train()
        again.set_grad_checkpointing(enable)
        again(x).square().mean().backward()
        gradients.append([p.grad for p in again.parameters()])
    torch.testing.assert_close(*gradients)


def test_layer_decay_follows_the_order_of_computation():
    model = tiny()
    scales = {id(p): g['lr_scale'] for g in param_groups_layer_decay(model, layer_decay=0.5) for p in g['params']}
    scale = {name: scales[id(p)] for name, p in model.named_parameters()}
    order = ['conv_stem.weight', *(f'blocks.{i}.{j}.conv_dw.weight' for i, n in enumerate((1, 2, 2, 6, 2))
                                   for j in range(n)), 'classifier.weight']
    assert [scale[name] for name in order] == sorted({scale[name] for name in order})
