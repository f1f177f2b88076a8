"""``timm-assemble robustness``: options, folders, files and models do not fit."""
import argparse
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from timm_assemble.__main__ import main

from ._samples import arguments, error_of, read_results


@pytest.mark.parametrize('options, message', [
    ((), '--imagenet-c must be given, or --imagenet-p, --generate, --clean or --test-sets'),
    (('--generate', 'clean', '--clean', 'clean'), '--generate corrupts clean images, and takes neither --imagenet-c'),
    (('--imagenet-c', 'c', '--protocol', 'assemble'), '--protocol must be imagenet-c for published images'),
    (('--imagenet-c', 'c', '--corruptions', 'spatter'), 'lacks spatter; --corruptions names those'),
    (('--imagenet-c', 'c', '--corruptions', 'rain'), '--corruptions must be from gaussian_noise'),
    (('--generate', 'clean', '--corruptions', 'fog', 'rain'), "got 'rain'"),
    (('--imagenet-c', 'c/fog/1'), '--imagenet-c must have 15 corruptions'),
    (('--imagenet-c', 'nowhere'), '--imagenet-c must be a folder with one folder per corruption'),
    (('--imagenet-p', '.'), '--imagenet-p must be a folder with the 10 perturbations'),
    (('--clean', 'clean/x'), '--clean must be a folder with one folder per class, with files that end in .jpeg'),
    (('--clean', 'nowhere'), '--clean must be a folder with one folder per class, got '),
    (('--imagenet-p', '.', '--shift', 3), '--shift needs --clean or --generate'),
    (('--clean', 'clean', '--shift', 32), "--shift must be below the input's sides, 32 x 32, got 32"),
    (('--generate', 'clean', '--imagenet-p', '.'), '--generate has images of 256 and --imagenet-p sequences of 224'),
    (('--clean', 'clean', '--corruptions', 'fog'), '--corruptions need --imagenet-c or --generate'),
    (('--clean', 'clean', '--device', 'abacus'), "--device must be available, got 'abacus'"),
    (('--clean', 'clean', '--output', 'a.safetensors'), 'a.safetensors'),
    (('--workers', '-1'), "--workers: must be an integer of 0 or more, got '-1'"),
    (('--test-sets', 'imagenet-a'), "--test-sets: must be NAME=DIR, got 'imagenet-a'"),
    (('--ood', 'a=x', 'a=y'), '--ood must have distinct names, got a, a'),
    (('--shift', '0'), '--shift: must be an integer of 1 or more'), (('--protocol', 'mine'), "invalid choice: 'mine'"),
])
def test_options_that_do_not_fit_are_one_line(samples, capsys, monkeypatch, tmp_path, options, message):
    monkeypatch.chdir(samples)
    a = arguments(samples, '--output', tmp_path / 'o', *options, models='a')
    assert message in error_of(capsys, *a)
    assert not [*tmp_path.rglob('*.json')]  # neither results nor cached ones


@pytest.mark.parametrize('model, message', [
    ('resnet5000', 'timm knows no such model'), ('assemble_resnet50', 'No pretrained weights exist'),
    ('resnet50=', 'NAME=CHECKPOINT'), ('resnet5000=x', "timm knows, got 'resnet5000'"),
    ('local-dir:nowhere', 'nowhere'), ('local-dir:hub', 'model.safetensors is damaged: Error while deserializing'),
    ('test_assemble_resnet=nowhere', 'must be a file, got'),
    ('resnet18=list.pth', 'list.pth must hold weights of resnet18, but cannot be read: '),
    ('test_assemble_resnet=junk.pth', 'junk.pth must hold weights of test_assemble_resnet, but cannot be read: '),
    ('test_assemble_resnet=junk.safetensors', 'cannot be read: SafetensorError: '),
    ('test_assemble_resnet=other.pth', "other.pth must have the weights of test_assemble_resnet, but those of its "
                                       "classifier 'fc' are missing"),
    ('resnet18=weights.pth', 'resnet18'),
    # its arguments name another network than that of its weights
    ('test_assemble_resnet=last.pth.tar', 'must be those of test_assemble_resnet as its arguments build it'),
])
def test_models_that_cannot_be_loaded_are_one_line(samples, capsys, monkeypatch, tmp_path, model, message):
    monkeypatch.chdir(tmp_path)
    network = timm.create_model('test_assemble_resnet', num_classes=3)
    save_for_hf(network, 'hub', safe_serialization=True)
    for name in ('junk.pth', 'junk.safetensors', 'hub/model.safetensors'):
        Path(name).write_bytes(b'junk' * 99)
    state, args = network.state_dict(), dict(model='test_assemble_resnet', num_classes=5, model_kwargs={})
    for name, content in (('list.pth', [1, 2]), ('other.pth', dict(a=torch.zeros(1))), ('weights.pth', state),
                          ('last.pth.tar', dict(state_dict=state, args=argparse.Namespace(**args), epoch=0))):
        torch.save(content, name)
    line = error_of(capsys, 'robustness', model, '--clean', samples / 'clean', '--output', tmp_path / 'o')
    assert line.startswith('timm-assemble: MODEL ') and model in line and message in line


def test_model_with_other_classes_is_rejected(samples, capsys, tmp_path):
    for name in 'xy':
        shutil.copytree(samples / 'clean' / name, tmp_path / 'two' / name)
    line = error_of(capsys, *arguments(samples, '--clean', tmp_path / 'two', '--output', tmp_path / 'o', models='a'))
    assert '--clean for test_assemble_resnet=a.safetensors must have' in line
    assert 'folder for each of the 3 classes, because nothing names the classes of the model, got 2 folders' in line
    a = arguments(samples, '--clean', tmp_path / 'two', '--imagenet-c', samples / 'c')
    assert '--clean must have the classes of --imagenet-c, ' in error_of(capsys, *a)


def test_all_missing_and_differing_folders_are_named(samples, capsys, tmp_path):
    tree = shutil.copytree(samples / 'c', tmp_path / 'c')
    a = arguments(samples, '--imagenet-c', tree, '--output', tmp_path / 'o', models='a')
    extra = tree / 'snow' / '2' / 'x' / '1.JPEG'
    shutil.copy(tree / 'snow' / '2' / 'x' / '0.JPEG', extra)
    assert 'gaussian_noise/1 has 3 images of 3 classes, snow/2 has 4 of 3' in error_of(capsys, *a)
    extra.unlink()
    shutil.rmtree(tree / 'fog')
    shutil.rmtree(tree / 'snow' / '4')
    assert 'lacks fog, snow/4; --corruptions names' in error_of(capsys, *a)
    assert main([*a, '--corruptions', 'frost']) == 0
    assert read_results(tmp_path / 'o')['models'][0]['mce'] is None


def test_unreadable_image_is_left_out_of_every_condition(samples, capsys, tmp_path):
    tree = tmp_path / 'c'
    for name in ('frost', 'fog'):
        shutil.copytree(samples / 'c' / name, tree / name)
    options = ('--corruptions', 'frost', 'fog', '--output', tmp_path / 'o', '--cache', tmp_path / 'cache')
    a = arguments(samples, '--imagenet-c', tree, *options, models='a')
    path = tree / 'frost' / '2' / 'y' / '0.JPEG'
    content = path.read_bytes()
    path.write_bytes(b'x' * len(content))  # of the same size: the fingerprint is the same
    line = error_of(capsys, *a, printed=True)
    assert f'1 of the files cannot be read, and are left out of every condition: {path} (' in line
    results = read_results(tmp_path / 'o')
    [named] = results['unreadable']
    assert named['path'] == str(path) and 'cannot identify' in named['reason'] and named['tasks'] == 10
    assert {entry['images'] for name in ('frost', 'fog') for entry in
            results['models'][0]['corruptions'][name]['severities'].values()} == {2}
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / 'cache').iterdir()}
    assert len(times) == 10
    error_of(capsys, *a, printed=True)
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / 'cache').iterdir()} == times
    path.write_bytes(content)
    assert main(a) == 0
    assert sum(f.stat().st_mtime_ns != time for f, time in times.items()) == 1
    assert read_results(tmp_path / 'o')['models'][0]['corruptions']['fog']['severities']['1']['images'] == 3


@pytest.mark.parametrize('module', ['imagecorruptions'])
def test_missing_extra_is_named(samples, tmp_path, capsys, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    line = error_of(capsys, *arguments(samples, '--generate', samples / 'clean', '--output', tmp_path, models='a'))
    assert line == f"timm-assemble: robustness needs {module}: pip install '.[robustness]' in a clone of timm_assemble"
