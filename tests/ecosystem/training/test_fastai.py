"""fastai: its learner of timm's models, and its U-Net."""
import numpy as np
import pytest
import torch
from fastai.vision.all import ImageDataLoaders, SegmentationDataLoaders, load_learner, vision_learner
from PIL import Image

from ..conftest import MODELS, rates_of_training

LIBRARY = 'fastai'
HOW = """\
import timm_assemble  # registers the models
from fastai.vision.all import accuracy, vision_learner

learn = vision_learner(dls, 'assemble_resnet50', pretrained=False, metrics=accuracy)  # dls: your DataLoaders
learn.fit(1)
"""
SCHEDULE = """\
from timm_assemble.training.callbacks import FastaiDropBlock

learn = vision_learner(
    dls, 'assemble_resnet50', pretrained=False, drop_block_rate=0.1, cbs=FastaiDropBlock(end=0.1))
"""
UNET = """\
from functools import partial

import timm
import timm_assemble  # registers the models
from fastai.vision.all import unet_learner
from torch import nn

def cut(model):  # without stage 4: the decoder over it is by far the largest
    return nn.Sequential(model.stem, model.stem_pool, *model.stages[:3])

learn = unet_learner(dls, partial(timm.create_model, 'assemble_resnet50'), pretrained=False, cut=cut)
learn.fit(1)
"""


@pytest.fixture
def files(tmp_path):
    """Images of two classes with masks, their left half or their top one."""
    paths = []
    for i in range(8):
        mask = np.zeros((64, 64), np.uint8)
        mask[(slice(None), slice(32)) if i % 2 else slice(32)] = 1
        image = np.random.default_rng(i).integers(0, 128, (64, 64, 3), np.uint8) + 127 * mask[..., None]
        paths.append(tmp_path / f'{"ab"[i % 2]}_{i}.png')
        Image.fromarray(image).save(paths[-1])
        Image.fromarray(mask).save(tmp_path / f'mask_{i}.png')
    return paths


def first_letter(file):
    return file[0]


@pytest.fixture
def dls(files, tmp_path):
    """Three batches of two for training, one for validation."""
    return ImageDataLoaders.from_name_func(
        tmp_path, files, first_letter, valid_pct=0.25, seed=0, bs=2, num_workers=0)


def check(learn):
    train_loss, valid_loss = learn.recorder.values[-1][:2]
    assert np.isfinite([train_loss, valid_loss]).all() and train_loss > 0
    assert all(p.isfinite().all() for p in learn.model.parameters())
    # running statistics of every batch norm, and so every layer, have seen the batches
    assert all(layer.num_batches_tracked > 0 for layer in learn.model.modules() if hasattr(layer, 'running_var'))


def test_vision_learner(run_how, dls, files, tmp_path):
    """Train vision_learner for one epoch, export it and predict with load_learner."""
    learn = run_how(dls=dls).learn
    check(learn)
    _, _, probabilities = learn.predict(files[0])
    learn.export(tmp_path / 'learner.pkl')
    assert torch.equal(load_learner(tmp_path / 'learner.pkl').predict(files[0])[2], probabilities)


@pytest.mark.parametrize('name', MODELS)
def test_drop_block_schedule(run_how, dls):
    """Train vision_learner for one epoch with FastaiDropBlock."""
    learn = run_how('SCHEDULE', dls=dls, vision_learner=vision_learner).learn
    rates = rates_of_training(learn.model)
    learn.fit(1)
    assert rates == pytest.approx([0.1 * step / 3 for step in range(3)])


def test_unet_learner(run_how, files, tmp_path):
    """Train unet_learner, a DynamicUnet over stem and stages 1 to 3, for one epoch."""
    dls = SegmentationDataLoaders.from_label_func(
        tmp_path, files, lambda file: file.with_name(f'mask_{file.stem[2:]}.png'), valid_pct=0.25, seed=0, bs=6,
        codes=['background', 'half'], num_workers=0)
    learn = run_how('UNET', of_reference=('cut=cut', 'cut=-3'), dls=dls).learn
    check(learn)
    logits, _ = learn.get_preds(act=lambda logits: logits)
    assert logits.shape == (2, 2, 64, 64)
