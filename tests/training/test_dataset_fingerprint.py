"""The fingerprint of a data set: names and labels, wherever it is, in folders, in tar files and without names."""
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder

from timm_assemble.training import fingerprint


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    for name in ('train/0/a', 'train/0/b', 'train/1/c', 'train/10/d', 'validation/0/e'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(root / f'{name}.png')
    return root


def dataset_of(root, split='train'):
    return create_dataset('', root=str(root), split=split)


def test_location_and_library_do_not_matter(data, tmp_path):
    (tmp_path / 'moved').symlink_to(data)
    assert fingerprint(dataset_of(data)) == fingerprint(dataset_of(tmp_path / 'moved'))
    (data / 'train' / '10').rename(data / 'train' / '2')  # torchvision sorts class names as text
    assert fingerprint(dataset_of(data)) == fingerprint(ImageFolder(str(data / 'train')))
    (data / 'train' / '2').rename(data / 'train' / '10')


@pytest.mark.parametrize('folder, member', [('train', '.'), ('train', '0 1 10'), ('.', './train')])
def test_tar_file_has_the_fingerprint_of_its_folder(data, tmp_path, folder, member):
    subprocess.run(['tar', 'cf', tmp_path / 'x.tar', '-C', data / folder, *member.split()], check=True)
    dataset = create_dataset('', root=str(data / 'train'), split='train')
    if folder == '.':
        (tmp_path / 'whole').mkdir()
        (tmp_path / 'whole' / 'train').symlink_to(data / 'train')
        dataset = create_dataset('', root=str(tmp_path / 'whole'), search_split=False)
    assert fingerprint(dataset_of(tmp_path / 'x.tar')) == fingerprint(dataset)


def test_differences_are_described(data):
    expected, changed, other = fingerprint(dataset_of(data)), dataset_of(data), dataset_of(data)
    changed.reader.samples = changed.reader.samples[::-1]
    assert expected.difference(fingerprint(changed)) == 'the same images in another order or with other labels'
    other.reader.samples[0] = (str(data / 'train' / '0' / 'other.png'), 0)
    assert expected.difference(fingerprint(other)) == 'other images or labels'
    assert expected.difference(fingerprint(dataset_of(data, 'validation'))) == '1 samples instead of 4'


def test_data_sets_that_stream_are_rejected():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(ValueError, match='dataset must have an index for stored logits, got Stream, which streams'):
        fingerprint(Stream())


def test_labels_count_without_names():
    class Arrays(torch.utils.data.Dataset):
        transform = None

        def __init__(self, images, targets):
            self.images, self.targets = images, targets

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, i):
            return Image.fromarray(self.images[i]), self.targets[i]

    images = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), np.uint8)
    expected = fingerprint(Arrays(images, [0, 1, 2, 0, 1]))
    assert (expected.classes, expected.difference(fingerprint(Arrays(images, [0, 1, 2, 0, 1])))) == (3, None)
    assert expected.difference(fingerprint(Arrays(images, [0, 1, 2, 1, 0]))) == 'other images or labels'
