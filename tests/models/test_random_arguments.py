"""Random combinations of the networks' arguments: the right shapes and every gradient, or a UserError.

``python -m tests.models.test_random_arguments SEED COUNT`` prints how many were rejected, and every failure.
"""
import random
import sys
import traceback
import warnings
from collections import Counter
from functools import partial

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, BlurPool2d, GroupNormAct
from torch import nn

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.errors import UserError
from timm_assemble.layers import ATTENTIONS

POOLS = ['', 'avg', 'gem', 'max', 'avgmax', 'catavgmax', 'fast', 'fastavg', 'fastmax', 'fastavgmax', 'fastcatavgmax']
COMMON = dict(
    width=[8, 8, 16, 24, 32, 64], in_chans=[1, 3, 3, 4], num_classes=[0, 1, 10], global_pool=POOLS,
    output_stride=[8, 16, 32], drop_block_rate=[0.0, 0.1, 1.0], drop_rate=[0.0, 0.3], drop_path_rate=[0.0, 0.2],
    act_layer=['relu', 'relu6', 'silu', 'gelu', 'prelu', 'hard_swish', nn.LeakyReLU, nn.Tanh],
    norm_layer=['batchnorm2d', 'batchnorm', 'groupnorm', 'groupnorm1', 'layernorm2d', 'layernorm2dfp32', 'rmsnorm2d',
                'rmsnorm2dfp32', 'frn', 'frntlu', 'evonormb0', 'evonormb1', 'evonormb2', 'evonorms0', 'evonorms2a',
                nn.BatchNorm2d, nn.GroupNorm, BatchNormAct2d, partial(GroupNormAct, num_groups=4),
                partial(nn.GroupNorm, 2), nn.Identity, partial(nn.BatchNorm2d, affine=False)],
    bn_momentum=[0.1, 0.003, 1.0], bn_eps=[1e-5, 1e-3], dtype=[None, None, torch.float64, torch.bfloat16],
    device=[None, None, None, 'meta'])
RESNET = dict(
    COMMON, layers=[(1, 1, 1, 1), (2, 2, 2, 1), (3, 2, 2, 2)], deep_stem=[False, True],
    shortcut=['plain', 'd', 'big_little'], attn=[*ATTENTIONS, '', 'sk', 'se'],
    big_little=[(), None, (1, 1), (1, 2), (2, 2), (2, 4), (4, 2), (8, 3), [2, 4]], aa_size=[0, 2, 3, 4, 5, 7],
    aa_layer=[None, None, 'blur', BlurPool2d], aa_shortcut=[False, True], last_stride=[1, 2],
    embedding_size=[0, 0, 8, 24], zero_init_last=[False, True])
MOBILENET = dict(COMMON, se_reduction=[0, 1, 2, 16, 1000])
WRONG = dict(
    width=[12, 0, -8], in_chans=[0, -1], num_classes=[-1], global_pool=['sum', 'GEM'], output_stride=[4, 0, 64],
    drop_block_rate=[-0.1, 2.0], drop_rate=[1.5], drop_path_rate=[-1.0], act_layer=['relus', 3],
    norm_layer=['batch', 'layernorm', 'rmsnorm', nn.ReLU, 5, nn.ReLU6], bn_momentum=[-1.0], bn_eps=[0.0, -1.0],
    layers=[(1, 1, 1), (1, 0, 1, 1)], shortcut=['e'], attn=['cbm', 'halo'], big_little=[(3, 2), (2,), (2, 0)],
    aa_size=[1, 8, -1], aa_layer=['avg'], last_stride=[3], embedding_size=[-1], se_reduction=[-1])
RESNETS = ('test_assemble_resnet', 'assemble_resnet50_base', 'assemble_resnet50_d_se', 'assemble_resnet50_bl')


def draw(rng):
    """Return a model's name, some of its arguments and how it is used; a tenth have a wrong argument."""
    resnet = rng.random() < 0.8
    table = RESNET if resnet else MOBILENET
    names = rng.sample(list(table), rng.randint(1, 10))
    kwargs = {name: rng.choice(table[name]) for name in names}
    if resnet:
        kwargs.setdefault('layers', (2, 2, 2, 1))
    kwargs.setdefault('width', 8)
    kwargs.setdefault('num_classes', 10)
    if rng.random() < 0.1:
        wrong = rng.choice([name for name in WRONG if name in table])
        kwargs[wrong] = rng.choice(WRONG[wrong])
    features = tuple(sorted(rng.sample(range(5), rng.randint(1, 5)))) if rng.random() < 0.3 else None
    use = dict(size=(rng.randint(1, 70), rng.randint(1, 70)), features=features, checkpointing=rng.random() < 0.2)
    return rng.choice(RESNETS) if resnet else 'assemble_mobilenet', kwargs, use


def check(name, kwargs, use):
    """Build the model and train one step; return whether its arguments were rejected."""
    height, width = use['size']
    options = {} if use['features'] is None else dict(features_only=True, out_indices=use['features'])
    try:
        model = timm.create_model(name, **kwargs, **options)
    except UserError as e:
        assert '\n' not in str(e) and len(str(e)) < 700
        return True
    if use['checkpointing']:
        model.set_grad_checkpointing()
    dd = dict(device=kwargs.get('device'), dtype=kwargs.get('dtype'))
    y = model.train()(torch.randn(2, kwargs.get('in_chans', 3), height, width, **dd))
    if use['features'] is not None:
        for stride, chs, x in zip(model.feature_info.reduction(), model.feature_info.channels(), y, strict=True):
            assert x.shape == (2, chs, -(-height // stride), -(-width // stride)), x.shape
        loss = sum(x.square().mean() for x in y)
    else:
        shape = (2, kwargs['num_classes'] or model.head_hidden_size)
        if kwargs.get('global_pool') == '':
            stride = model.feature_info[-1]['reduction']
            shape += (-(-height // stride), -(-width // stride))
        assert y.shape == shape, (y.shape, shape)
        assert y.dtype == (kwargs.get('dtype') or torch.float32)
        loss = y.square().mean()
    if kwargs.get('device') != 'meta':
        loss.backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None]
        assert not missing, missing[:3]
    return False


def run(seed, count):
    """Check combinations; return the number of rejected ones and a line for each failure."""
    rng, rejected, failures = random.Random(seed), 0, Counter()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # arguments without effect warn
        for i in range(count):
            name, kwargs, use = draw(rng)
            torch.manual_seed(i)
            try:
                rejected += check(name, kwargs, use)
            except Exception as e:
                where = traceback.extract_tb(e.__traceback__)[-1]
                failures[f'{type(e).__name__}: {str(e)[:200]} ({where.filename}:{where.lineno})'] += 1
                print(i, name, kwargs, use, f'{type(e).__name__}: {str(e)[:300]}', file=sys.stderr)
    return rejected, failures


@pytest.mark.parametrize('seed', range(3))
def test_100_combinations_have_the_right_shapes_and_every_gradient_or_are_rejected(seed):
    rejected, failures = run(seed, 100)
    assert not failures
    assert 5 < rejected < 60


if __name__ == '__main__':
    rejected, failures = run(*map(int, sys.argv[1:3]))
    print(f'{rejected} of {sys.argv[2]} rejected, {sum(failures.values())} failed')
    for line, n in failures.most_common():
        print(n, line)
