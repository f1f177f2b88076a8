"""``timm-assemble robustness``: the same figures for any workers and after a kill, and what they are."""
import json
import os
import re
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

from timm_assemble.__main__ import main
from timm_assemble.robustness.metrics import ALEXNET_FLIP_RATE, COMMON, SEVERITIES

from .._robustness_place import CORRUPTIONS, arguments, bad, figures, generate, make_place
from .test_images import write_film

COMMAND = [sys.executable, '-m', 'timm_assemble', 'robustness']
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('robustness'))


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
    assert 'tilt/a/0.mp4 (no film: ' in bad(capsys, *arguments(
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
