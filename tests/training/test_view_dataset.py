"""Views in training: the student's pixels and rows are the teacher's, and the epoch decides the view."""
import itertools
import logging
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler
from torch import nn
from torch.utils.data import DataLoader

from timm_assemble.training import (
    RepeatedViews, TeacherCollateMixup, TeacherMixup, TeacherViews, ViewDataset, unpack_targets,
)

from ._views import CLASSES, SIZE, TRANSFORM, dataset_of, loader_of, store_views, write_images

pytestmark = [pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning'),  # timm's reader leaves files open
              pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning'),
              pytest.mark.filterwarnings('ignore:This DataLoader will create')]
IMAGES, VIEWS = 60, 3
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)


def scores(pixels):
    """Logits that tell every view from every other, of uint8 ``(B, 3, H, W)``."""
    return pixels.double().mean((2, 3)) / 8


class Recorder(nn.Module):
    """A teacher that keeps the pixels it saw."""

    def __init__(self):
        super().__init__()
        self.num_classes, self.in_chans = CLASSES, 3
        self.pretrained_cfg = dict(input_size=(3, SIZE, SIZE), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        self.seen = []

    def forward(self, x):
        pixels = (255 * x).round().byte()
        self.seen += list(pixels)
        return scores(pixels).float()


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), IMAGES // CLASSES)


@pytest.fixture(scope='module')
def seen(root, tmp_path_factory):
    """The store, and the bytes of the views that its teacher saw, by image and view."""
    folder, teacher = tmp_path_factory.mktemp('store') / 's', Recorder()
    store_views(root, folder, VIEWS, teacher)
    order = [(index, view) for view in range(VIEWS) for index in range(IMAGES)]
    return folder, {key: x.numpy().tobytes() for key, x in zip(order, teacher.seen, strict=True)}


def check_epochs(loader, seen, epochs, size=IMAGES):
    """Compare all batches of some epochs with what the teacher saw; return how often each view came."""
    key_of = {pixels: key for key, pixels in seen.items()}
    counts = Counter()
    for epoch in epochs:
        loader.dataset.set_epoch(epoch)
        for x, target in loader:
            pixels = ((x * STD + MEAN) * 255).round().byte()
            labels, rows = unpack_targets(target, CLASSES)
            torch.testing.assert_close(rows.double(), scores(pixels).softmax(1), rtol=2e-2, atol=1e-4)
            for image, label in zip(pixels, labels):
                index, view = key = key_of[image.numpy().tobytes()]
                assert label == index * CLASSES // size
                assert view == loader.dataset.view(index)
                counts[key] += 1
    return counts


@pytest.mark.parametrize('workers, persistent, prefetcher', [
    (0, False, True), (1, True, True), (3, True, False), (3, False, True)])
def test_student_gets_the_pixels_and_rows_that_the_teacher_saw(root, seen, workers, persistent, prefetcher):
    """Bit for bit; in V epochs every view of every image once."""
    loader = loader_of(root, seen[0], workers, prefetcher, persistent_workers=persistent)
    assert check_epochs(loader, seen[1], range(VIEWS)) == Counter({key: 1 for key in seen[1]})


def test_resumed_training_continues_the_views(root, seen):
    """Epoch 1 as the first of a process has the views of epoch 1."""
    first, resumed = (loader_of(root, seen[0]) for _ in range(2))
    check_epochs(first, seen[1], [0])
    views = [check_epochs(loader, seen[1], [1]) for loader in (first, resumed)]
    assert views[0] == views[1]
    assert len({first.dataset.view(i) for i in range(IMAGES)}) == VIEWS  # neighbors differ


def test_generators_are_left_as_they_were(root, seen):
    dataset = loader_of(root, seen[0]).dataset
    dataset.set_epoch(0)
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    dataset[5]
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


@pytest.mark.parametrize('mode, prefetcher', [
    *itertools.product(('batch', 'pair', 'elem'), (True, False)), ('half', True)])
def test_rows_are_mixed_like_the_images(tmp_path_factory, mode, prefetcher):
    """An image of gray g has the teacher's row of class g / 10, so a row's mean gray is that of the mixed image."""
    grays = torch.arange(0, 240, 10)
    root = tmp_path_factory.mktemp('grays')
    for gray in grays.tolist():
        (root / 'train' / f'{gray:03}').mkdir(parents=True)
        Image.new('RGB', (40, 40), (gray,) * 3).save(root / 'train' / f'{gray:03}' / '0.png')
    teacher = Recorder()
    teacher.num_classes = len(grays)
    teacher.forward = lambda x: 30 * torch.eye(len(grays))[(25.5 * x.mean((1, 2, 3))).round().long()]
    plain = dict(TRANSFORM, auto_augment=None, grayscale_prob=0.0, color_jitter=None)
    store_views(root, root / 's', 2, teacher, plain)
    arguments = dict(mixup_alpha=1.0, cutmix_alpha=1.0, mode=mode, label_smoothing=0.0, num_classes=len(grays))
    mixup = (TeacherCollateMixup if prefetcher else TeacherMixup)(**arguments)
    loader = loader_of(root, root / 's', prefetcher=prefetcher, batch_size=12, transform=plain,
                       **(dict(collate_fn=mixup) if prefetcher else {}))
    for epoch in range(6):
        loader.dataset.set_epoch(epoch)
        for x, target in loader if prefetcher else (mixup(*batch) for batch in loader):
            labels, rows = unpack_targets(target, len(grays))
            gray = ((x * STD + MEAN) * 255).mean((1, 2, 3))
            torch.testing.assert_close(rows @ grays.float(), gray, rtol=0, atol=0.6)  # collation rounds to uint8
            torch.testing.assert_close(rows, labels, rtol=0, atol=1e-4)


def test_random_erasing_without_prefetcher_is_drawn_anew(root, seen):
    """It follows the checksum and is not part of the view."""
    dataset = loader_of(root, seen[0], prefetcher=False, re_prob=1.0).dataset
    dataset.set_epoch(0)
    (a, row), (b, again) = dataset[5], dataset[5]
    assert torch.equal(row, again) and not torch.equal(a, b)


def test_workers_started_by_spawn_learn_the_epoch(root, seen):
    dataset = loader_of(root, seen[0]).dataset
    loader = DataLoader(dataset, 20, num_workers=1, persistent_workers=True, multiprocessing_context='spawn')
    for epoch in range(2):
        dataset.set_epoch(epoch)
        rows = torch.cat([unpack_targets(target, CLASSES)[1] for _, target in loader])
        expected = torch.stack([dataset.store.probabilities(i, dataset.view(i)) for i in range(IMAGES)])
        assert torch.equal(rows, expected)


@pytest.mark.parametrize('repeats', [2, 3, 1.5])
def test_repeats_of_an_image_have_different_views(root, seen, repeats):
    """In all ranks together, for whole and fractional repeats."""
    dataset = ViewDataset(dataset_of(root), TeacherViews(seen[0]), repeats=int(np.ceil(repeats)))
    dataset.set_epoch(1)
    views = {}
    for rank in range(2):
        sampler = RepeatAugSampler(dataset, 2, rank, num_repeats=repeats, selected_ratio=0.5)
        sampler.set_epoch(1)
        keys, plain = list(RepeatedViews(sampler)), list(sampler)
        assert [key % IMAGES for key in keys] == plain and len(RepeatedViews(sampler)) == len(sampler)
        for key in keys:
            repeat, index = divmod(key, IMAGES)
            views.setdefault(index, []).append(dataset.view(index, repeat))
    counts = Counter(len(v) for v in views.values())
    assert all(len({*v}) == len(v) for v in views.values())
    assert counts == ({repeats: IMAGES} if isinstance(repeats, int) else {1: IMAGES // 2, 2: IMAGES // 2})


def test_file_that_changes_gets_its_label_and_a_warning(tmp_path, caplog):
    """Training goes on, and no row of other pixels is used."""
    root = write_images(tmp_path / 'data', 3)
    store_views(root, tmp_path / 's', 1)
    changed = root / 'train' / 'class1' / '0001.png'
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(changed)
    dataset = loader_of(root, tmp_path / 's').dataset
    dataset.set_epoch(0)
    with caplog.at_level(logging.WARNING):
        label, row = unpack_targets(dataset[4][1], CLASSES)
    assert (label, row.tolist()) == (1, [0, 1, 0])
    assert [*map(str, caplog.messages)] == [
        'class1/0001.png: view 0 has other pixels than the teacher saw; trained on its label alone']
    with pytest.raises(ValueError, match=r'^dataset must give the pixels .* got others for 1 of 9 images, such as '
                                         r'class1/0001.png$'):
        dataset.check_replay()
    assert (int(dataset._epoch), dataset.check_replay(samples=1)) == (0, None)


def test_check_of_the_replay_names_versions_that_differ(root, seen):
    dataset = loader_of(root, seen[0], transform={**TRANSFORM, 'scale': (0.9, 1.0)}).dataset
    dataset.store.info.versions['pillow'] = '1.0'
    with pytest.raises(ValueError, match=r'got others for 16 of 16 images, .* was written with pillow 1.0 instead of'):
        dataset.check_replay(workers=2)


def test_epoch_must_be_set(root, seen):
    dataset = pickle.loads(pickle.dumps(loader_of(root, seen[0]).dataset))
    with pytest.raises(ValueError, match=r'epoch must be set with set_epoch\(epoch\) before each epoch'):
        dataset[0]


def test_transform_for_augmentation_splits_is_rejected(root, seen):
    with pytest.raises(ValueError, match='transform must be a Compose'):
        loader_of(root, seen[0], num_aug_splits=2)


def test_smoothing_beyond_1_is_rejected(root, seen):
    with pytest.raises(ValueError, match=r'^smoothing must be from 0 to 1, got 1\.5$'):
        ViewDataset(dataset_of(root), TeacherViews(seen[0]), smoothing=1.5)
