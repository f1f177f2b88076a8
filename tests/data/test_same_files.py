"""Every command that takes images reads the same pixels of the same files, and names the same unreadable ones."""
import re
import warnings

import numpy as np
import pytest
import torch
from timm.data import create_dataset
from torch import nn

from timm_assemble.data import Preprocessing, list_images, read_image
from timm_assemble.data.accuracy import measure_accuracy
from timm_assemble.data.classes import ClassMap
from timm_assemble.data.images import UnreadableError
from timm_assemble.data.samples import use_image_extensions
from timm_assemble.deploy import calibration
from timm_assemble.errors import UserError
from timm_assemble.models.loading import ModelSource
from timm_assemble.training import store_teacher_logits

from ._odd import write_odd_tree

HEIGHT, WIDTH = 32, 48


class Recorder(nn.Module):
    """A model of two classes that keeps its input; as timm's with mean 0 and std 1, or as a callable of pixels."""

    def __init__(self):
        super().__init__()
        self.num_classes, self.in_chans, self.seen = 2, 3, []
        self.pretrained_cfg = dict(
            input_size=(3, HEIGHT, WIDTH), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation='bilinear', crop_pct=0.9)

    def forward(self, x):
        self.seen += [*(x if x.dtype == torch.uint8 else (255 * x).round().byte())]
        return torch.stack([x.float().mean((1, 2, 3)), x.float().std((1, 2, 3))], 1)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp('odd')
    return root, *write_odd_tree(root)


@pytest.fixture
def model():
    return Recorder()


def check_pixels(model, tree, reads=1):
    """Compare with what data.read_image gives: every readable file as often as it should be read."""
    root, readable, _ = tree
    transform = Preprocessing.of_model(model).transform(normalized=False)
    expected = sorted(np.asarray(transform(read_image(root / name))).tobytes() for name in readable for _ in range(reads))
    zeros = bytes(3 * HEIGHT * WIDTH)  # models are tried with an empty image
    seen = sorted(pixels for pixels in (x.numpy().tobytes() for x in model.seen) if pixels != zeros)
    assert len(seen) == len(expected) and seen == expected


def check_named(text, tree):
    missing = [name for name in tree[2] if name not in text]
    assert not missing and not [name for name in tree[1] if name in text]


def test_the_list_has_every_image_and_each_is_read_or_named(tree):
    root, readable, unreadable = tree
    files = list_images(root)
    assert [*files.classes] == ['c0', 'c1'] and len(files.files) == len(readable) + len(unreadable)
    found = {}
    for name, _ in files.files:
        try:
            assert read_image(root / name).mode == 'RGB'
        except UnreadableError as e:
            found[e.path.removeprefix(f'{root}/')] = e.reason
    assert found.keys() == unreadable.keys()
    assert all(reason in found[name] for name, reason in unreadable.items())


@pytest.mark.filterwarnings('ignore:unclosed file')
def test_teacher_logits(tree, model, tmp_path):
    """The store gets every chunk without an unreadable file."""
    use_image_extensions()
    dataset = create_dataset('', root=str(tree[0]), input_img_mode='RGB', search_split=False)
    with warnings.catch_warnings(record=True) as noted, pytest.raises(UserError) as error:
        warnings.simplefilter('always')
        store_teacher_logits(model, 'teacher', dataset, tmp_path / 's', chunk_size=1, workers=0, progress=False)
    check_named(' '.join([str(error.value), *(str(note.message) for note in noted)]), tree)
    check_pixels(model, tree)
    assert len([*(tmp_path / 's' / 'chunks').iterdir()]) == len(tree[1])


def test_calibrate(tree, model, monkeypatch):
    monkeypatch.setattr(calibration, 'MIN_IMAGES', 1)
    source = ModelSource(model, Preprocessing.of_model(model), ClassMap.of_count(2))
    images, skipped = calibration.load_folder(tree[0], source, (3, HEIGHT, WIDTH))
    model(images)
    check_pixels(model, tree)
    check_named(' '.join(skipped), tree)


def test_verify(tree, model):
    accuracy = measure_accuracy(model, tree[0])
    check_pixels(model, tree)
    check_named(' '.join(accuracy.unreadable), tree)


@pytest.mark.parametrize('command', ['robustness', 'retrieval'])
def test_evaluations(tree, model, command, capfd):
    from timm_assemble import retrieval, robustness

    options = dict(input_size=(HEIGHT, WIDTH), workers=0, device='cpu')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        if command == 'robustness':
            results = robustness.evaluate({'m': model}, clean=tree[0], **options)
        else:
            results = retrieval.evaluate({'m': model}, tree[0], crop_pct=0.9, **options)
    named = re.sub(r'\\\\x', r'\\x', f'{results.unreadable} {capfd.readouterr().err}')
    check_named(named, tree)
    if command == 'retrieval':
        check_pixels(model, tree)
