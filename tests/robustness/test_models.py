"""Models under test: files, labels, classes and sizes."""
from argparse import Namespace

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from timm_assemble.robustness.evaluation import load_classifier
from timm_assemble.robustness.plan import RobustnessOptions, make_plan

from ._samples import write_image

CPU = torch.device('cpu')


def save(model, folder, **model_args):
    save_for_hf(model, str(folder), safe_serialization=True, model_args=model_args)
    return f'local-dir:{folder}'


@pytest.fixture
def three_classes(tmp_path):
    """A plan of images in folders whose order by value is another than by text."""
    for name in ('1', '2', '10', '.cache'):
        write_image(tmp_path / 'three' / name / '0.png', Image.new('RGB', (256, 256)))
    return make_plan(RobustnessOptions(clean=tmp_path / 'three', input_size=64))


def test_models_without_a_classifier_or_for_other_channels_are_rejected(three_classes, tmp_path):
    for kwargs, message in ((dict(num_classes=0), 'models must have a classifier, local-dir:.* returns features'),
                            (dict(num_classes=3, in_chans=1), 'models must take images of 3 channels, .* takes 1')):
        source = save(timm.create_model('test_assemble_resnet', **kwargs), tmp_path / 'model')
        with pytest.raises(ValueError, match=message):
            load_classifier('m', source, three_classes, CPU)


def test_folders_have_the_classes_that_timm_trained_them_as(three_classes, tmp_path):
    """Ten comes after two in train.py, whatever the order of the file list."""
    assert three_classes.classes == ('1', '10', '2')
    model, args = timm.create_model('test_assemble_resnet', num_classes=3), dict(num_classes=3, model_kwargs={})
    checkpoint = dict(state_dict=model.state_dict(), epoch=0, args=Namespace(model='test_assemble_resnet', **args))
    torch.save(checkpoint, tmp_path / 'last.pth.tar')
    for source in (save(model, tmp_path / 'model'), f'test_assemble_resnet={tmp_path / "last.pth.tar"}',
                   lambda images: torch.zeros(len(images), 3)):
        classifier = load_classifier('m', source, three_classes, CPU)
        label_map = three_classes.tasks[0].label_map(classifier)
        assert dict(zip(three_classes.tasks[0].classes, label_map.targets)) == {'1': (0,), '2': (1,), '10': (2,)}


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


def test_transformers_are_resized_to_the_input(three_classes, tmp_path):
    source = save(timm.create_model('test_vit', num_classes=3), tmp_path / 'vit')
    assert load_classifier('vit', source, three_classes, CPU).compute(
        torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(ValueError, match='models must take images of 50 x 50, vit does not: '):
        load_classifier('vit', source, make_plan(RobustnessOptions(clean=tmp_path / 'three', input_size=50)), CPU)
