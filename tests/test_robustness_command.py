"""``timm-assemble robustness``: the same figures for any workers and after a kill; what it says of bad use."""
import argparse
import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from timm.models import save_for_hf

from tests.test_robustness_pictures import write_film
from timm_assemble.__main__ import main
from timm_assemble.robustness.metrics import ALEXNET_FLIP_RATE, COMMON, SEVERITIES

COMMAND = [sys.executable, '-m', 'timm_assemble', 'robustness']
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}
# drawn from NumPy's state, and from a seed of its own
CORRUPTIONS = ('gaussian_noise', 'impulse_noise')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Two models' weights for three classes, a folder of clean pictures and one in ImageNet-C's form."""
    root = tmp_path_factory.mktemp('robustness')
    rng = np.random.RandomState(0)
    for seed, name in enumerate(('a', 'b')):
        torch.manual_seed(seed)
        model = timm.create_model('test_assemble_resnet', num_classes=3)
        save_file(model.state_dict(), root / f'{name}.safetensors')
    for i in range(6):
        path = root / 'clean' / 'xyz'[i % 3] / f'{i}.jpeg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.randint(0, 256, (9, 12, 3)).astype(np.uint8)).resize((300, 240)).save(path)
    for name in COMMON:
        for severity in SEVERITIES:
            for c in 'xyz':
                path = root / 'c' / name / str(severity) / c / '0.JPEG'
                path.parent.mkdir(parents=True)
                Image.fromarray(rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)).resize((224, 224)).save(path)
    return root


def arguments(place, *more, models='ab'):
    return [*(f'test_assemble_resnet={place / name}.safetensors' for name in models), *map(str, more)]


def generate(place, output, *more):
    return arguments(place, '--generate', place / 'clean', '--corruptions', *CORRUPTIONS, '--input-size', 32,
                     '--shift', 4, '--baseline', f'test_assemble_resnet={place / "a"}.safetensors',
                     '--output', output, *more)


def figures(output):
    results = json.loads((output / 'results.json').read_text())
    assert set(results.pop('run')) >= {'seconds', 'date', 'workers'}  # all that may differ
    return results


@pytest.fixture(scope='module')
def whole(place):
    assert main(['robustness', *generate(place, place / 'whole', '--workers', '0')]) == 0
    return figures(place / 'whole')


@pytest.mark.filterwarnings('ignore:This DataLoader will create 3 worker processes')
@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
@pytest.mark.parametrize('workers', [1, 3])
def test_workers_change_nothing(place, whole, workers):
    output = place / f'workers{workers}'
    assert main(['robustness', *generate(place, output, '--workers', str(workers), '--batch-size', '4')]) == 0
    assert figures(output) == whole
    assert (output / 'results.csv').read_text() == (place / 'whole' / 'results.csv').read_text()


def test_a_killed_run_goes_on_where_it_was(place, whole):
    output = place / 'killed'
    process = subprocess.Popen(
        [*COMMAND, *generate(place, output, '--workers', '0')], stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stderr is not None
    seen = b''
    while not (done := [int(n) for n in re.findall(rb' (\d+)/24 ', seen) if int(n) >= 3]):
        part = os.read(process.stderr.fileno(), 4096)
        assert part, seen.decode()
        seen += part
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not (output / 'results.json').exists()
    kept = {f: f.stat().st_mtime_ns for f in (output / 'cells').glob('[!.]*.json')}
    assert done[-1] <= len(kept) < 24  # all that was done, but not all there is
    assert main(['robustness', *generate(place, output, '--workers', '0')]) == 0
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    assert figures(output) == whole


def test_processes_share_the_cells(place, whole):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    output = place / 'shared'
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--master-addr', '127.0.0.1',
         '--master-port', str(port), *COMMAND[1:], *generate(place, output, '--workers', '0')],
        capture_output=True, text=True, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('protocol assemble') == 1
    assert figures(output) == whole
    assert json.loads((output / 'results.json').read_text())['run']['processes'] == 2


def test_generated_results(place, whole):
    assert whole['protocol']['name'] == 'assemble' and whole['protocol']['corruptions'] == [*CORRUPTIONS]
    assert whole['versions']['imagecorruptions-imaug'] and whole['protocol']['input_size'] == 32
    first, second = whole['models']
    assert first['mce'] is None and any('no mCE: not the 19 corruptions of assemble' in note for note in whole['notes'])
    assert first['checksum'] != second['checksum'] and first['clean']['pictures'] == 6
    assert all(first['corruptions'][name]['ce'] == pytest.approx(100) for name in CORRUPTIONS)
    assert first['shift']['pixels'] == 4 and first['shift']['clean']['pictures'] == 6
    with Image.open(place / 'whole' / 'robustness.png') as picture:
        assert picture.size[0] > 1000


def test_imagenet_c_is_what_a_loop_over_the_files_gives(place, capsys):
    output = place / 'published'
    label = f'test_assemble_resnet={place / "b"}.safetensors'
    assert main(['robustness', *arguments(
        place, '--imagenet-c', place / 'c', '--clean', place / 'clean', '--baseline', label, '--workers', 0,
        '--input-size', 32, '--output', output)]) == 0
    got = figures(output)
    assert got['protocol']['name'] == 'imagenet-c' and got['protocol']['pictures'] == 'published'
    assert 'no resize, centre crop 224, then resized to 32' in got['protocol']['text']
    assert any('there are 6 clean pictures and 3 of each corruption' in note for note in got['notes'])
    model = timm.create_model(
        'test_assemble_resnet', num_classes=3, checkpoint_path=str(place / 'a.safetensors')).eval()
    mean, std = (np.array(model.pretrained_cfg[key]) for key in ('mean', 'std'))
    wrong = {}
    for name in COMMON:
        for severity in SEVERITIES:
            for label, c in enumerate('xyz'):
                picture = Image.open(place / 'c' / name / str(severity) / c / '0.JPEG').resize((32, 32), 2)
                x = torch.tensor(((np.asarray(picture) / 255 - mean) / std).transpose(2, 0, 1)[None]).float()
                with torch.no_grad():
                    wrong[name, severity] = wrong.get((name, severity), 0) + (int(model(x).argmax()) != label)
    own = got['models'][0]
    for (name, severity), count in wrong.items():
        assert own['corruptions'][name]['severities'][str(severity)]['top1_error'] == pytest.approx(100 * count / 3)
    other = got['models'][1]['corruptions']
    assert own['mce'] == pytest.approx(np.mean([
        100 * own['corruptions'][name]['mean_error'] / other[name]['mean_error'] for name in COMMON]))
    printed = capsys.readouterr().out
    assert printed.startswith('protocol imagenet-c: ') and f'{own["mce"]:.2f}' in printed
    assert len([line for line in printed.splitlines() if line.startswith('elastic_transform')]) == 2


def test_films(place, capsys, tmp_path):
    film = write_film(tmp_path / 'film.mp4', [40, 210, 90, 150]).read_bytes()
    for name in ALEXNET_FLIP_RATE:
        (tmp_path / 'p' / name / 'a').mkdir(parents=True)
        (tmp_path / 'p' / name / 'a' / '0.mp4').write_bytes(film)
    output = tmp_path / 'o'
    assert main(['robustness', *arguments(
        place, '--imagenet-p', tmp_path / 'p', '--workers', 0, '--input-size', 32, '--output', output)]) == 0
    got = figures(output)
    assert got['protocol']['perturbations'] == [*ALEXNET_FLIP_RATE] and got['versions']['av']
    assert got['models'][0]['perturbations']['tilt']['pairs'] == 3 and got['models'][0]['mfr'] is None
    assert 'no mFR: AlexNet' in ' '.join(got['notes']) and 'perturbation' in capsys.readouterr().out
    with Image.open(output / 'robustness.png') as picture:
        assert picture.size[0] > 1000
    (tmp_path / 'p' / 'tilt' / 'a' / '0.mp4').write_bytes(b'no film' * (len(film) // 7))
    assert 'tilt/a/0.mp4 (no film: ' in bad(place, capsys, *arguments(
        place, '--imagenet-p', tmp_path / 'p', '--workers', 0, '--input-size', 32, '--output', output, models='a'))


def test_flips_are_relative_to_alexnets_if_the_model_has_its_classes(place, tmp_path):
    film = write_film(tmp_path / 'film.mp4', [40, 210]).read_bytes()
    for name in ALEXNET_FLIP_RATE:
        (tmp_path / 'p' / name / 'n01440764').mkdir(parents=True)
        (tmp_path / 'p' / name / 'n01440764' / '0.mp4').write_bytes(film)
    for synset in ImageNetInfo('imagenet-1k').label_names():
        (tmp_path / 'p' / 'gaussian_noise' / synset).mkdir(exist_ok=True)
    save_file(timm.create_model('test_assemble_resnet').state_dict(), tmp_path / '1000.safetensors')
    for path, relative in ((tmp_path / '1000.safetensors', True), (place / 'a.safetensors', False)):
        output = tmp_path / path.stem
        assert main(['robustness', f'test_assemble_resnet={path}', '--imagenet-p', str(tmp_path / 'p'), '--workers',
                     '0', '--input-size', '32', '--output', str(output)]) == 0
        got = figures(output)
        assert (got['models'][0]['mfr'] is not None) == relative
        assert got['protocol']['normaliser'] == ('AlexNet' if relative else None)


def test_what_has_no_effect_warns(place, tmp_path, capsys):
    options = ('--clean', place / 'clean', '--workers', 0, '--input-size', 32, '--output', tmp_path)
    label = f'test_assemble_resnet={place / "a"}.safetensors'
    (tmp_path / 'robustness.png').write_bytes(b'of another run')
    for more, message in ((('--seed', 0), '--seed has no effect'), (('--baseline', label), '--baseline has no effect')):
        with pytest.warns(UserWarning, match=message):
            assert main(['robustness', *arguments(place, *options, *more, models='a')]) == 0
    assert capsys.readouterr().out.endswith('results.csv\n') and not (tmp_path / 'robustness.png').exists()


def test_mixed_precision_has_cells_of_its_own(place):
    output = place / 'amp'
    options = ('--clean', place / 'clean', '--workers', 0, '--input-size', 32, '--output', output)
    for amp in ([], ['--amp']):
        assert main(['robustness', *arguments(place, *options, *amp, models='a')]) == 0
    assert len([*(output / 'cells').iterdir()]) == 2
    assert figures(output)['protocol']['precision'] == 'bfloat16'


def bad(place, capsys, *args):
    assert main(['robustness', *map(str, args)]) == 2
    out, err = capsys.readouterr()
    line = err.replace('\r', '\n').splitlines()[-1]  # after the bar, if there was one
    assert not out and line.startswith('timm-assemble: ') and 'Traceback' not in err
    return line


def test_bad_use_is_one_line(place, capsys, tmp_path):
    a = arguments(place, '--workers', 0, '--output', tmp_path / 'o', models='a')

    def told(*args):
        return bad(place, capsys, *args)
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


def test_files_that_hold_no_weights_of_the_model_are_told(place, capsys, tmp_path):
    options = ('--clean', place / 'clean', '--output', tmp_path / 'o')
    for name, write, message in (
            ('junk.pth', lambda path: path.write_bytes(b'junk' * 99), 'cannot be read: '),
            ('junk.safetensors', lambda path: path.write_bytes(b'junk' * 99), 'cannot be read: SafetensorError: '),
            ('list.pth', lambda path: torch.save([1, 2], path), 'cannot be read: '),
            ('other.pth', lambda path: torch.save(dict(a=torch.zeros(1)), path), "classifier 'head.fc'")):
        write(tmp_path / name)
        line = bad(place, capsys, f'test_assemble_resnet={tmp_path / name}', *options)
        assert f'{name} must h' in line and message in line
    model = timm.create_model('test_assemble_resnet', num_classes=3)
    save_for_hf(model, str(tmp_path / 'hub'), safe_serialization=True)
    (tmp_path / 'hub' / 'model.safetensors').write_bytes(b'junk' * 99)
    assert 'hub: Error while deserializing' in bad(place, capsys, f'local-dir:{tmp_path / "hub"}', *options)


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
    line = bad(place, capsys, f'test_assemble_resnet={path}', *options)
    assert 'must be those of test_assemble_resnet as its arguments build it' in line


def test_a_model_without_a_classifier_is_refused_before_any_work(place, capsys, tmp_path):
    save_for_hf(timm.create_model('test_assemble_resnet', num_classes=0), str(tmp_path / 'features'))
    line = bad(place, capsys, f'local-dir:{tmp_path / "features"}', '--clean', place / 'clean', '--output', tmp_path)
    assert 'must have a classifier, and gives features alone' in line


@pytest.mark.parametrize('options, message', [
    (['--workers', '-1'], "--workers: must be a whole number from 0, got '-1'"),
    (['--shift', '0'], '--shift: must be a whole number from 1'), (['--protocol', 'mine'], "invalid choice: 'mine'"),
])
def test_bad_options_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as e:
        main(['robustness', 'resnet18', *options])
    err = capsys.readouterr().err
    assert e.value.code == 2 and message in err and err.count('\n') == 1


def test_folders_have_the_classes_that_timm_trained_them_as(tmp_path):
    """Ten comes after two: a model of train.py has learned it so, whatever the order of the listing."""
    from timm_assemble.commands.robustness import _subject
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


def test_a_model_of_other_classes_is_refused(place, capsys, tmp_path):
    shutil.copytree(place / 'clean' / 'x', tmp_path / 'two' / 'x')
    shutil.copytree(place / 'clean' / 'y', tmp_path / 'two' / 'y')
    line = bad(place, capsys, *arguments(place, models='a'), '--clean', tmp_path / 'two', '--output', tmp_path / 'o')
    assert 'must have a folder for each of the 3 classes, got 2 folders' in line


def test_missing_and_unlike_folders_are_all_told(place, capsys, tmp_path):
    tree = shutil.copytree(place / 'c', tmp_path / 'c')
    a = [*arguments(place, models='a'), '--imagenet-c', tree, '--output', tmp_path / 'o', '--workers', 0]
    extra = tree / 'snow' / '2' / 'x' / '1.JPEG'
    shutil.copy(tree / 'snow' / '2' / 'x' / '0.JPEG', extra)
    assert ('gaussian_noise/1 has 3 pictures of 3 classes, snow/2 has 4 of 3') in bad(place, capsys, *a)
    extra.unlink()
    shutil.rmtree(tree / 'fog')
    shutil.rmtree(tree / 'snow' / '4')
    assert 'severities 1 to 5, and lacks fog, snow/4; --corruptions names' in bad(place, capsys, *a)
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
    line = bad(place, capsys, *a)
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
    line = bad(place, capsys, *arguments(place, models='a'), '--generate', place / 'clean')
    assert line == f"timm-assemble: robustness needs {module}: pip install 'timm-assemble[robustness]'"


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
