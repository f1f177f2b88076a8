"""Views of mixed images: the student sees the mixture that the teacher saw, with its labels' weights."""
import logging
import pickle
import re
from collections import Counter

import pytest
import torch
from PIL import Image

from timm_assemble.training import TeacherViews, ViewDataset, combine_stores, describe_mixing, unpack_targets
from timm_assemble.training.view_mixing import Mixing, sources_of

from ._views import CLASSES, TRANSFORM, dataset_of, loader_of, store_views, write_images
from .test_view_dataset import MEAN, STD, Recorder, pytestmark, scores  # noqa: F401  pytest reads the mark

IMAGES, VIEWS = 1002, 2
MIXING = dict(mixup=0.4, cutmix=1.0, mixup_prob=0.9)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'), IMAGES // CLASSES)


@pytest.fixture(scope='module')
def seen(root, tmp_path_factory):
    """The store, and the bytes of the mixtures that its teacher saw, by image and view."""
    folder, teacher = tmp_path_factory.mktemp('store') / 's', Recorder()
    store_views(root, folder, VIEWS, teacher, mixing=MIXING, chunk_size=500)
    order = [(index, view) for view in range(VIEWS) for index in range(IMAGES)]
    return folder, {x.numpy().tobytes(): key for key, x in zip(order, teacher.seen, strict=True)}


@pytest.mark.parametrize('workers, prefetcher, first', [(0, True, 0), (0, False, 0), (1, True, 1), (2, False, 0)])
def test_student_gets_the_mixtures_and_rows_that_the_teacher_saw(root, seen, workers, prefetcher, first):
    """Bit for bit, in every epoch, also of a training that begins with epoch 1, as a resumed one does."""
    loader = loader_of(root, seen[0], workers, prefetcher, batch_size=6)
    store, came = loader.dataset.store, Counter()
    for epoch in range(first, VIEWS):
        loader.dataset.set_epoch(epoch)
        for x, target in loader:
            pixels = ((x * STD + MEAN) * 255).round().byte()
            labels, rows = unpack_targets(target, CLASSES)
            torch.testing.assert_close(rows.double(), scores(pixels).softmax(1), rtol=2e-2, atol=1e-4)
            for image, weights in zip(pixels, labels):
                index, view = key = seen[1][image.numpy().tobytes()]
                classes = {source * CLASSES // IMAGES for source in store.sources(index, view)}
                assert view == loader.dataset.view(index) and weights.sum() == pytest.approx(1)
                assert {*weights.nonzero().flatten().tolist()} <= classes
                came[key] += 1
    keys = [(i, view) for i in range(IMAGES) for view in range(VIEWS)]
    assert came == Counter(key for key in keys if not first or key[1] == loader.dataset.view(key[0]))


@pytest.fixture(scope='module')
def gray_root(tmp_path_factory):
    """One image of gray 10 * c for each class c."""
    root = tmp_path_factory.mktemp('grays')
    for gray in range(0, 240, 10):
        (root / 'train' / f'{gray:03}').mkdir(parents=True)
        Image.new('RGB', (40, 40), (gray,) * 3).save(root / 'train' / f'{gray:03}' / '0.png')
    return root


@pytest.mark.parametrize('mixing', [
    dict(mixup=1.0), dict(cutmix=1.0), dict(cutmix_minmax=(0.2, 0.8)), dict(mixup=0.5, cutmix=1.0, mixup_prob=0.5)])
def test_weights_are_those_of_the_pixels(gray_root, tmp_path, mixing):
    """The weights of grays 10 * c give the mean gray of the mixture; label smoothing as by timm's definition."""
    teacher = Recorder()
    teacher.num_classes, teacher.forward = 24, lambda x: x.mean((1, 2, 3))[:, None] + torch.arange(24.0)
    plain = dict(TRANSFORM, auto_augment=None, grayscale_prob=0.0, color_jitter=None)
    store_views(gray_root, tmp_path / 's', 8, teacher, plain, mixing=mixing)
    dataset = loader_of(gray_root, tmp_path / 's', transform=plain).dataset
    smooth = loader_of(gray_root, tmp_path / 's', transform=plain, dataset=ViewDataset(
        dataset_of(gray_root), TeacherViews(tmp_path / 's'), smoothing=0.1)).dataset
    pure, flat = 0, 0
    for epoch in range(8):
        dataset.set_epoch(epoch)
        smooth.set_epoch(epoch)
        for i in range(24):
            image, target = dataset[i]
            weights = target[:24]
            assert weights @ torch.arange(0.0, 240, 10) == pytest.approx(float(image.double().mean()), abs=0.6)
            expected = [(1 - 0.1) * float(w) + 0.1 / 24 for w in weights]
            assert smooth[i][1][:24].tolist() == pytest.approx(expected, abs=1e-6)
            pure += weights.max() == 1
            flat += len(image.unique()) == 1
    mixed_by_cutmix = 8 * 24 - flat
    if 'mixup_prob' in mixing:  # half are mixed, half of these by CutMix
        assert 60 < pure < 132 and 24 < mixed_by_cutmix < 75
    else:
        assert pure < 20 and (mixed_by_cutmix == 0 if 'mixup' in mixing else mixed_by_cutmix > 150)


def test_every_other_image_is_a_partner_equally_often():
    mixing, counts = Mixing(describe_mixing(mixup=1.0)), Counter()
    for index in range(5):
        for view in range(2000):
            first, second = sources_of(mixing, 3, index, view, 5)
            assert first == index != second
            counts[index, second] += 1
    assert all(abs(count - 500) < 5 * 500 ** 0.5 for count in counts.values()) and len(counts) == 20
    assert sources_of(None, 3, 2, 7, 5) == [2]


def test_partner_that_changed_leaves_the_labels(tmp_path, caplog):
    """The mixture has other pixels than the teacher's."""
    root = write_images(tmp_path / 'data', 3)
    store_views(root, tmp_path / 's', 1, mixing=dict(mixup=1.0))
    dataset = pickle.loads(pickle.dumps(loader_of(root, tmp_path / 's').dataset))
    dataset.set_epoch(0)
    partner = dataset.store.sources(4, 0)[1]
    Image.new('RGB', (40, 50)).save(dataset.filename(partner, absolute=True))
    with caplog.at_level(logging.WARNING):
        labels, row = unpack_targets(dataset[4][1], CLASSES)
    assert torch.equal(labels, row) and re.search(
        r'class1/0001\.png mixed with class\d+/\d+\.png: view 0 has other pixels than the teacher saw', caplog.text)


def test_partner_that_cannot_be_read_is_an_error_of_the_store(tmp_path):
    root = write_images(tmp_path / 'data', 3)
    (root / 'train' / 'class2' / '0002.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'dataset must have readable images, got 1 that cannot be read: .*0002.png'):
        store_views(root, tmp_path / 's', 1, mixing=dict(mixup=1.0))


def test_several_teachers_see_the_same_mixtures(tmp_path):
    root = write_images(tmp_path / 'data', 3)
    for name in 'ab':
        store_views(root, tmp_path / name, 2, mixing=dict(mixup=1.0))
    combine_stores([tmp_path / 'a', tmp_path / 'b'], tmp_path / 'c')
    mean, one = TeacherViews(tmp_path / 'c'), TeacherViews(tmp_path / 'a')
    assert mean.mixing is not None and mean.sources(5, 1) == one.sources(5, 1)
    torch.testing.assert_close(mean.probabilities(5, 1), one.probabilities(5, 1), rtol=1e-2, atol=1e-3)


@pytest.mark.filterwarnings('ignore:the data set has 1 classes')
def test_mixtures_that_cannot_be_are_rejected_before_a_file_is_written(root, tmp_path):
    with pytest.raises(ValueError, match=r'^cutmix_minmax must be a pixel or more apart, of 32, got \(0.5, 0.51\)'):
        store_views(root, tmp_path / 'store', 1, mixing=dict(cutmix_minmax=(0.5, 0.51)))
    single = write_images(tmp_path / 'single', 1)
    for file in sorted(single.glob('**/*.png'))[1:]:
        file.unlink()
    with pytest.raises(ValueError, match=r'^dataset must be of two or more images to mix them, got 1'):
        store_views(single, tmp_path / 'store', 1, mixing=dict(mixup=1.0))
    assert not (tmp_path / 'store').exists()


@pytest.mark.parametrize('arguments, message', [
    ({}, 'mixup must be positive, or `cutmix` or `cutmix_minmax`, for views of mixed images, got 0.0'),
    (dict(mixup=-1.0), 'mixup must be 0 or more, got -1.0'), (dict(cutmix=float('nan')), 'cutmix must be 0 or more'),
    (dict(mixup=1, mixup_prob=1.5), 'mixup_prob must be above 0 and at most 1, got 1.5'),
    (dict(mixup=1, mixup_prob=0), 'mixup_prob must be above 0 and at most 1, got 0'),
    (dict(cutmix_minmax=(0.8, 0.2)), 'cutmix_minmax must be two increasing fractions of the sides, got ')])
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=f'^{message}'):
        describe_mixing(**arguments)
    with pytest.raises(TypeError, match="got 'mixup_mode'"):
        describe_mixing(mixup=1.0, mixup_mode='elem')
