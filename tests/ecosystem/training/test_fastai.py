"""fastai: its learner of timm's models, and its U-Net."""
from functools import partial

import numpy as np
import pytest
import timm
from fastai.vision.all import ImageDataLoaders, SegmentationDataLoaders, unet_learner
from PIL import Image

LIBRARY = 'fastai'
HOW = """\
import timm_assemble  # registers the models
from fastai.vision.all import accuracy, vision_learner

learn = vision_learner(dls, 'assemble_resnet50', pretrained=False, metrics=accuracy)
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


def check(learn):
    train_loss, valid_loss = learn.recorder.values[-1][:2]
    assert np.isfinite([train_loss, valid_loss]).all()


def test_vision_learner(run_how, files, tmp_path):
    """Train vision_learner for one epoch."""
    dls = ImageDataLoaders.from_name_func(
        tmp_path, files, lambda file: file[0], valid_pct=0.25, seed=0, bs=2, num_workers=0)
    learn = run_how(dls=dls).learn
    check(learn)
    probabilities, _ = learn.get_preds()
    assert probabilities.shape == (2, 2)


def test_unet_learner(name, files, tmp_path):
    """Train unet_learner, a DynamicUnet over stem and stages 1 to 3, for one epoch."""
    dls = SegmentationDataLoaders.from_label_func(
        tmp_path, files, lambda file: file.with_name(f'mask_{file.stem[2:]}.png'), valid_pct=0.25, seed=0, bs=6,
        codes=['background', 'half'], num_workers=0)
    # a decoder over stage 4 has 340 million parameters and takes minutes; ours ends in stage4 and head, timm's in three
    learn = unet_learner(
        dls, partial(timm.create_model, name), pretrained=False, cut=-2 if 'assemble' in name else -3)
    learn.fit(1)
    check(learn)
    logits, _ = learn.get_preds(act=lambda logits: logits)
    assert logits.shape == (2, 2, 64, 64)
