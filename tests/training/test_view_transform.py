"""Seeded views: generators restored, independent streams, and descriptions that tell transforms apart."""
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import Compose, RandomHorizontalFlip, ToTensor

from timm_assemble.training import describe_transform, seeded_generators
from timm_assemble.training.view_transform import checksum, make_view_transform, split_transform, view_seed

from ._views import TRANSFORM

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), np.uint8))


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


@given(st.integers(0, 2 ** 32 - 1))
def test_generators_repeat_their_draws_and_are_restored(seed):
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with seeded_generators(seed):
        first = [draws() for _ in range(3)]
    with pytest.raises(KeyError), seeded_generators(seed):
        assert [draws() for _ in range(3)] == first
        raise KeyError
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_generators_draw_different_numbers():
    """numpy's and torch's would be equal under one seed."""
    columns = []
    for seed in range(200):
        with seeded_generators(seed):
            columns.append(draws())
    correlation = np.corrcoef(np.array(columns).T) - np.eye(3)
    assert np.abs(correlation).max() < 0.25  # five standard errors of 200 pairs are 0.35, of equal draws 1


def test_seeds_of_views_differ():
    seeds = {view_seed(seed, index, view) for seed in range(3) for index in range(40) for view in range(5)}
    assert len(seeds) == 600 and all(0 <= seed < 2 ** 32 for seed in seeds)


@pytest.mark.parametrize('prefetcher', [True, False])
@pytest.mark.parametrize('change', [{}, dict(auto_augment='original'), dict(auto_augment='augmix-m3-w3'),
                                    dict(train_crop_mode='rkrc', scale=None, ratio=None), dict(no_aug=True),
                                    dict(auto_augment=None, vflip=0.5, gaussian_blur_prob=0.5)])
def test_view_is_that_of_timms_transform(change, prefetcher):
    """The transform that a description builds has the pixels of the one that timm's loader builds."""
    arguments = {**TRANSFORM, **change}
    pixels, _ = split_transform(create_transform(
        is_training=True, use_prefetcher=prefetcher, std=(0.2, 0.2, 0.2), re_prob=0.5, **arguments))
    ours = make_view_transform(describe_transform('RGB', **arguments))
    checksums = set()
    for seed in range(8):
        with seeded_generators(seed):
            expected = pixels(IMAGE)
        with seeded_generators(seed):
            view = ours(IMAGE)
        assert np.array_equal(view, expected) and view.size == (32, 32)
        checksums.add(checksum(view))
    assert len(checksums) == (1 if change.get('no_aug') else 8)


@pytest.mark.parametrize('transform', [Compose([RandomHorizontalFlip()]), (Compose([]),) * 3, ToTensor(), None])
def test_transform_that_cannot_be_split_is_rejected(transform):
    with pytest.raises(ValueError, match='transform must be a Compose that converts an image to a tensor, got'):
        split_transform(transform)


def test_equal_transforms_have_equal_descriptions():
    plain = describe_transform(input_size=(3, 32, 32), scale=None, ratio=None, grayscale_prob=None)
    assert plain == describe_transform(input_size=(32, 32)) and describe_transform(
        'L', input_size=(32, 48))['input_size'] == [1, 32, 48]
    assert plain == describe_transform(input_size=32, scale=[0.08, 1], ratio=[3 / 4, 4 / 3], grayscale_prob=0.0,
                                       mean=(0.1, 0.2, 0.3))  # no policy fills with the mean
    assert describe_transform(auto_augment='original', mean=(0.1, 0.2, 0.3))['fill'] == [26, 51, 76]


@given(st.sampled_from([
    dict(scale=(0.2, 1.0)), dict(hflip=0.4), dict(vflip=0.1), dict(color_jitter=0.3), dict(auto_augment='v0'),
    dict(interpolation='bicubic'), dict(input_size=64), dict(no_aug=True), dict(train_crop_mode='rkrr'),
    dict(ratio=(1, 1)), dict(grayscale_prob=0.1), dict(gaussian_blur_prob=0.1), dict(color_jitter_prob=0.5)]))
def test_other_transforms_have_other_descriptions(change):
    [(name, _)] = change.items()
    base, other = describe_transform(input_size=32), describe_transform(**{'input_size': 32, **change})
    assert base[name] != other[name]


def test_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match=r"transform must have arguments among input_size, .*, got 'colour'"):
        describe_transform(colour=1)
