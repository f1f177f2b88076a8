"""Recipe E11 in timm's train.py: the pixels that reach the network are those of the official data pipeline."""
import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_assemble.__main__ import main
from timm_assemble.data.official import AutoAugment, evaluation_transform, training_crop
from timm_assemble.data.samples import Samples
from timm_assemble.models.assemble_resnet import AssembleResNet
from timm_assemble.timm_scripts import HOOK
from timm_assemble.training import TeacherViews, seeded_generators

SCRIPTS = os.environ.get('TIMM_SCRIPTS')
pytestmark = [
    pytest.mark.skipif(not SCRIPTS, reason="TIMM_SCRIPTS, a folder with timm's train.py, is not set"),
    pytest.mark.filterwarnings('ignore')]  # the script's
CLASSES, PER_CLASS, SIZE = 2, 4, 32
MODEL = ('--data-dir', 'data', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE,
         '--device', 'cpu')
TRAIN = ('train', '--script', 'train.py', '-c', 'assemble_resnet50', *MODEL, '--batch-size', 4,
         '--amp-dtype', 'bfloat16', '--epochs', 1, '--warmup-epochs', 0, '--workers', 2,
         '--mixup', 0)  # timm's, which would hide the pixels


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Stand-in images of several sizes by split, in the order of timm's data set, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rng, images = np.random.default_rng(0), {}
    for split in ('train', 'validation'):
        images[split] = []
        for i in range(CLASSES * PER_CLASS):
            folder = tmp_path / 'data' / split / str(i // PER_CLASS)
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 256, (6 + i, 9, 3), np.uint8)).resize((90 + i, 60 + 2 * i))
            image.save(folder / f'{i:02}.png')
            images[split].append(image)
    np.save('teacher.npy', rng.standard_normal((CLASSES * PER_CLASS, CLASSES)).astype(np.float16))
    shutil.copy(Path(str(SCRIPTS)) / 'train.py', tmp_path)
    return images


@pytest.fixture
def inputs(monkeypatch):
    """The network's inputs, of training and of evaluation, as float32 pixels from 0 to 255."""
    inputs, forward = {True: [], False: []}, AssembleResNet.forward

    def recording(self, x):
        mean, std = (torch.tensor(self.pretrained_cfg[key]).view(3, 1, 1) for key in ('mean', 'std'))
        inputs[self.training] += [*(x * (255 * std) + 255 * mean)]
        return forward(self, x)
    monkeypatch.setattr(AssembleResNet, 'forward', recording)
    return inputs


def command(*args):
    sys.modules.pop(HOOK, None)  # train.py imports it once a process
    assert main([*map(str, args)]) == 0


def views_of(image):
    return AutoAugment('imagenet')(training_crop(SIZE)(image))


def check_pixels(found, expected):
    """Compare the sets of images, since the loader shuffles them; rounding undoes the normalization's."""
    found = [image.round().to(torch.uint8).permute(1, 2, 0).numpy().tobytes() for image in found]
    assert sorted(found) == sorted(np.asarray(image).tobytes() for image in expected)
    assert len({*found}) == len(found)


@pytest.mark.parametrize('options', [(), ('--no-prefetcher',)])
def test_pixels_are_the_official_pipelines(images, inputs, monkeypatch, options):
    """In two worker processes, each image under a seed of its own."""
    get = Samples.__getitem__
    monkeypatch.setattr(Samples, '__getitem__', lambda self, index: (random.seed(index), get(self, index))[1])
    command(*TRAIN, '--kd-model-name', 'logits:teacher.npy', *options)
    expected = []
    for index, image in enumerate(images['train']):
        random.seed(index)
        expected.append(views_of(image))
    check_pixels(inputs[True], expected)
    means = torch.tensor((123.68, 116.78, 103.94)).view(3, 1, 1)
    evaluated = torch.stack([evaluation_transform(SIZE)(image) + means for image in images['validation']])
    torch.testing.assert_close(torch.stack(inputs[False]), evaluated, rtol=0, atol=1e-3)


def test_stored_views_are_the_official_pipelines(images, inputs, capsys):
    teacher = timm.create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.save({'state_dict': teacher.state_dict()}, 'teacher.pth')
    command('teacher-logits', *MODEL, '--student', 'test_assemble_resnet', '--checkpoint', 'teacher.pth', '--views', 2,
            '-c', 'assemble_resnet50', '--output', 'views')
    inputs[True].clear()
    command(*TRAIN, '--kd-model-name', 'views:views', '--epochs', 2)
    store, expected = TeacherViews('views'), []
    for index, image in enumerate(images['train']):
        for view in range(2):
            with seeded_generators(store.replay(index, view)[0]):
                expected.append(views_of(image))
    check_pixels(inputs[True], expected)
    assert store.info.transform['auto_augment'] == store.info.transform['train_crop_mode'] == 'official'
    with pytest.raises(SystemExit):
        command(*TRAIN, '--kd-model-name', 'views:views', '--aa', 'official-good')
    assert 'transform must be that of views, `auto_augment` official, got official-good' in capsys.readouterr().err
