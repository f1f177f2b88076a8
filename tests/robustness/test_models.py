"""Models on the command line of ``timm-assemble robustness``: files, labels, classes, sizes, and what is no model."""
import argparse
import copy

import pytest
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

from timm_assemble.__main__ import main

from .._robustness_place import bad, make_place


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('robustness'))


def test_files_that_hold_no_weights_of_the_model_are_told(place, capsys, tmp_path):
    options = ('--clean', place / 'clean', '--output', tmp_path / 'o')
    for name, write, message in (
            ('junk.pth', lambda path: path.write_bytes(b'junk' * 99), 'cannot be read: '),
            ('junk.safetensors', lambda path: path.write_bytes(b'junk' * 99), 'cannot be read: SafetensorError: '),
            ('list.pth', lambda path: torch.save([1, 2], path), 'cannot be read: '),
            ('other.pth', lambda path: torch.save(dict(a=torch.zeros(1)), path), "classifier 'head.fc'")):
        write(tmp_path / name)
        line = bad(capsys, f'test_assemble_resnet={tmp_path / name}', *options)
        assert f'{name} must h' in line and message in line
    model = timm.create_model('test_assemble_resnet', num_classes=3)
    save_for_hf(model, str(tmp_path / 'hub'), safe_serialization=True)
    (tmp_path / 'hub' / 'model.safetensors').write_bytes(b'junk' * 99)
    assert 'hub: Error while deserializing' in bad(capsys, f'local-dir:{tmp_path / "hub"}', *options)


def test_a_checkpoint_of_training_that_is_damaged_is_not_taken_for_weights_alone(place, capsys, tmp_path):
    """Its arguments say which network it is; without them the weights would be put into another that they fit."""
    state = timm.create_model('test_assemble_resnet', num_classes=3).state_dict()
    args = argparse.Namespace(model='test_assemble_resnet', num_classes=3, model_kwargs={})
    said = argparse.Namespace(**{**vars(args), 'num_classes': 5})
    options = ('--clean', place / 'clean', '--input-size', 32, '--workers', 0, '--output', tmp_path / 'o')
    path = tmp_path / 'last.pth.tar'
    torch.save(dict(state_dict=state, args=args, epoch=0), path)
    assert main(['robustness', f'test_assemble_resnet={path}', *map(str, options)]) == 0
    capsys.readouterr()
    torch.save(dict(state_dict=state, args=said, epoch=0), path)
    line = bad(capsys, f'test_assemble_resnet={path}', *options)
    assert 'must be those of test_assemble_resnet as its arguments build it' in line


def test_a_model_without_a_classifier_is_refused_before_any_work(place, capsys, tmp_path):
    save_for_hf(timm.create_model('test_assemble_resnet', num_classes=0), str(tmp_path / 'features'))
    line = bad(capsys, f'local-dir:{tmp_path / "features"}', '--clean', place / 'clean', '--output', tmp_path)
    assert 'must have a classifier, and gives features alone' in line


def test_folders_have_the_classes_that_timm_trained_them_as(tmp_path):
    """Ten comes after two: a model of train.py has learned it so, whatever the order of the listing."""
    from timm_assemble.cli.robustness import _subject
    from timm_assemble.robustness.models import LoadedModel
    from timm_assemble.robustness.plan import Request, make_plan
    for name in ('1', '2', '10', '.cache'):
        (tmp_path / name).mkdir()
        Image.new('RGB', (256, 256)).save(tmp_path / name / '0.png')
    plan = make_plan(Request(clean=tmp_path))
    loaded = LoadedModel('m', 'm', 'm', 3, 224, (0.5,) * 3, (0.5,) * 3, '', '', timm.create_model(
        'test_assemble_resnet', num_classes=3).eval())
    assert plan.classes == ('1', '10', '2')
    assert _subject(loaded, plan, torch.device('cpu'), False).class_map == [0, 2, 1]


def test_labels_and_hub_folders(place, capsys):
    """A folder in the Hub's form under a label; and anti-aliasing, which no weight tells, makes another model."""
    from timm_assemble.robustness.models import labels_of, load_model
    model = timm.create_model('test_assemble_resnet', num_classes=3)
    for name, aa in (('with', 3), ('without', 0)):
        made = timm.create_model('test_assemble_resnet', num_classes=3, aa_size=aa)
        made.load_state_dict(copy.deepcopy(model.state_dict()))
        save_for_hf(made, str(place / name), safe_serialization=True, model_args=dict(aa_size=aa))
    loaded = [load_model(f'{name}=local-dir:{place / name}') for name in ('with', 'without')]
    assert [m.label for m in loaded] == ['with', 'without'] and loaded[0].checksum == loaded[1].checksum
    assert loaded[0].identity != loaded[1].identity
    assert labels_of(['a=hf-hub:x/y', 'resnet18', 'resnet18=p/w.pth']) == ['a', 'resnet18', 'resnet18=w.pth']
    assert labels_of(['m=p/w.pth', 'm=q/w.pth']) == ['m=p/w.pth', 'm=q/w.pth']


def test_transformers_are_brought_to_the_size():
    from timm_assemble.robustness.models import LoadedModel
    model = timm.create_model('test_vit', num_classes=3).eval()
    loaded = LoadedModel('vit', 'vit', 'test_vit', 3, 160, (0.5,) * 3, (0.5,) * 3, '', '', model)
    classify = loaded.classifier(torch.device('cpu'), False, 64)
    assert classify(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(ValueError, match='vit takes no pictures of 50 x 50: '):
        loaded._replace(own_size=64).classifier(torch.device('cpu'), False, 50)
