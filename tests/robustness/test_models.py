"""Models under test: files, labels, classes and sizes."""
import argparse
from contextlib import nullcontext

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from timm_assemble.models.loading import load_source
from timm_assemble.robustness.models import label_models, load_classifier
from timm_assemble.robustness.plan import Request, make_plan

from ._samples import error_of, write_image

CPU = torch.device('cpu')


def save(model, folder, **model_args):
    save_for_hf(model, str(folder), safe_serialization=True, model_args=model_args)
    return f'local-dir:{folder}'


@pytest.mark.parametrize('name, content, message', [
    ('junk.pth', b'junk' * 99, 'cannot be read: '), ('list.pth', [1, 2], 'cannot be read: '),
    ('junk.safetensors', b'junk' * 99, 'cannot be read: SafetensorError: '),
    ('other.pth', dict(a=torch.zeros(1)), "classifier 'head.fc'")])
def test_files_without_the_models_weights_are_one_line(samples, capsys, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    line = error_of(capsys, 'robustness', f'test_assemble_resnet={path}', '--clean', samples / 'clean')
    assert f'{name} must h' in line and message in line


def test_damaged_weights_of_a_folder_are_named(tmp_path):
    source = save(timm.create_model('test_assemble_resnet', num_classes=3), tmp_path / 'hub')
    (tmp_path / 'hub' / 'model.safetensors').write_bytes(b'junk' * 99)
    with pytest.raises(ValueError, match='hub: Error while deserializing'):
        load_source(source)


def test_damaged_training_checkpoint_is_not_taken_for_weights_alone(tmp_path):
    """Its arguments name the network; the weights would fit another one."""
    state = timm.create_model('test_assemble_resnet', num_classes=3).state_dict()
    for num_classes in (3, 5):
        args = argparse.Namespace(model='test_assemble_resnet', num_classes=num_classes, model_kwargs={})
        torch.save(dict(state_dict=state, args=args, epoch=0), tmp_path / 'last.pth.tar')
        context = nullcontext() if num_classes == 3 else pytest.raises(
            ValueError, match='must be those of test_assemble_resnet as its arguments build it')
        with context:
            load_source(f'test_assemble_resnet={tmp_path / "last.pth.tar"}')


@pytest.fixture
def three_classes(tmp_path):
    """A plan of images in folders whose order by value is another than by text."""
    for name in ('1', '2', '10', '.cache'):
        write_image(tmp_path / 'three' / name / '0.png', Image.new('RGB', (256, 256)))
    return make_plan(Request(clean=tmp_path / 'three', input_size=64))


def test_models_without_a_classifier_or_for_other_channels_are_rejected(three_classes, tmp_path):
    for kwargs, message in ((dict(num_classes=0), 'models must have a classifier, local-dir:.* returns features'),
                            (dict(num_classes=3, in_chans=1), 'models must take images of 3 channels, .* takes 1')):
        source = save(timm.create_model('test_assemble_resnet', **kwargs), tmp_path / 'model')
        with pytest.raises(ValueError, match=message):
            load_classifier('m', source, three_classes, CPU)


def test_folders_have_the_classes_that_timm_trained_them_as(three_classes, tmp_path):
    """Ten comes after two in train.py, whatever the order of the file list."""
    assert three_classes.classes == ('1', '10', '2')
    source = save(timm.create_model('test_assemble_resnet', num_classes=3), tmp_path / 'model')
    assert load_classifier('m', source, three_classes, CPU).class_map == [0, 2, 1]
    assert load_classifier('m', lambda images: torch.zeros(len(images), 3), three_classes, CPU).class_map == [0, 2, 1]


def test_structure_without_weights_makes_another_model(three_classes, tmp_path):
    """Anti-aliasing has no weights."""
    model = timm.create_model('test_assemble_resnet', num_classes=3)
    classifiers = []
    for aa_size in (3, 0):
        other = timm.create_model('test_assemble_resnet', num_classes=3, aa_size=aa_size)
        other.load_state_dict(model.state_dict())
        source = save(other, tmp_path / str(aa_size), aa_size=aa_size)
        classifiers.append(load_classifier('m', source, three_classes, CPU))
    assert classifiers[0].details['checksum'] == classifiers[1].details['checksum']
    assert classifiers[0].identity != classifiers[1].identity


def function(images):
    return images


@pytest.mark.parametrize('models, baseline, labels, label', [
    ('resnet18', None, ['resnet18'], None),
    (function, None, ['function'], None),
    (['a=hf-hub:x/y', 'resnet18', 'resnet18=p/w.pth'], None, ['a', 'resnet18', 'resnet18=w.pth'], None),
    (['m=p/w.pth', 'm=q/w.pth'], 'm=q/w.pth', ['m=p/w.pth', 'm=q/w.pth'], 'm=q/w.pth'),
    (['m=p/w.pth', function], 'm=p/w.pth', ['m=w.pth', 'function'], 'm=w.pth'),
    (['m=p/w.pth'], 'm=q/w.pth', ['m=q/w.pth', 'm=p/w.pth'], 'm=q/w.pth'),
    (dict(one='resnet18', two=function), 'two', ['one', 'two'], 'two'),
    (dict(one='resnet18'), 'm=q/w.pth', ['m=w.pth', 'one'], 'm=w.pth'),
])
def test_labels_are_short_and_the_baseline_is_found_or_added(models, baseline, labels, label):
    labelled, found = label_models(models, baseline)
    assert [*labelled] == labels and found == label


@pytest.mark.parametrize('models, message', [
    (['x=hf-hub:a/b', 'x=hf-hub:a/c'], 'models must have distinct labels, got x more than once'),
    ([function, function], 'got function more than once'), ([], 'models must be at least one')])
def test_models_without_distinct_labels_are_rejected(models, message):
    with pytest.raises(ValueError, match=message):
        label_models(models)


def test_transformers_are_resized_to_the_input(three_classes, tmp_path):
    source = save(timm.create_model('test_vit', num_classes=3), tmp_path / 'vit')
    assert load_classifier('vit', source, three_classes, CPU).classify(
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(ValueError, match='models must take images of 50 x 50, vit does not: '):
        load_classifier('vit', source, make_plan(three_classes.request._replace(input_size=50)), CPU)
