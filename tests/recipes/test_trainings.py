"""Trainings with the recipes that are not the paper's, by timm's train.py; from the folder in TIMM_SCRIPTS."""
import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model

from timm_assemble.__main__ import main
from timm_assemble.timm_scripts import HOOK

from .test_recipes import MODERN

SCRIPTS = os.environ.get('TIMM_SCRIPTS')
pytestmark = [
    pytest.mark.skipif(not SCRIPTS, reason="TIMM_SCRIPTS, a folder with timm's train.py, is not set"),
    pytest.mark.filterwarnings('ignore')]  # the script's
CLASSES, BATCH = 3, 4
SMALL = ('--data-dir', 'data', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--device', 'cpu',
         '--workers', 0, '--batch-size', BATCH, '--grad-accum-steps', 1, '--warmup-epochs', 0, '--output', 'output')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Images of three classes, and the working folder."""
    root, rng = tmp_path_factory.mktemp('root'), np.random.default_rng(0)
    for split, count in (('train', 4), ('validation', 1)):
        for c in range(CLASSES):
            (root / 'data' / split / str(c)).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 100 + 40 * c, (48, 48, 3), np.uint8)).save(
                    root / 'data' / split / str(c) / f'{i}.png')
    return root


def train(name, *args):
    sys.modules.pop(HOOK, None)  # train.py imports it once a process
    config = [] if '--experiment' in args else ['--experiment', name]
    assert main([*map(str, ('train', '--script', f'{SCRIPTS}/train.py', '-c', name, *SMALL, *config, *args))]) == 0


def losses(name):
    with open(Path('output', name, 'summary.csv')) as f:
        return [float(row['train_loss']) for row in csv.DictReader(f)]


@pytest.mark.parametrize('name', MODERN)
def test_recipe_trains(root, monkeypatch, name):
    """Three batches an epoch, with as many processes as fit a test: without repeated augmentation."""
    monkeypatch.chdir(root)
    sizes = ['--train-img-sizes', 32, 48] if name.startswith('one_gpu') else ['--img-size', 32]
    train(name, '--epochs', 2, '--aug-repeats', 0, *sizes)
    assert len(losses(name)) == 2 and np.isfinite(losses(name)).all()


def test_fixres_adapts_statistics_and_classifier_alone(root, monkeypatch):
    monkeypatch.chdir(root)
    train('one_gpu_16', '--epochs', 2, '--train-img-sizes', 32, 48, '--experiment', 'before')
    train('fixres', '--epochs', 1, '--img-size', 48, '--initial-checkpoint', 'output/before/last.pth.tar',
          '--experiment', 'after')
    before, after = (torch.load(f'output/{name}/last.pth.tar', weights_only=False) for name in ('before', 'after'))
    start, end = before['state_dict_ema'], after['state_dict']  # the average is what is loaded
    changed = {key for key in end if not torch.equal(start[key], end[key])}
    statistics = {key for key in end if key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))}
    assert changed == statistics | {'fc.weight', 'fc.bias'}


@pytest.mark.parametrize('name', MODERN)
def test_recipe_trains_with_stored_views(root, monkeypatch, capsys, name):
    """As its header says: those of growing images get one size; views of mixed images where the recipe mixes."""
    monkeypatch.chdir(root)
    capsys.readouterr()
    assert main(['recipes', name]) == 0
    lines = capsys.readouterr().out.splitlines()
    kept = [line for line in lines if not line.startswith(('train_img', 'train_size', 'img_size'))]
    assert not name.startswith('one_gpu') or len(lines) - len(kept) == 4
    Path('mine.yaml').write_text('\n'.join([*kept, 'img_size: 32\n']))
    mixed = ['--mixed'] if any(line.startswith(('mixup:', 'cutmix:')) for line in kept) else []
    torch.save({'state_dict': create_model('test_assemble_resnet', num_classes=CLASSES).state_dict()}, 'teacher.pth')
    assert main([*map(str, (
        'teacher-logits', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--checkpoint', 'teacher.pth',
        '--student', 'test_assemble_resnet', '--views', 1, '-c', 'mine.yaml', '--data-dir', 'data', '--workers', 0,
        '--output', f'views-{name}', *mixed))]) == 0
    bce = ['--bce-sum'] if '--bce-sum' in '\n'.join(lines) else []
    train('mine.yaml', '--epochs', 1, '--aug-repeats', 0, '--kd-model-name', f'views:views-{name}', '--kd-temperature',
          1, *bce, '--experiment', f'{name}-views')
    assert np.isfinite(losses(f'{name}-views')).all()
