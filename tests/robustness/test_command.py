"""``timm-assemble robustness``: results, for any workers, ranks and kills."""
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from timm_assemble.__main__ import main
from timm_assemble.robustness.metrics import ALEXNET_FLIP_RATE, COMMON, SEVERITIES

from .._ranks import run_ranks
from ._samples import (
    CORRUPTIONS, arguments, cached_records, generate, model_names, read_results, write_video,
)

COMMAND = ['-m', 'timm_assemble']
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


@pytest.fixture(scope='module')
def whole(samples, tmp_path_factory):
    output = tmp_path_factory.mktemp('whole')
    assert main(generate(samples, output)) == 0
    return output


@pytest.mark.filterwarnings('ignore:This DataLoader will create 3 worker processes')
@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_workers_change_nothing(samples, whole, tmp_path):
    assert main(generate(samples, tmp_path, '--workers', 3, '--batch-size', 4)) == 0
    assert read_results(tmp_path) == read_results(whole)
    assert (tmp_path / 'results.csv').read_text() == (whole / 'results.csv').read_text()
    records = cached_records(tmp_path / 'cache')
    assert records == cached_records(whole / 'cache') and len(records) == 24


def test_killed_run_continues_where_it_stopped(samples, whole, tmp_path):
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *generate(samples, tmp_path)], stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert process.stderr is not None
    printed = b''
    while not [n for n in re.findall(rb' (\d+)/156 ', printed) if int(n) >= 24]:
        part = os.read(process.stderr.fileno(), 4096)
        assert part, printed.decode()
        printed += part
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / 'results.json').exists()
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / 'cache').glob('[!.]*.npz')}
    assert 1 <= len(times) < 24  # what was done, but not all tasks: the two models are cached together
    assert main(generate(samples, tmp_path)) == 0
    assert {f: f.stat().st_mtime_ns for f in times} == times
    assert read_results(tmp_path) == read_results(whole)
    assert cached_records(tmp_path / 'cache') == cached_records(whole / 'cache')


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_ranks_share_the_tasks(samples, whole, tmp_path):
    printed = run_ranks(lambda: main(generate(samples, tmp_path)), tmp_path)
    assert ''.join(printed).count('protocol assemble') == 1
    assert read_results(tmp_path) == read_results(whole)
    assert cached_records(tmp_path / 'cache') == cached_records(whole / 'cache')
    assert json.loads((tmp_path / 'results.json').read_text())['run']['world_size'] == 2


def test_generated_corruptions_have_ce_shifts_and_a_plot(whole):
    results = read_results(whole)
    assert results['protocol']['name'] == 'assemble' and results['protocol']['corruptions'] == [*CORRUPTIONS]
    assert results['versions']['imagecorruptions-imaug'] and results['protocol']['input_size'] == [32, 32]
    first, second = results['models']
    assert first['mce'] is None and 'no mCE: not the 19 corruptions of assemble' in results['notes']
    assert first['checksum'] != second['checksum'] and first['clean']['images'] == 6
    assert all(first['corruptions'][name]['ce'] == pytest.approx(100) for name in CORRUPTIONS)
    assert first['shift']['pixels'] == 4 and first['shift']['images'] == 6
    with Image.open(whole / 'robustness.png') as image:
        assert image.size[0] > 1000


def test_imagenet_c_is_what_a_loop_over_the_files_gives(samples, capsys, tmp_path):
    assert main(arguments(samples, '--imagenet-c', samples / 'c', '--clean', samples / 'clean', '--baseline',
                          'test_assemble_resnet=b.safetensors', '--output', tmp_path)) == 0
    got = read_results(tmp_path)
    assert got['protocol']['name'] == 'imagenet-c' and got['protocol']['images'] == 'published'
    assert 'no resize, center crop 224, then resized to 32 x 32, Pillow\'s bilinear' in got['protocol']['text']
    assert any('different images: 6 clean ones, 3 of each corruption' in note for note in got['notes'])
    model = timm.create_model(
        'test_assemble_resnet', num_classes=3, checkpoint_path=str(samples / 'a.safetensors')).eval()
    mean, std = (np.array(model.pretrained_cfg[key]) for key in ('mean', 'std'))
    own, other = got['models']
    for name in COMMON:
        for severity in SEVERITIES:
            wrong = 0
            for label, c in enumerate('xyz'):
                image = Image.open(samples / 'c' / name / str(severity) / c / '0.JPEG').resize((32, 32), 2)
                x = torch.tensor(((np.asarray(image) / 255 - mean) / std).transpose(2, 0, 1)[None]).float()
                with torch.no_grad():
                    wrong += int(model(x).argmax()) != label
            entry = own['corruptions'][name]['severities'][str(severity)]
            assert entry['top1_error'] == pytest.approx(100 * wrong / 3)
    assert own['mce'] == pytest.approx(np.mean([
        100 * own['corruptions'][name]['means']['top1_error'] / other['corruptions'][name]['means']['top1_error']
        for name in COMMON]))
    printed = capsys.readouterr().out
    assert printed.startswith('protocol imagenet-c: ') and f'{own["mce"]:.2f}' in printed
    assert len([line for line in printed.splitlines() if line.startswith('elastic_transform')]) == 2


def test_flips_of_sequences_are_relative_to_alexnets_if_the_model_has_its_classes(
        samples, capsys, monkeypatch, tmp_path):
    root = tmp_path / 'p'
    content = write_video(tmp_path / 'video.mp4', [40, 210, 90, 150]).read_bytes()
    for name in ALEXNET_FLIP_RATE:
        (root / name / 'n01440764').mkdir(parents=True)
        (root / name / 'n01440764' / '0.mp4').write_bytes(content)
    # a thousand folders of videos take too long
    monkeypatch.setattr('timm_assemble.robustness.evaluation.synsets', lambda: ['n01440764'])
    save_file(timm.create_model('test_assemble_resnet').state_dict(), tmp_path / '1000.safetensors')
    for folder, name, baseline in ((tmp_path, '1000', 'AlexNet'), (samples, 'a', None)):
        output = tmp_path / name
        assert main(arguments(folder, '--imagenet-p', root, '--output', output, models=[name])) == 0
        got = read_results(output)
        assert got['protocol']['baseline'] == baseline and (got['models'][0]['mfr'] is None) == (baseline is None)
        assert ('no mFR: AlexNet' in ' '.join(got['notes'])) == (baseline is None)
        assert got['protocol']['perturbations'] == [*ALEXNET_FLIP_RATE] and got['versions']['av']
        assert got['models'][0]['perturbations']['tilt']['pairs'] == 3 and 'perturbation' in capsys.readouterr().out
    with Image.open(output / 'robustness.png') as image:
        assert image.size[0] > 1000


@pytest.mark.filterwarnings('default')
def test_options_without_effect_warn_in_one_line(samples, tmp_path, capsys):
    (tmp_path / 'robustness.png').write_bytes(b'of another run')
    assert main(arguments(samples, '--clean', samples / 'clean', '--output', tmp_path, '--seed', 0, '--baseline',
                          model_names(samples)[0], models='a')) == 0
    out, err = capsys.readouterr()
    assert err.startswith(
        'timm-assemble: warning: --seed has no effect: without --generate, --shift, --adapt and '
        '--keep-predictions nothing is random\n'
        'timm-assemble: warning: --baseline has no effect but being measured too: without --imagenet-c, --imagenet-p '
        'and --generate nothing is relative to it\n')
    assert out.splitlines()[-1].endswith(': cache, results.csv, results.json, results.md, results.tex')
    assert not (tmp_path / 'robustness.png').exists()


def test_mixed_precision_is_cached_apart(samples, tmp_path):
    for amp, output in (([], 'full'), (['--amp'], 'mixed')):
        assert main([*arguments(samples, '--clean', samples / 'clean', '--output', tmp_path / output, '--cache',
                                tmp_path / 'cache', models='a'), *amp]) == 0
    assert len([*(tmp_path / 'cache').iterdir()]) == 2
    assert read_results(tmp_path / 'mixed')['protocol']['precision'] == 'bfloat16'


def test_checkpoints_get_labels(samples, tmp_path):
    assert main(['robustness', f'mine=test_assemble_resnet={samples / "a.safetensors"}', '--clean',
                 str(samples / 'clean'), '--workers', '0', '--input-size', '32', '--output', str(tmp_path)]) == 0
    assert [model['label'] for model in read_results(tmp_path)['models']] == ['mine']
