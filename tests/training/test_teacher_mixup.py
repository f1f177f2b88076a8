"""Labels and teacher rows in every mode of timm's mixup, against a loop with the weights that timm drew."""
import pickle

import numpy as np
import pytest
import torch
from timm.data import FastCollateMixup, Mixup, create_loader
from timm.data.dataset import AugMixDataset
from timm.data.loader import fast_collate
from torch.utils.data import DataLoader, Dataset

from timm_assemble.training import (
    TeacherCollate, TeacherCollateMixup, TeacherDataset, TeacherMixup, pack_targets, unpack_targets,
)

from .. import _oracles as oracle

BATCH, CLASSES, SIZE = 8, 5, 12
KINDS = {
    'mixup': dict(mixup_alpha=0.4), 'cutmix': dict(mixup_alpha=0., cutmix_alpha=1.),
    'both': dict(mixup_alpha=0.4, cutmix_alpha=1.), 'minmax': dict(mixup_alpha=0., cutmix_minmax=(0.2, 0.8)),
    'seldom': dict(mixup_alpha=0.4, prob=0.4)}
LABELS = torch.tensor([0, 4, 2, 2, 1, 3, 0, 4])
PROBS = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(CLASSES), BATCH)).float()
IMAGES = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (BATCH, 3, SIZE, SIZE), np.uint8))


class Samples(Dataset):
    transform = None

    def __len__(self):
        return BATCH

    def __getitem__(self, i):
        return IMAGES[i], int(LABELS[i])


class Rows:
    def probabilities(self, index, temperature, standardized=False):
        return (PROBS[index].log() / temperature).softmax(0)


@pytest.fixture
def weights(monkeypatch):
    """What timm's mixup drew, one list per call: a weight for each image, corrected for clipped cuts."""
    drawn = []

    def recording(mix):
        def mix_and_record(self, *args, **kwargs):
            lam = mix(self, *args, **kwargs)
            drawn.append(np.broadcast_to(np.asarray(lam, dtype=np.float64).ravel(), BATCH))
            return lam
        return mix_and_record

    for cls, end in ((Mixup, ''), (FastCollateMixup, '_collate')):
        for mode in ('elem', 'pair', 'batch'):
            monkeypatch.setattr(cls, f'_mix_{mode}{end}', recording(getattr(cls, f'_mix_{mode}{end}')))
    return drawn


def check(targets, lam, smoothing):
    class_weights, probs = unpack_targets(targets, CLASSES)
    expected = oracle.mixed_with_reverse(oracle.smoothed(LABELS.numpy(), CLASSES, smoothing), lam)
    np.testing.assert_allclose(class_weights.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(probs.numpy(), oracle.mixed_with_reverse(PROBS.double().numpy(), lam), atol=1e-6)


def mix(mixup, targets):
    if isinstance(mixup, FastCollateMixup):
        return mixup([(image.numpy().copy(), target) for image, target in zip(IMAGES, targets)])
    return mixup(IMAGES.float(), targets)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('ours, timms, mode', [
    *((TeacherMixup, Mixup, mode) for mode in ('batch', 'pair', 'elem')),
    *((TeacherCollateMixup, FastCollateMixup, mode) for mode in ('batch', 'pair', 'elem', 'half'))])
def test_mixup_is_timms_for_images_and_labels(ours, timms, mode, kind, smoothing, weights):
    """Bit-equal images; rows mixed with the same weights."""
    arguments = dict(KINDS[kind], mode=mode, label_smoothing=smoothing, num_classes=CLASSES)
    count = BATCH // 2 if mode == 'half' else BATCH
    for seed in range(4):
        np.random.seed(seed)
        x, targets = mix(ours(**arguments), pack_targets(LABELS, PROBS))
        assert targets.shape == (count, 2 * CLASSES)
        check(targets, weights.pop()[:count], smoothing)
        np.random.seed(seed)
        timm_x, timm_weights = mix(timms(**arguments), LABELS)
        assert torch.equal(x, timm_x)
        torch.testing.assert_close(targets[:, :CLASSES], timm_weights, rtol=0, atol=1e-7)
        weights.clear()


def test_disabled_mixup_smooths_labels_alone():
    """train.py disables mixup by this attribute in the last epochs. The mixup itself does not change."""
    mixup = TeacherMixup(mixup_alpha=0.4, mode='elem', num_classes=CLASSES, label_smoothing=0.1)
    mixup.mixup_enabled = False
    x, targets = mixup(IMAGES.float(), pack_targets(LABELS, PROBS))
    assert torch.equal(x, IMAGES.float()) and (mixup.num_classes, mixup.label_smoothing) == (CLASSES, 0.1)
    check(targets, np.ones(BATCH), 0.1)


@pytest.mark.parametrize('prefetcher', [True, False])
def test_loader_without_mixup_gives_packed_targets(prefetcher):
    collate = TeacherCollate(fast_collate if prefetcher else torch.utils.data.default_collate)
    loader = create_loader(
        TeacherDataset(Samples(), Rows(), 2.0), (3, SIZE, SIZE), BATCH, num_workers=0, collate_fn=collate,
        use_prefetcher=prefetcher, device=torch.device('cpu'))
    (x, targets), = loader
    labels, probs = unpack_targets(targets, CLASSES)
    assert torch.equal(labels, LABELS) and labels.dtype == torch.int64
    torch.testing.assert_close(probs, (PROBS.log() / 2).softmax(1))
    assert len(x) == BATCH


def test_augmentation_splits_repeat_the_targets():
    dataset = AugMixDataset(Samples(), num_splits=2)
    dataset.augmentation = lambda x: x
    loader = DataLoader(TeacherDataset(dataset, Rows()), BATCH, collate_fn=TeacherCollate(fast_collate))
    (x, targets), = loader
    assert len(x) == 2 * BATCH
    torch.testing.assert_close(targets, pack_targets(LABELS, PROBS).repeat(2, 1))


def test_worker_processes_mix_rows():
    """Started by spawn, so that data set, rows and mixup are pickled."""
    mixup = TeacherCollateMixup(mixup_alpha=0.4, mode='elem', num_classes=CLASSES)
    loader = DataLoader(
        TeacherDataset(Samples(), Rows()), 4, num_workers=1, collate_fn=mixup,
        multiprocessing_context='spawn')
    for x, targets in loader:
        assert x.shape == (4, 3, SIZE, SIZE) and targets.shape == (4, 2 * CLASSES)
        torch.testing.assert_close(targets.sum(1), torch.full((4,), 2.0))


def test_dataset_forwards_attributes_and_pickles():
    inner = Samples()
    dataset = pickle.loads(pickle.dumps(TeacherDataset(inner, Rows())))
    assert len(dataset) == BATCH and dataset.transform is None
    dataset = TeacherDataset(inner, Rows())
    dataset.transform = 'set'
    assert inner.transform == 'set' and not hasattr(dataset, 'set_epoch')
    with pytest.raises(ValueError, match='temperature must be positive, got 0'):
        TeacherDataset(inner, Rows(), 0)
