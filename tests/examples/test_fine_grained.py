"""Stand-ins of the fine-grained data sets in their published layouts, as image folders that timm reads."""
import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from timm.data import create_dataset

from timm_assemble.examples.fine_grained import DATA_SETS, main, write_folders
from timm_assemble.recipes import read_config, recipe_names, recipe_path
from timm_assemble.recipes.paper import FINE_TUNING_TOP1

# label of every image, by split; in file order, not in the order of the labels
SPLITS = {'train': [1, 0, 2], 'val': [2, 0], 'test': [0, 2, 1, 1]}
CLASSES = ['F/A-18', 'Boeing 737-200', 'A340']


def image(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), (80 * label, 0, 0)).save(path, quality=95)


def food101(root):
    for split in ('train', 'test'):
        files = {}
        for i, label in enumerate(SPLITS[split]):
            files.setdefault(f'class_{label}', []).append(f'class_{label}/{split}{i}')
            image(root / 'food-101' / 'images' / f'class_{label}' / f'{split}{i}.jpg', label)
        (root / 'food-101' / 'meta').mkdir(exist_ok=True)
        (root / 'food-101' / 'meta' / f'{split}.json').write_text(json.dumps(files))


def cars(root):
    base = root / 'stanford_cars'
    (base / 'devkit').mkdir(parents=True)
    for split, path in (('train', 'devkit/cars_train_annos.mat'), ('test', 'cars_test_annos_withlabels.mat')):
        entries = [(f'{i:05d}.jpg', label + 1) for i, label in enumerate(SPLITS[split])]
        for name, label in entries:
            image(base / f'cars_{split}' / name, label - 1)
        savemat(base / path, {'annotations': np.array(entries, dtype=[('fname', object), ('class', object)])})
    savemat(base / 'devkit' / 'cars_meta.mat', {'class_names': np.array(CLASSES, dtype=object)})


def flowers(root):
    base, labels, ids = root / 'flowers-102', [], {}
    for split, key in (('train', 'trnid'), ('val', 'valid'), ('test', 'tstid')):
        ids[key] = [len(labels) + 1 + i for i in range(len(SPLITS[split]))]
        for number, label in zip(ids[key], SPLITS[split]):
            image(base / 'jpg' / f'image_{number:05d}.jpg', label)
        labels += SPLITS[split]
    savemat(base / 'imagelabels.mat', {'labels': np.array(labels) + 1})
    savemat(base / 'setid.mat', {key: np.array(value) for key, value in ids.items()})


def aircraft(root):
    base = root / 'fgvc-aircraft-2013b' / 'data'
    for split, labels in (('trainval', SPLITS['train']), ('test', SPLITS['test'])):
        for i, label in enumerate(labels):
            image(base / 'images' / f'{split}{i}.jpg', label)
        (base / f'images_variant_{split}.txt').write_text(
            ''.join(f'{split}{i} {CLASSES[label]}\n' for i, label in enumerate(labels)))
    (base / 'variants.txt').write_text('\n'.join(CLASSES))


def pets(root):
    base, names = root / 'oxford-iiit-pet', ('Abyssinian', 'american_bulldog', 'Bengal')
    (base / 'annotations').mkdir(parents=True)
    for split, labels in (('trainval', SPLITS['train']), ('test', SPLITS['test'])):
        lines = [f'{names[label]}_{split}{i} {label + 1} 1 1\n' for i, label in enumerate(labels)]
        for line, label in zip(lines, labels):
            image(base / 'images' / f'{line.split()[0]}.jpg', label)
        (base / 'annotations' / f'{split}.txt').write_text(''.join(lines))


WRITERS = dict(food101=food101, cars=cars, flowers=flowers, aircraft=aircraft, pets=pets)


@pytest.mark.parametrize('name', DATA_SETS)
def test_folders_have_the_images_labels_and_splits_of_the_published_layout(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('torchvision.datasets.flowers102.check_integrity', lambda path, md5: True)
    WRITERS[name](tmp_path / 'root')
    assert main([name, str(tmp_path / 'root'), str(tmp_path / 'out')]) == 0
    train = SPLITS['train'] + (SPLITS['val'] if name == 'flowers' else [])
    out = capsys.readouterr().out
    assert f'out/train: {len(train)} images of 3 classes; published: {DATA_SETS[name].images[0]} of' in out
    for split, labels in (('train', train), ('validation', SPLITS['test'])):
        samples = create_dataset('', root=str(tmp_path / 'out'), split=split).reader.samples
        assert sorted(label for _, label in samples) == sorted(labels)
        for path, label in samples:
            with Image.open(path) as opened:
                assert abs(opened.getpixel((0, 0))[0] - 80 * label) < 9
    classes = sorted(path.name for path in (tmp_path / 'out' / 'train').iterdir())
    assert name not in ('cars', 'aircraft') or classes == ['000_F_A-18', '001_Boeing_737-200', '002_A340']


def test_bad_use_is_one_line(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"name must be one of food101, .*, got 'birds'"):
        write_folders('birds', tmp_path, tmp_path / 'out')
    for args in (['pets'], ['cars', '--download']):
        assert main([*args, str(tmp_path), str(tmp_path / 'out')]) == 2
        assert "root must have torchvision's files of" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_every_data_set_has_its_recipe_of_one_setting():
    recipes = {name: read_config(recipe_path(name)) for name in recipe_names() if name.startswith('assemble_resnet50_')}
    by_title = {recipe_path(name).read_text().splitlines()[0].removeprefix('# ').removesuffix('.'): config
                for name, config in recipes.items()}
    titles = [data_set.title for data_set in DATA_SETS.values()]
    assert list(FINE_TUNING_TOP1) == titles
    classes = [by_title[title].pop('num_classes') for title in titles]
    assert classes == [data_set.classes for data_set in DATA_SETS.values()]
    assert all(by_title[title] == by_title['Food-101'] for title in titles)
