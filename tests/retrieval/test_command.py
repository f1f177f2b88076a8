"""``timm-assemble retrieval``: results, for any workers, ranks and kills."""
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from timm_assemble.__main__ import main
from timm_assemble.retrieval import evaluate
from timm_assemble.retrieval.results import Results, RetrievalValues

from .._ranks import run_ranks
from ..robustness._samples import cached_records, error_of, write_image

ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}


def arguments(samples, output, *more, models='ab', data=None):
    names = [f'{name}=test_assemble_resnet={samples / name}.safetensors' for name in models]
    return ['retrieval', *names, *map(str, (*(data or ('--data-dir', samples / 'images')), '--output', output,
                                            '--workers', 0, '--input-size', 32, '--batch-size', 3, '--examples', 0,
                                            *more))]


def results_bytes(output):
    """Return results.json without what two runs may differ in."""
    text = (output / 'results.json').read_text()
    values = json.loads(text)
    run = values.pop('run')
    assert {'date', 'command', 'seconds', 'world_size'} <= {*run} and '"run"' in text
    return json.dumps(values)


@pytest.fixture(scope='module')
def whole(samples, tmp_path_factory):
    output = tmp_path_factory.mktemp('whole')
    assert main(arguments(samples, output, '--examples', 2)) == 0
    return output


def test_results_have_both_models_in_a_table_csv_and_figures(samples, whole, tmp_path, capsys):
    values = json.loads((whole / 'results.json').read_text())
    assert [model['label'] for model in values['models']] == ['a', 'b']
    assert values['protocol']['recall_at'] == [1, 2, 4, 8]
    assert all(model['gallery'] == 21 and model['queries'] == 20 for model in values['models'])
    assert values['notes'] == [
        '1 of 21 queries have no other image of their class to find, and are left out; their classes are alone']
    with (whole / 'results.csv').open() as file:
        rows = [*csv.DictReader(file)]
    for row, model in zip(rows, values['models']):
        assert {key: float(row[key]) for key in model['metrics']} == model['metrics'] and row['head'] == 'model'
    for label in 'ab':
        with Image.open(whole / 'neighbours' / f'{label}.png') as image:
            assert image.size[0] > 1000
    assert {*RetrievalValues.__struct_fields__} == {*values}
    text = Results.load(whole).tables()
    assert text.startswith('protocol folder: 21 images of 4 classes, each searched among all others')
    assert f'{values["models"][0]["metrics"]["map@r"]:.2f}' in text
    assert '\\begin{tabular}' in (whole / 'results.tex').read_text()
    assert main(arguments(samples, tmp_path, '--recall-at', 5, 1, '--cache', whole / 'cache',
                          models='a')) == 0
    assert capsys.readouterr().out.splitlines()[3].split()[:5] == ['model', 'recall@1', 'recall@5', 'mAP', 'MAP@R']
    assert sorted(os.listdir(tmp_path)) == ['results.csv', 'results.json', 'results.md', 'results.tex']


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_workers_change_nothing(samples, whole, tmp_path):
    assert main(arguments(samples, tmp_path, '--workers', 2)) == 0
    assert results_bytes(tmp_path) == results_bytes(whole)


DRIVER = '''
import sys
from timm_assemble.retrieval import embeddings
embeddings.CHUNK = 4
from timm_assemble.__main__ import main
sys.exit(main(sys.argv[1:]))
'''


@pytest.fixture
def driver(tmp_path):
    """Return a program whose chunks have 4 images, so that there are several."""
    path = tmp_path / 'driver.py'
    path.write_text(DRIVER)
    return path


@pytest.fixture(scope='module')
def whole_in_chunks(samples, tmp_path_factory):
    output = tmp_path_factory.mktemp('chunks')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('timm_assemble.retrieval.embeddings.CHUNK', 4)
        assert main(arguments(samples, output)) == 0
    return output


def test_killed_run_continues_where_it_stopped(samples, whole_in_chunks, driver, tmp_path, monkeypatch):
    """Killed at a random moment after the first embeddings."""
    delay = random.uniform(0, 0.1)
    process = subprocess.Popen([sys.executable, driver, *arguments(samples, tmp_path / 'o')], env=ENVIRONMENT,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while process.poll() is None and not [*tmp_path.glob('o/cache/[!.]*.npz')]:
        assert process.stderr.read(1)  # the progress bar
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, f'it was finished {delay} s later'
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob('o/cache/[!.]*.npz')}
    assert times
    monkeypatch.setattr('timm_assemble.retrieval.embeddings.CHUNK', 4)
    assert main(arguments(samples, tmp_path / 'o')) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert results_bytes(tmp_path / 'o') == results_bytes(whole_in_chunks)
    assert cached_records(tmp_path / 'o' / 'cache') == cached_records(whole_in_chunks / 'cache')


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_ranks_share_the_chunks(samples, whole_in_chunks, tmp_path, monkeypatch):
    monkeypatch.setattr('timm_assemble.retrieval.embeddings.CHUNK', 4)
    printed = run_ranks(lambda: main(arguments(samples, tmp_path)), tmp_path)
    assert ''.join(printed).count('protocol folder') == 1
    assert results_bytes(tmp_path) == results_bytes(whole_in_chunks)
    assert json.loads((tmp_path / 'results.json').read_text())['run']['world_size'] == 2


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_gallery_is_searched_alike_by_ranks_and_after_a_stop_and_embedded_once_for_all_queries(
        samples, tmp_path, monkeypatch):
    monkeypatch.setattr('timm_assemble.retrieval.embeddings.CHUNK', 4)
    for name in ('x/1.png', 'x/2.png', 'y/1.png', 'y/2.png', 'y/3.png'):  # z and alone have no query
        write_image(tmp_path / 'query' / name, Image.effect_noise((48, 40), 90).convert('RGB'))
    data = ('--query', tmp_path / 'query', '--gallery', samples / 'images')
    assert main(arguments(samples, tmp_path / 'o', '--examples', 3, data=data)) == 0
    with Image.open(tmp_path / 'o' / 'neighbours' / 'a.png') as image:
        assert image.size[0] > 1000
    values = json.loads((tmp_path / 'o' / 'results.json').read_text())['models']
    assert [[model[key] for key in ('queries', 'gallery', 'distractors')] for model in values] == [[5, 21, 7]] * 2
    printed = run_ranks(lambda: main(arguments(samples, tmp_path / 'ranks', data=data)), tmp_path)
    assert ''.join(printed).count('protocol gallery') == 1
    files = sorted((tmp_path / 'o' / 'cache').iterdir())
    assert len(files) == 2 * (2 + 6)  # of each model, chunks of 4
    for path in files[::3]:
        path.unlink()
    assert main(arguments(samples, tmp_path / 'o', data=data)) == 0
    assert results_bytes(tmp_path / 'o') == results_bytes(tmp_path / 'ranks')
    assert cached_records(tmp_path / 'o' / 'cache') == cached_records(tmp_path / 'ranks' / 'cache')
    (tmp_path / 'query' / 'x' / '2.png').unlink()
    assert main(arguments(samples, tmp_path / 'fewer', '--cache', tmp_path / 'o' / 'cache', data=data)) == 0
    assert len([*(tmp_path / 'o' / 'cache').iterdir()]) == 2 * (2 + 6 + 1)


def test_damaged_chunk_is_computed_again(samples, whole, tmp_path):
    output = shutil.copytree(whole, tmp_path / 'copy')
    path = next((output / 'cache').iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:300] + bytes([content[300] ^ 1]) + content[301:])
    assert main(arguments(samples, output)) == 0
    assert cached_records(output / 'cache') == cached_records(whole / 'cache')
    assert results_bytes(output) == results_bytes(whole)


def test_unreadable_images_are_left_out_and_named_and_tried_again(samples, tmp_path, capsys):
    images = shutil.copytree(samples / 'images', tmp_path / 'images')
    command = arguments(samples, tmp_path / 'o', '--data-dir', images, models='a')
    bad = images / 'x' / '00.png'
    content = bad.read_bytes()
    bad.write_bytes(b'?' * len(content))  # of the same size, so that the data stays the same
    line = error_of(capsys, *command, printed=True)
    assert line.startswith(f'timm-assemble: 1 of the files cannot be read, and are left out: {bad} (')
    first = json.loads((tmp_path / 'o' / 'results.json').read_text())
    assert [file['path'] for file in first['unreadable']] == [str(bad)] and first['models'][0]['gallery'] == 20
    assert 'they are left out' in first['notes'][-1]
    bad.write_bytes(content)
    assert main(command) == 0
    assert json.loads((tmp_path / 'o' / 'results.json').read_text())['models'][0]['gallery'] == 21


def test_images_none_of_which_can_be_read_have_no_results(samples, tmp_path):
    (tmp_path / 'x').mkdir()
    for name in '01':
        (tmp_path / 'x' / f'{name}.png').write_bytes(b'?')
    with pytest.raises(ValueError, match=r'data_dir must have two images of one class that can be read, .* got 0 of 2'):
        evaluate(lambda images: images[:, :, 0, 0], tmp_path, input_size=16)


@pytest.mark.parametrize('more, message', [
    (('--recall-at', '21'), '--recall-at must be from 1 to 20, the number of other images, got [21]'),
    (('--crop-pct', '1.5'), '--crop-pct must be above 0 and at most 1, got 1.5'),
    (('--head', 'embedding'), '--head embedding needs a layer between pooling and classifier, a has none'),
    (('--download',), '--download needs --dataset: a folder of classes is not fetched'),
    (('--query', 'q'), '--data-dir must be given, alone or with --dataset or --split, or --query and --gallery'),
    (('--data-dir', 'missing'), '--data-dir must be a folder with one folder per class, got missing'),
    (('--dataset', 'cub'), '--data-dir must hold CUB-200-2011 as published, '),
])
def test_bad_use_is_one_line(samples, tmp_path, capsys, more, message):
    if '--dataset' in more:
        pytest.importorskip('pytorch_metric_learning')
    assert message in error_of(capsys, *arguments(samples, tmp_path / 'o', *more, models='a'))
    assert not (tmp_path / 'o' / 'results.json').exists()


def test_results_of_another_measurement_are_kept(samples, whole, capsys):
    line = error_of(capsys, *arguments(samples, whole, '--head', 'gem'))
    assert '--output must not have results of another measurement' in line and 'protocol folder, a, b' in line
