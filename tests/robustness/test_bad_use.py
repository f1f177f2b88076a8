"""``timm-assemble robustness``: what it says of bad use, of folders, files and pictures."""
import json
import shutil
import sys

import pytest

from timm_assemble.__main__ import main

from .._robustness_place import arguments, bad, figures, make_place


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('robustness'))


def test_bad_use_is_one_line(place, capsys, tmp_path):
    a = arguments(place, '--workers', 0, '--output', tmp_path / 'o', models='a')

    def told(*args):
        return bad(capsys, *args)
    assert 'there must be pictures: --imagenet-c' in told(*a)
    assert 'takes neither --imagenet-c' in told(*a, '--generate', place / 'clean', '--clean', place)
    assert '--protocol assemble is of pictures made' in told(*a, '--imagenet-c', place / 'c', '--protocol', 'assemble')
    assert 'lacks spatter;' in told(*a, '--imagenet-c', place / 'c', '--corruptions', 'spatter')
    assert '--corruptions must be one or more of gaussian_noise' in told(
        *a, '--imagenet-c', place / 'c', '--corruptions', 'rain')
    assert 'got rain' in told(*a, '--generate', place / 'clean', '--corruptions', 'fog', 'rain')
    assert '--imagenet-p must be a folder with the 10' in told(*a, '--imagenet-p', place)
    assert 'must have a folder a class' in told(*a, '--clean', place / 'clean' / 'x')
    assert 'must be a folder with a folder a class' in told(*a, '--clean', place / 'nowhere')
    assert '--shift needs pictures' in told(*a, '--imagenet-p', place, '--shift', 3)
    assert '--shift must be below the side of the pictures, 32, got 32' in told(
        *a, '--clean', place / 'clean', '--input-size', 32, '--shift', 32)
    assert '--generate has pictures of 256 and --imagenet-p films of 224: ' in told(
        *a, '--generate', place / 'clean', '--imagenet-p', place)
    assert '--corruptions are of' in told(*a, '--clean', place / 'clean', '--corruptions', 'fog')
    assert "--device must be one that torch has here, got 'abacus'" in told(
        *a, '--clean', place / 'clean', '--device', 'abacus')
    assert 'Not a directory' in told(*a, '--clean', place / 'clean', '--output', place / 'a.safetensors')
    for model, message in (
            ('resnet5000', 'timm knows no such model'), ('assemble_resnet50', 'comes without weights of its own'),
            ('resnet50=', 'NAME=CHECKPOINT'), ('resnet5000=x', "timm knows, got 'resnet5000'"),
            (f'test_assemble_resnet={place / "nowhere"}', 'must be a file, got'),
            (f'resnet18={place / "a.safetensors"}', 'resnet18'), ('local-dir:nowhere', 'nowhere')):
        line = told(model, '--clean', place / 'clean', '--output', tmp_path / 'o')
        assert f'MODEL {model}: ' in line or model == 'resnet50='
        assert message in line
    assert 'more than once' in told('x=hf-hub:a/b', 'x=hf-hub:a/c', '--clean', place / 'clean')
    assert not [*tmp_path.rglob('*.json')]  # neither results nor cells


@pytest.mark.parametrize('options, message', [
    (['--workers', '-1'], "--workers: must be a whole number from 0, got '-1'"),
    (['--shift', '0'], '--shift: must be an integer of 1 or more'), (['--protocol', 'mine'], "invalid choice: 'mine'"),
])
def test_bad_options_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as e:
        main(['robustness', 'resnet18', *options])
    err = capsys.readouterr().err
    assert e.value.code == 2 and message in err and err.count('\n') == 1


def test_a_model_of_other_classes_is_refused(place, capsys, tmp_path):
    shutil.copytree(place / 'clean' / 'x', tmp_path / 'two' / 'x')
    shutil.copytree(place / 'clean' / 'y', tmp_path / 'two' / 'y')
    line = bad(capsys, *arguments(place, models='a'), '--clean', tmp_path / 'two', '--output', tmp_path / 'o')
    assert 'must have a folder for each of the 3 classes, got 2 folders' in line


def test_missing_and_unlike_folders_are_all_told(place, capsys, tmp_path):
    tree = shutil.copytree(place / 'c', tmp_path / 'c')
    a = [*arguments(place, models='a'), '--imagenet-c', tree, '--output', tmp_path / 'o', '--workers', 0]
    extra = tree / 'snow' / '2' / 'x' / '1.JPEG'
    shutil.copy(tree / 'snow' / '2' / 'x' / '0.JPEG', extra)
    assert ('gaussian_noise/1 has 3 pictures of 3 classes, snow/2 has 4 of 3') in bad(capsys, *a)
    extra.unlink()
    shutil.rmtree(tree / 'fog')
    shutil.rmtree(tree / 'snow' / '4')
    assert 'severities 1 to 5, and lacks fog, snow/4; --corruptions names' in bad(capsys, *a)
    assert main(['robustness', *map(str, a), '--corruptions', 'frost', '--input-size', '32']) == 0
    assert figures(tmp_path / 'o')['models'][0]['mce'] is None


def test_an_unreadable_picture_is_named_and_the_rest_is_kept(place, capsys, tmp_path):
    tree = tmp_path / 'c'
    for name in ('frost', 'fog'):
        shutil.copytree(place / 'c' / name, tree / name)
    a = [*arguments(place, models='a'), '--imagenet-c', tree, '--corruptions', 'frost', 'fog', '--input-size', 32,
         '--output', tmp_path / 'o', '--workers', 0]
    path = tree / 'frost' / '2' / 'y' / '0.JPEG'
    content = path.read_bytes()
    path.write_bytes(b'no picture' * 9)
    line = bad(capsys, *a)
    assert f'1 of the files cannot be read, and their folders were left out: {path} (' in line
    kept = {f: f.stat().st_mtime_ns for f in (tmp_path / 'o' / 'cells').iterdir()}
    assert len(kept) == 9
    path.write_bytes(content)
    for file in kept:
        old = json.loads(file.read_text())
        file.write_text(json.dumps(dict(old, versions=dict(old['versions'], torch='1.0'))))
        kept[file] = file.stat().st_mtime_ns
    assert main(['robustness', *map(str, a)]) == 0
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    assert 'some cells were kept from before, of torch 1.0' in figures(tmp_path / 'o')['notes']


@pytest.mark.parametrize('module', ['torchmetrics', 'imagecorruptions'])
def test_without_the_extra(place, capsys, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    line = bad(capsys, *arguments(place, models='a'), '--generate', place / 'clean')
    assert line == f"timm-assemble: robustness needs {module}: pip install 'timm-assemble[robustness]'"
