"""Cells and reports with callables and figures of the test's own: no model, no command line."""
import copy
import csv
import io
import json
import os
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from timm_assemble.robustness import metrics
from timm_assemble.robustness.plan import Request, make_plan
from timm_assemble.robustness.results import plots as drawing, schema, summary as results, tables as report
from timm_assemble.robustness.runner import Loading, run_cells
from timm_assemble.robustness.tasks.cache import CellStore, Kept, Subject
from timm_assemble.robustness.tasks.classify import predict

from .test_images import write_film

LOADING = Loading(4, 0, torch.device('cpu'))


def red_over_half(pictures):
    """Class 1 where a picture is more red than not."""
    red = pictures[:, 0].float().mean((1, 2)) - 127.5
    return torch.stack([-red, red], 1)


WRONG = {('fog', 3): 1, ('snow', 5): 2, ('snow', 1): 3}  # of the four pictures of a folder


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """ImageNet-C's form with two classes of two pictures of a plain red; so many of a folder as WRONG has are wrong."""
    root = tmp_path_factory.mktemp('imagenet-c')
    levels = {}
    for name in metrics.COMMON:
        for severity in metrics.SEVERITIES:
            wrong = WRONG.get((name, severity), 0)
            for i, label in enumerate((0, 0, 1, 1)):
                right = (40, 210)[label]
                level = 250 - right if i < wrong else right
                path = root / name / str(severity) / 'ab'[label] / f'{i}.JPEG'
                path.parent.mkdir(parents=True, exist_ok=True)
                if level not in levels:
                    Image.fromarray(np.full((224, 224, 3), level, np.uint8)).save(path)
                    levels[level] = path.read_bytes()
                path.write_bytes(levels[level])
    return root


def model_of(label):
    return SimpleNamespace(label=label, source=label, architecture='callable', checksum='0' * 64, num_classes=2,
                           own_size=224, mean=(0.5,), std=(0.5,))


def measured(plan, folder, classify, label='red'):
    store, subject = CellStore(folder), Subject(label, dict(made_by=label), classify)
    assert run_cells(plan.cells, [subject], store, LOADING) == []
    return results.MeasuredModel(model_of(label), store.collect(plan.cells, subject, 'float32'))


def test_imagenet_c_end_to_end(tree, tmp_path):
    plan = make_plan(Request(imagenet_c=tree, input_size=32, shift=2))
    sizes = set()

    def classify(pictures):
        sizes.add(tuple(pictures.shape[1:]))
        return red_over_half(pictures)
    model = measured(plan, tmp_path, classify)
    assert sizes == {(3, 32, 32)}
    summary, notes = results.summarise(model.cells, results.ALEXNET)
    for name in metrics.COMMON:
        for severity in metrics.SEVERITIES:
            entry = summary['corruptions'][name]['severities'][str(severity)]
            assert entry['pictures'] == 4 and entry['top1_error'] == 25 * WRONG.get((name, severity), 0)
    assert not notes and summary['clean'] is None and summary['relative_mce'] is None
    by_hand = {'fog': 25 / 5, 'snow': 125 / 5}
    assert summary['mce'] == pytest.approx(
        sum(100 * error / metrics.ALEXNET_ERROR[name] for name, error in by_hand.items()) / 15)
    assert summary['mean_error'] == pytest.approx(30 / 15)
    assert summary['shift']['corruptions']['fog']['3'] == dict(pictures=4, consistency=100)

    figures = results.assemble(plan, [model], None, False, 'float32', dict(python='3'), RUN)
    schema.check_results(figures)
    assert figures['models'][0]['mce'] is None and 'no mCE and no mFR' in figures['notes'][1]
    assert figures['data']['corruption']['items'] == 300 and figures['data']['corruption']['classes'] == 2


RUN = dict(date='today', command='robustness', device='cpu', batch_size=4, workers=0, processes=1)


def test_imagenet_p_end_to_end(tmp_path):
    """A film that flips at frames 2 and 3 of 4: against the first frame 1 of 3 pairs, against the one before 2."""
    root = tmp_path / 'imagenet-p'
    film = write_film(root / 'snow' / 'a' / '0.mp4', [40, 210, 40, 40]).read_bytes()
    still = write_film(tmp_path / 'still.mp4', [40, 40, 40]).read_bytes()
    for name in metrics.ALEXNET_FLIP_RATE:
        for path, content in ((root / name / 'a' / '0.mp4', film), (root / name / 'b' / '1.mp4', still)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    plan = make_plan(Request(imagenet_p=root, input_size=32))
    together = []
    model = measured(plan, tmp_path / 'cells', lambda x: (together.append(len(x)), red_over_half(x))[1])
    assert together == [4, 3] * 10  # a batch of 4 pictures is less than a film of 31 frames
    summary, _ = results.summarise(model.cells, results.ALEXNET)
    for name, entry in summary['perturbations'].items():
        flips = 1 if name in ('gaussian_noise', 'shot_noise') else 2
        assert (entry['films'], entry['flips'], entry['pairs']) == (2, flips, 5)
    alexnet = metrics.ALEXNET_FLIP_RATE
    by_hand = [100 * (20 if 'noise' in name else 40) / rate for name, rate in alexnet.items()]
    assert summary['mfr'] == pytest.approx(sum(by_hand) / 10)
    together.clear()
    subject = Subject('red', dict(made_by='all at once'), lambda x: (together.append(len(x)), red_over_half(x))[1])
    run_cells(plan.cells, [subject], CellStore(tmp_path / 'cells'), LOADING._replace(batch_size=62))
    assert together == [7] * 10  # films of a batch are classified together, and their frames not mixed up
    assert [kept.figures for kept in CellStore(tmp_path / 'cells').collect(plan.cells, subject, 'float32')] == [
        kept.figures for kept in model.cells]
    figures = results.assemble(plan, [model], 'red', False, 'float32', dict(python='3'), RUN)
    assert figures['models'][0]['mfr'] == pytest.approx(100) and figures['protocol']['normaliser'] == 'red'
    drawing.draw(tmp_path / 'p.png', figures)
    assert 'snow' in report.tables(figures) and (tmp_path / 'p.png').stat().st_size > 10000
    (root / 'tilt' / 'b' / '1.mp4').unlink()
    with pytest.raises(ValueError, match=r'as many films .* tilt has 1'):
        make_plan(Request(imagenet_p=root))


def test_finished_cells_are_kept_and_a_file_that_is_none_leaves_out_its_folder_alone(tree, tmp_path):
    plan = make_plan(Request(imagenet_c=tree, input_size=32, corruptions=('fog', 'snow')))
    bad = tree / 'snow' / '2' / 'a' / '0.JPEG'
    content, calls = bad.read_bytes(), []
    subject = Subject('red', dict(made_by='red'), lambda x: (calls.append(len(x)), red_over_half(x))[1])
    store = CellStore(tmp_path)
    bad.write_bytes(b'x' * len(content))
    try:
        [failure] = run_cells(plan.cells, [subject], store, LOADING)
        assert failure.cell == 'snow/2' and [f.path for f in failure.files] == [bad]
        assert len(calls) == 9 + 1  # the three that can be read are in the batch, and count for nothing
        with pytest.raises(ValueError, match='lacks snow/2'):
            store.collect(plan.cells, subject, 'float32')
    finally:
        bad.write_bytes(content)
    calls.clear()
    assert run_cells(plan.cells, [subject], store, LOADING) == [] and calls == [4]
    assert len(store.collect(plan.cells, subject, 'float32')) == 10
    for other in (subject._replace(identity=dict(made_by='green')), subject._replace(class_map=[1, 0])):
        calls.clear()
        run_cells(plan.cells[:2], [other], store, LOADING)
        assert calls == [4, 4]
    calls.clear()
    run_cells(plan.cells[:1], [subject], store, LOADING, precision='float16')
    assert calls == [4]


def test_a_clean_picture_that_cannot_be_read_ends_the_making_of_all_others(tmp_path):
    for i, content in enumerate((b'', b'no picture')):
        path = tmp_path / 'clean' / 'a' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (64, 64)).save(path) if not i else path.write_bytes(content)
    plan = make_plan(Request(generate=tmp_path / 'clean', input_size=32))
    assert len(plan.cells) == 1 + 19 * 5 and plan.complete
    failures = run_cells(plan.cells, [Subject('red', {}, red_over_half)], CellStore(tmp_path / 'cells'), LOADING)
    assert [failure.cell for failure in failures] == ['clean'] and not [*(tmp_path / 'cells').iterdir()]


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_batches_that_are_held_for_the_next_model_hold_no_files_open(tmp_path):
    """A thousand batches from workers would be two thousand open files, which systems do not allow."""
    for i in range(20):
        path = tmp_path / 'clean' / 'a' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (256, 256), (12 * i, 0, 0)).save(path)
    plan = make_plan(Request(clean=tmp_path / 'clean', input_size=32))
    opened = []

    def classify(pictures):
        opened.append(len(os.listdir('/proc/self/fd')))
        return red_over_half(pictures)
    subjects = [Subject(name, dict(made_by=name), classify) for name in ('red', 'same')]
    before, store = len(os.listdir('/proc/self/fd')), CellStore(tmp_path / 'cells')
    assert run_cells(plan.cells, subjects, store, LOADING._replace(batch_size=1, workers=1)) == []
    assert len(opened) == 40 and max(opened) - before < 20
    for subject in subjects:
        [kept] = store.collect(plan.cells, subject, 'float32')
        assert kept.figures['wrong_top1'] == sum(12 * i > 127 for i in range(20))


def test_too_large_a_batch_is_told(tree, tmp_path):
    def classify(pictures):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate ...')
    plan = make_plan(Request(imagenet_c=tree, input_size=32))
    with pytest.raises(ValueError, match='red on gaussian_noise/1: cpu has too little memory for --batch-size 4; '):
        run_cells(plan.cells, [Subject('red', {}, classify)], CellStore(tmp_path), LOADING)


def test_cells_know_the_versions_they_were_measured_with(tree, tmp_path):
    plan = make_plan(Request(imagenet_c=tree, input_size=32, corruptions=('fog',)))
    subject, old = Subject('red', {}, red_over_half), dict(torch='2.0', timm='1.0')
    run_cells(plan.cells[:2], [subject], CellStore(tmp_path, old), LOADING)
    new = CellStore(tmp_path, dict(torch='2.1', timm='1.0', more='1'))
    assert run_cells(plan.cells, [subject], new, LOADING) == []
    assert new.other_versions(plan.cells, subject, 'float32') == ['torch 2.0']
    assert new.other_versions(plan.cells[2:], subject, 'float32') == []


def test_damaged_cell_counts_as_none(tmp_path):
    store, identity = CellStore(tmp_path), dict(a=(1, 2))
    store.put(identity, dict(n=1), 0.5)
    assert store.get(identity) == dict(figures=dict(n=1), seconds=0.5)
    [path] = tmp_path.iterdir()
    whole = path.read_text()
    for damaged in ('', whole[:-20], '[]', whole.replace('[\n', '[3,\n')):
        path.write_text(damaged)
        assert store.get(identity) is None


def made_up(factor, clean=10.0):
    """Cells as kept, with AlexNet's errors times a factor on all 19 corruptions."""
    cells = [Kept(SimpleNamespace(group='clean', name='clean', severity=0, title='clean'),
                  dict(pictures=1000, wrong_top1=int(10 * clean), wrong_top5=5, ece=3.0), 1.0)]
    for name, error in metrics.ALEXNET_ERROR.items():
        cells += [Kept(SimpleNamespace(group='corruption', name=name, severity=s, title=f'{name}/{s}'),
                       dict(pictures=100000, wrong_top1=round(1000 * error * factor), wrong_top5=7, ece=4.0), 1.0)
                  for s in metrics.SEVERITIES]
    return cells


def test_relative_to_alexnet_and_to_a_baseline():
    summary, notes = results.summarise(made_up(0.5), results.ALEXNET)
    assert summary['mce'] == pytest.approx(50, abs=0.01) and not notes
    relative = [(0.5 * e - 10) / (e - 43.5) for e in metrics.ALEXNET_ERROR.values()]
    assert summary['relative_mce'] == pytest.approx(100 * np.mean(relative), abs=0.01)
    normaliser = results.baseline('other', made_up(0.8, clean=20.0))
    summary, _ = results.summarise(made_up(0.5), normaliser)
    assert summary['mce'] == pytest.approx(62.5, abs=0.01)
    assert summary['corruptions']['snow']['relative_ce'] == pytest.approx(
        100 * (0.5 * 86.6816 - 10) / (0.8 * 86.6816 - 20), abs=0.01)
    summary, notes = results.summarise(made_up(0.5), results.baseline('perfect', made_up(0.0, clean=0.0)))
    assert summary['mce'] is None and any("no mCE: the reference's error must be above 0" in note for note in notes)
    summary, notes = results.summarise(made_up(0.5), results.ALEXNET, all_corruptions=False)
    assert summary['mce'] is None and summary['corruptions']['fog']['ce'] == pytest.approx(50, abs=0.01)


@pytest.fixture(scope='module')
def figures(tree, tmp_path_factory):
    plan = make_plan(Request(imagenet_c=tree, clean=tree / 'contrast' / '1', input_size=32))
    folder = tmp_path_factory.mktemp('cells')
    flipped = measured(plan, folder, lambda x: -red_over_half(x), 'blue')
    models = [measured(plan, folder, red_over_half), flipped]
    return results.assemble(plan, models, 'blue', True, 'float32', dict(python='3'), RUN)


def test_tables_and_csv_have_every_cell(figures):
    schema.check_results(figures)
    assert not any('clean pictures' in note for note in figures['notes'])  # as many as of each corruption
    text = report.tables(figures)
    lines = [line.split() for line in text.splitlines() if line]
    # clean top-1, top-5 and ECE; error and ECE of the corrupted; mCE: fog has 5 % against 95 %, snow 25 % against 75 %
    [own, other] = [line for line in lines if line[0] in ('red', 'blue') and len(line) == 7]
    assert own[:5] == ['red', '100.00', '100.00', '0.00', '2.00'] and own[6] == f'{(500 / 95 + 2500 / 75) / 15:.2f}'
    assert other[:3] == ['blue', '0.00', '100.00'] and other[6] == '100.00'
    assert ['snow', '75.00', '0.00', '0.00', '0.00', '50.00', '25.00'] in [line[:7] for line in lines]
    rows = [*csv.DictReader(io.StringIO(report.csv_text(figures)))]
    assert len(rows) == 2 * 76
    [row] = [r for r in rows if (r['model'], r['name'], r['severity']) == ('red', 'snow', '5')]
    assert (row['items'], row['top1_error'], row['group'], row['flip_rate']) == ('4', '50.0', 'corruption', '')


def test_picture_shows_models_and_mce(figures, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr('matplotlib.pyplot.close', shown.append)
    assert drawing.draw(tmp_path / 'made.png', figures)
    monkeypatch.undo()
    [figure] = shown
    bars, *maps = [axes for axes in figure.axes if axes.get_title() or axes.get_legend()]
    mce = figures['models'][0]['mce']
    assert [text.get_text() for text in bars.get_legend().get_texts()] == [f'red: mCE {mce:.1f}', 'blue: mCE 100.0']
    assert [axes.get_title() for axes in maps] == ['red', 'blue']
    heights = [bar.get_height() for bar in bars.containers[0]]
    assert heights == [figures['models'][0]['corruptions'][name]['ce'] for name in metrics.COMMON]
    snow = maps[0].images[0].get_array()[metrics.COMMON.index('snow')]
    assert snow.tolist() == [75, 0, 0, 0, 50] and figure.get_suptitle().startswith('protocol imagenet-c: ')
    plt.close(figure)
    with Image.open(tmp_path / 'made.png') as picture:
        assert picture.size[0] > 1000 and picture.size[1] > 800
    assert [f.name for f in tmp_path.iterdir()] == ['made.png']
    nothing = dict(figures, models=[dict(model, corruptions={}) for model in figures['models']])
    assert not drawing.draw(tmp_path / 'made.png', nothing) and not [*tmp_path.iterdir()]


@pytest.mark.parametrize('damage, message', [
    (lambda r: r.pop('protocol'), "results: 'protocol' is a required property"),
    (lambda r: r.update(more=1), r"results: .*'more' was unexpected"),
    (lambda r: r.update(schema_version=2), 'schema_version: 1 was expected'),
    (lambda r: r['models'].clear(), 'models: .*(non-empty|too short)'),
    (lambda r: r['models'][0].update(checksum='abc'), r'models\[0\].checksum'),
    (lambda r: r['models'][0]['clean'].update(ece=101), r'models\[0\].clean'),
    (lambda r: r['models'][0]['corruptions']['fog']['severities'].update({'6': {}}), 'severities.*unexpected|6'),
    (lambda r: r['run'].pop('seconds'), "run: 'seconds' is a required"),
])
def test_schema_says_what_is_wrong(figures, damage, message):
    damaged = copy.deepcopy(figures)
    damage(damaged)
    with pytest.raises(ValueError, match=message):
        schema.check_results(damaged)


def test_what_breaks_the_schema_is_not_written(figures, tmp_path):
    schema.write_results(tmp_path / 'results.json', figures)
    assert json.loads((tmp_path / 'results.json').read_text()) == json.loads(json.dumps(figures))
    with pytest.raises(ValueError, match='required'):
        schema.write_results(tmp_path / 'results.json', {})
    assert json.loads((tmp_path / 'results.json').read_text())['notes'] == figures['notes']


def test_predictions_are_on_the_cpu_and_as_many():
    assert predict(red_over_half, torch.full((3, 3, 2, 2), 200, dtype=torch.uint8)).tolist() == [1, 1, 1]
