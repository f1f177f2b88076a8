"""The models as timm models: names, configurations, arguments, features, head, training and copies."""
import copy
import pickle
import re
import warnings
from functools import partial

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import FeatureInfo
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn

from timm_assemble.layers import Bottleneck
from timm_assemble.recipes.paper import TECHNIQUES, rows_of

NAMES = [*TECHNIQUES, 'test_assemble_resnet']
BIG_LITTLE = [name for name in NAMES if '_d' not in name and '_base' not in name]
tiny = partial(timm.create_model, 'test_assemble_resnet', num_classes=10)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_networks_of_the_paper_are_registered():
    assert sorted(timm.list_models(module='assemble_resnet')) == sorted(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_docstrings_name_the_rows_of_the_paper(name):
    text = timm.model_entrypoint(name).__doc__
    assert re.findall(r'\bE\d+\b', text) == [row.name for row in rows_of(name)]
    assert '%' not in text  # the numbers are in recipes/paper.py


@pytest.mark.parametrize('name', NAMES)
def test_configuration_has_the_official_preprocessing_and_the_classifier(name):
    model = timm.create_model(name, device='meta')
    cfg = model.pretrained_cfg
    assert cfg['architecture'] == name and cfg['license'] == 'apache-2.0' and cfg['paper_ids'] == 'arXiv:2001.06268'
    assert model.get_submodule(cfg['classifier']) is model.get_classifier()
    train, test = resolve_data_config({}, model=model), resolve_data_config({}, model=model, use_test_size=True)
    for config in (train, test):
        assert config['interpolation'] == 'bilinear'
        assert [round(m * 255, 2) for m in config['mean']] == [123.68, 116.78, 103.94]
        assert [s * 255 for s in config['std']] == [1, 1, 1]
    if name != 'test_assemble_resnet':
        assert train['input_size'] == (3, 224, 224)
        assert test['input_size'] == (3, *[256 if name in BIG_LITTLE else 224] * 2)
        short_side = int(test['input_size'][1] / test['crop_pct'])
        assert short_side == {'assemble_resnet152': 257}.get(name, 292 if name in BIG_LITTLE else 256)


@pytest.mark.parametrize('name', NAMES)
def test_features_have_the_widths_and_strides_of_feature_info(name):
    model = timm.create_model(name, width=8)
    info = FeatureInfo(model.feature_info, (0, 1, 2, 3, 4))
    assert info.reduction() == [2, 4, 8, 16, 32]
    assert info.channels() == [8, 32, 64, 128, 256]
    x = torch.randn(1, 3, 64, 96)
    listed = timm.create_model(name, width=8, features_only=True)
    listed.load_state_dict(
        {re.sub(r'^(stem|stages)\.', r'\1_', key): value for key, value in model.state_dict().items()}, strict=False)
    model.eval(), listed.eval()
    final, features = model.forward_intermediates(x)
    for ours, theirs, chs, stride in zip(features, listed(x), info.channels(), info.reduction()):
        assert ours.shape == (1, chs, 64 // stride, 96 // stride)
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(final, model.forward_features(x))


def test_create_model_switches_techniques_off():
    """It drops arguments that are None."""
    kinds = {type(m).__name__ for m in tiny(attn='', big_little=(), aa_size=0, deep_stem=True, shortcut='d').modules()}
    assert not kinds & {'SelectiveKernelC3', 'BigLittleStage', 'BigLittleStem', 'AntiAlias2d', 'DropBlock2d'}


@pytest.mark.parametrize('global_pool', ['avg', 'gem', 'max', 'avgmax', 'fast', 'fastmax'])
def test_reset_classifier_keeps_embedding_dtype_and_mode(global_pool):
    model = tiny(global_pool=global_pool, embedding_size=24, dtype=torch.float64).eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    before = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(7)
    assert model.num_classes == 7 and model(x).shape == (2, 7) and model(x).dtype == torch.float64
    assert not model.embedding.training
    torch.testing.assert_close(model.forward_head(model.forward_features(x), pre_logits=True), before)
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), before)
    model.reset_classifier(0, '')
    assert model(x).shape == (2, 24, 2, 2)
    model.reset_classifier(3, 'catavgmax')
    assert model(x).shape == (2, 3) and model.head_hidden_size == 24


@pytest.mark.parametrize('kwargs, message', [
    (dict(layers=(1, 2)), 'layers must be four positive numbers'),
    (dict(layers=(1, 2, 2, 2)), 'layers must be at least 2 in stages 1 to 3'),
    (dict(width=12), 'width must be a positive multiple of 8, got 12'),
    (dict(shortcut='x'), "shortcut must be one of .* got 'x'"),
    (dict(attn='cbm'), "attn must be one of .*'cbam'.* got 'cbm'"),
    (dict(big_little=(3, 4)), r'big_little must be \(alpha, beta\) .* got \(3, 4\)'),
    (dict(big_little=(2, 0)), 'big_little must be'),
    (dict(aa_size=8), 'aa_size must be 0 or from 2 to 7, got 8'),
    (dict(aa_size=1), 'aa_size must be 0 or from 2 to 7, got 1'),
    (dict(aa_layer='avg'), "aa_layer must be 'blur', which is aa_size=3, or None, got 'avg'"),
    (dict(aa_layer='blur', aa_size=5), "aa_size must be 0 or 3 where aa_layer is 'blur', got 5"),
    (dict(act_layer='x'), "act_layer must be a class, or a name of timm .* got 'x'"),
    (dict(act_layer=3), 'act_layer must be a class, or a name of timm .* got 3'),
    (dict(norm_layer='x'), "norm_layer must be a class, or a name of timm .* got 'x'"),
    (dict(norm_layer=nn.ReLU), 'norm_layer must be a class, or a name of timm .* got <class'),
    (dict(output_stride=4), 'output_stride must be 8, 16 or 32, got 4'),
    (dict(drop_path_rate=1.5), 'drop_path_rate must be from 0 to 1, got 1.5'),
    (dict(last_stride=3), 'last_stride must be 1 or 2, got 3'),
    (dict(embedding_size=-1), 'embedding_size must be 0 or more, got -1'),
    (dict(drop_block_rate=1.1), 'drop_block_rate must be from 0 to 1, got 1.1'),
    (dict(drop_rate=-0.1), 'drop_rate must be from 0 to 1, got -0.1'),
    (dict(global_pool='sum'), "global_pool must be one of .* got 'sum'"),
    (dict(num_classes=-1), 'num_classes must be 0 or more, got -1'),
    (dict(global_pool=''), "num_classes must be 0 where global_pool is '', got 10"),
    (dict(in_chans=0), 'in_chans must be positive, got 0'),
    (dict(bn_eps=-1), 'bn_eps must be positive, got -1'),
    (dict(norm_layer='groupnorm'), 'norm_layer must take 8 channels, got .*GroupNorm.*divisible'),
    (dict(norm_layer='evonorms0'), 'norm_layer must take 8 channels, got .*EvoNorm2dS0'),
    (dict(norm_layer='layernorm'), "norm_layer must be .*'layernorm2d', got 'layernorm'"),
])
def test_arguments_out_of_range_are_rejected(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)


def test_unknown_arguments_are_rejected():
    with pytest.raises(TypeError, match='not_an_argument'):
        tiny(not_an_argument=1)


def test_settings_and_stages_are_attributes_as_in_timms_resnet():
    model, x = tiny(embedding_size=24, drop_rate=0.5), torch.randn(2, 3, 64, 64)
    assert (model.drop_rate, model.grad_checkpointing, model.global_pool.pool_type) == (0.5, False, 'avg')
    model.grad_checkpointing = True
    assert model.grad_checkpointing and model.stages[3][1].grad_checkpointing
    model.drop_rate = 1.0
    assert not model.forward_head(model.forward_features(x), pre_logits=True).any()
    features = model.eval().stem_pool(model.stem(x))
    for stage in model.stages:
        features = stage(features)
    assert torch.equal(features, model.forward_features(x))
    model.train().stages[0].eval()
    model.reset_classifier(3)
    assert not model.stages[0].training and model.fc.training
    model.eval().global_pool = nn.AdaptiveMaxPool2d(1)
    torch.testing.assert_close(model(x), model.fc(model.embedding(features.amax((2, 3), keepdim=True)).flatten(1)))


def test_other_output_formats_are_rejected():
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', got 'NHWC'"):
        tiny().forward_intermediates(torch.randn(1, 3, 64, 64), output_fmt='NHWC')


def test_pretrained_weights_adapt_to_channels_and_classes(tmp_path):
    model = tiny()
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    for classes in (10, -1):  # the latter is train.py's for --pretrained-path
        overlay = dict(file=str(tmp_path / 'weights.pth'), num_classes=classes)
        again = tiny(pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, num_classes=5)
        torch.testing.assert_close(again.stages[3].state_dict(), model.stages[3].state_dict())
        assert again.num_classes == 5


def test_zero_init_last_sets_every_last_gamma():
    x = torch.randn(2, 3, 64, 64)
    for zero in (True, False):
        model = tiny(zero_init_last=zero)
        gammas = [m.conv3.norm.weight for m in model.modules() if isinstance(m, Bottleneck)]
        assert len(gammas) == 3 + 3 + 4 + 2 + 3 and all((g == 0).all() == zero for g in gammas)
        assert torch.isfinite(model(x)).all()


def test_batch_norm_arguments_reach_every_norm():
    for kwargs, momentum, eps in ((dict(), 0.1, 1e-5), (dict(bn_momentum=0.003, bn_eps=1e-3), 0.003, 1e-3)):
        norms = [m for m in tiny(embedding_size=8, **kwargs).modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.momentum, m.eps) for m in norms} == {(momentum, eps)}


def test_drop_block_is_in_stages_3_and_4_only():
    model = tiny(drop_block_rate=0.1)
    found = {path: m.gamma_scale for path, m in model.named_modules() if type(m).__name__ == 'DropBlock2d'}
    # three per block and one per shortcut; none after little's widening 1x1. Stage 3's merging block is stages.3.0.
    blocks = {f'stages.2.big.{i}' for i in range(3)} | {f'stages.3.{i}' for i in range(3)} | {'stages.2.little.0'}
    assert {path.split('.conv')[0].split('.drop2')[0].split('.shortcut')[0] for path in found} == blocks
    assert len(found) == (3 * 3 + 1) + (3 + 1) + (3 + 1) + (2 * 3 + 1)
    of_stage_3 = ('stages.2.', 'stages.3.0.')
    assert all(scale == (0.25 if path.startswith(of_stage_3) else 1.0) for path, scale in found.items())
    model.set_drop_block_rate(0.4)
    assert {round(m.rate.item(), 6) for m in model.modules() if type(m).__name__ == 'DropBlock2d'} == {0.4}


def test_drop_block_rates_without_effect_or_out_of_range_are_reported():
    with pytest.warns(UserWarning, match='no effect: the model was made with drop_block_rate=0'):
        tiny().set_drop_block_rate(0.1)
    with pytest.raises(ValueError, match='rate must be from 0 to 1, got 2'):
        tiny(drop_block_rate=0.1).set_drop_block_rate(2)


def test_aa_shortcut_without_effect_warns():
    with pytest.warns(UserWarning, match='aa_shortcut has no effect'):
        tiny(aa_shortcut=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        tiny(aa_shortcut=True, shortcut='plain')


def test_gradient_checkpointing_gives_equal_gradients_in_half_the_memory():
    x, gradients, memory = torch.randn(4, 3, 64, 64), [], []
    for enable in (False, True):
        torch.manual_seed(0)
        model = tiny(drop_block_rate=0.2).train()
        model.set_grad_checkpointing(enable)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            loss = model(x).square().mean()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        memory.append(sum(saved))
    torch.testing.assert_close(*gradients)
    assert memory[1] < 0.5 * memory[0]


def test_layer_decay_follows_the_order_of_computation():
    model = tiny()
    scales = {}
    for group in param_groups_layer_decay(model, layer_decay=0.5):
        for p in group['params']:
            scales[id(p)] = group['lr_scale']
    scale = {name: scales[id(p)] for name, p in model.named_parameters()}
    order = ['stem.0.conv.weight', 'stages.0.big.0.conv1.conv.weight', 'stages.0.big.1.conv1.conv.weight',
             'stages.1.merge.0.conv1.conv.weight', 'stages.1.big.0.conv1.conv.weight', 'stages.3.0.conv1.conv.weight',
             'stages.3.1.conv1.conv.weight', 'fc.weight']
    assert [scale[name] for name in order] == sorted({scale[name] for name in order})


def test_weight_decay_skips_norms_and_biases():
    groups = create_optimizer_v2(tiny(), opt='momentum', lr=0.1, weight_decay=1e-4).param_groups
    decayed = {id(p) for g in groups if g['weight_decay'] for p in g['params']}
    for name, p in tiny().named_parameters():
        assert ('norm' in name or name.endswith('bias')) == (p.ndim == 1)
    assert decayed and all(p.ndim > 1 for g in groups if g['weight_decay'] for p in g['params'])


def test_weights_load_into_a_model_from_the_meta_device():
    reference = tiny(drop_block_rate=0.2).eval()
    x = torch.randn(2, 3, 64, 64)
    assigned = tiny(device='meta', drop_block_rate=0.2).eval()
    assigned.load_state_dict(reference.state_dict(), assign=True)
    with torch.device('meta'):
        context = tiny(drop_block_rate=0.2).eval()
    assert all(tensor.is_meta for tensor in (*context.parameters(), *context.buffers()))
    context.load_state_dict(reference.state_dict(), assign=True)
    emptied = tiny(device='meta', drop_block_rate=0.2).eval().to_empty(device='cpu')
    emptied.load_state_dict(reference.state_dict())
    for model in (assigned, context, emptied):
        torch.testing.assert_close(model(x), reference(x))
        assert model.stages[3][0].drop2.rate.item() == pytest.approx(0.2)
        assert not [name for name, t in model.named_buffers() if t.is_meta]


def test_copies_pickles_and_ema_give_equal_outputs():
    model, x = tiny(drop_block_rate=0.1).eval(), torch.randn(2, 3, 64, 64)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), model(x))
    ema = ModelEmaV3(model, decay=0.0)
    with torch.no_grad():
        model.fc.weight.add_(1.0)
    ema.update(model)
    torch.testing.assert_close(ema.module(x), model(x))
