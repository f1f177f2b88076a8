"""The class of each folder: names decide wherever there are names."""
from types import SimpleNamespace

import pytest
from timm.data import ImageNetInfo

from timm_assemble.data.classes import BY_ORDER, ClassMap, read_class_map

SYNSETS = ImageNetInfo('imagenet-1k').label_names()


def classes_of(names, **cfg):
    return ClassMap.of_model(SimpleNamespace(num_classes=len(names), pretrained_cfg=dict(cfg, label_names=names)))


def test_names_decide_in_any_order_and_for_a_subset():
    found = classes_of(['d', 'c', 'b', 'a'])
    assert found.find(['a', 'b', 'c', 'd']) == (dict(a=3, b=2, c=1, d=0), "the model's label_names")
    assert found.find(['c', 'b']).indices == dict(b=2, c=1)


def test_names_that_contradict_the_models_are_an_error_with_both_lists():
    with pytest.raises(ValueError, match=r"^root must have folders named by the model's label_names, a, b, c, d; got "
                                         r'b, c, d, e in /x, of which e is no class of the model$'):
        classes_of(['a', 'b', 'c', 'd']).find(['b', 'c', 'd', 'e'], 'root', ' in /x')


@pytest.mark.parametrize('count', [1000, 1001])
def test_synsets_are_imagenets_classes(count):
    """The first of 1001 is the background."""
    folders = [SYNSETS[i] for i in (999, 0, 281)]
    found = ClassMap.of_count(count).find(folders)
    assert found == ({SYNSETS[i]: i + count - 1000 for i in (0, 281, 999)}, "ImageNet's synsets")


def test_descriptions_and_the_synsets_of_described_classes_are_names():
    described = classes_of(['n1', 'n2'], label_descriptions=dict(n1='a cat', n2='a dog'))
    assert described.find(['a dog', 'a cat']).indices == {'a dog': 1, 'a cat': 0}
    words = ImageNetInfo('imagenet-1k').label_descriptions(as_dict=True)
    assert classes_of([words[name] for name in SYNSETS]).find([SYNSETS[281]]).indices == {SYNSETS[281]: 281}


def test_folders_in_timms_order_where_nothing_names_the_classes():
    found = ClassMap.of_count(4).find(['b10', 'b9', 'A', 'c'])
    assert found == (dict(A=0, b9=1, b10=2, c=3), BY_ORDER)
    with pytest.raises(ValueError, match=r'^folder must have one folder for each of the 4 classes, .* got 3 folders: '):
        ClassMap.of_count(4).find(['a', 'b', 'c'])
    with pytest.raises(ValueError, match=r'of the 1000 classes or folders named by synsets, .* got 2 folders'):
        ClassMap.of_count(1000).find([SYNSETS[0], 'other'])


def test_class_map_of_train_py(tmp_path):
    (tmp_path / 'map.txt').write_text('dog\ncat\n')
    assert read_class_map(tmp_path / 'map.txt') == ['dog', 'cat']
    (tmp_path / 'map.json').write_text('{}')
    for name in ('map.json', 'none.txt'):
        with pytest.raises(ValueError, match=rf'^class_map .*{name} must be a class map as train.py reads it'):
            read_class_map(tmp_path / name)
