"""Reports, tables, CSV, figures and types of results."""
import copy
import csv
import io
import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from timm_assemble.evaluation.engine import CachedResult
from timm_assemble.robustness import evaluate, metrics, statistics
from timm_assemble.robustness.plots import draw_all
from timm_assemble.robustness.report import ALEXNET, Relative, make_reports
from timm_assemble.robustness.results import Results

from ._samples import WRONG, red_over_half


def result(*place, **values):
    """Return a made up result with these metrics."""
    def put(report, found):
        for key in place[:-1]:
            report = report.setdefault(key, {})
        report[place[-1]] = {name: np.array([value]) for name, value in values.items()}
    task = SimpleNamespace(place=place, name=place[-1], names='n', put=put, metrics=lambda *_: None)
    return CachedResult(task, dict(item=np.arange(1)), 1.0, {}, ())


def made_up(factor, clean=10.0):
    """Results of AlexNet's errors times a factor on all 19 corruptions."""
    others = {**dict.fromkeys(statistics.METRICS, 1.0), 'images': 1000}
    return [result('clean', **{**others, 'top1_error': clean}), *(
        result('corruptions', name, 'severities', str(severity), **{**others, 'top1_error': error * factor})
        for name, error in metrics.ALEXNET_ERROR.items() for severity in metrics.SEVERITIES)]


def report_of(results, relative=None, baseline=None, complete=True):
    """Return a model's report, relative to a constant baseline or to the results of one, and the notes."""
    measured = [(SimpleNamespace(label='m'), results), (SimpleNamespace(label='b'), baseline or results)]
    reports, notes = make_reports(measured, Relative('b' if baseline else None, relative, complete))
    return reports[0], notes


def test_errors_are_relative_to_alexnet_or_a_baseline():
    report, notes = report_of(made_up(0.5), ALEXNET)
    assert report['mce'] == pytest.approx(50) and not notes
    relative = [(0.5 * e - 10) / (e - 43.5) for e in metrics.ALEXNET_ERROR.values()]
    assert report['relative_mce'] == pytest.approx(100 * np.mean(relative))
    report, _ = report_of(made_up(0.5), baseline=made_up(0.8, clean=20.0))
    assert report['mce'] == pytest.approx(62.5)
    assert report['corruptions']['snow']['relative_ce'] == pytest.approx(
        100 * (0.5 * 86.6816 - 10) / (0.8 * 86.6816 - 20))
    report, [note] = report_of(made_up(0.5), baseline=made_up(0.0, clean=0.0))
    assert report['mce'] is None and note.startswith('no corruptions.gaussian_noise.ce, ')
    assert ' mce, relative_mce: the baseline has no error there' in note
    report, notes = report_of(made_up(0.5), ALEXNET, complete=False)
    assert report['mce'] is None and report['corruptions']['fog']['ce'] == pytest.approx(50)
    report, notes = report_of(made_up(0.5))
    assert report['mce'] is None and report['corruptions']['fog']['ce'] is None and not notes


def test_flip_rates_are_relative_to_alexnets():
    flips = {name: 20 if 'noise' in name else 40 for name in metrics.ALEXNET_FLIP_RATE}
    report, notes = report_of([result('perturbations', name, flip_rate=n)
                               for name, n in flips.items()], ALEXNET)
    ratios = {name: 100 * n / metrics.ALEXNET_FLIP_RATE[name] for name, n in flips.items()}
    assert report['mfr'] == pytest.approx(sum(ratios.values()) / 10) and not notes
    assert report['perturbations']['tilt']['flip_ratio'] == pytest.approx(ratios['tilt'])


@pytest.fixture(scope='module')
def results(tree):
    return evaluate(
        dict(red=red_over_half, blue=lambda images: -red_over_half(images)), imagenet_c=tree,
        clean=tree / 'contrast' / '1', input_size=32, baseline='blue', shift=2)


def test_tables_and_csv_have_every_task(results):
    values = results.to_dict()
    assert not any('different images' in note for note in values['notes'])  # as many clean as corrupted ones
    assert values['data']['corruption']['items'] == 300 and values['data']['corruption']['classes'] == 2
    lines = [line.split() for line in results.tables().splitlines() if line]
    # clean top-1, top-5 and ECE; error and ECE of the corrupted; mCE: fog has 5 % against 95 %, snow 25 % against 75 %
    [own, other] = [line for line in lines if line[0] in ('red', 'blue') and len(line) == 8]
    assert own[:5] == ['red', '100.00', '100.00', '0.00', '2.00'] and own[6] == f'{(500 / 95 + 2500 / 75) / 15:.2f}'
    assert other[:3] == ['blue', '0.00', '100.00'] and other[6:] == ['100.00', '100.00']
    assert results.summary['blue']['mce'] == pytest.approx(100)
    assert ['snow', '75.00', '0.00', '0.00', '0.00', '50.00', '25.00'] in [line[:7] for line in lines]
    rows = [row for row in csv.DictReader(io.StringIO(results.csv())) if row['model'] == 'red']
    means = {row['name']: row for row in rows if row['severity'] == 'mean'}
    rows = [row for row in rows if row['severity'] != 'mean']
    assert len(rows) == 77 and all(row['consistency'] == '100.0' for row in rows if row['group'] == 'shift')
    assert len(means) == 16 and float(means['mean']['ce']) == pytest.approx((500 / 95 + 2500 / 75) / 15)
    assert float(means['fog']['ce']) == pytest.approx(500 / 95) and means['mean']['severity'] == 'mean'
    errors = [row for row in rows if row['group'] == 'corruption']
    assert len(errors) == 75 and all(
        (row['items'], row['flip_rate']) == ('4', '')
        and float(row['top1_error']) == 25 * WRONG.get((row['name'], int(row['severity'])), 0) for row in errors)


def test_plot_shows_models_errors_and_mce(results, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr('matplotlib.pyplot.close', shown.append)
    values = results.to_dict()
    assert [path.name for path in draw_all(tmp_path, values)] == ['robustness.png']
    monkeypatch.undo()
    [figure] = shown
    bars, means = [axes for axes in figure.axes if axes.get_title() or axes.get_legend()]
    mce = values['models'][0]['mce']
    assert [text.get_text() for text in bars.get_legend().get_texts()] == [f'red: mCE {mce:.1f}', 'blue: mCE 100.0']
    assert means.get_title() == 'mCE' and figure.get_suptitle().startswith('protocol imagenet-c: ')
    assert [bar.patches[0].get_height() for bar in means.containers if hasattr(bar, 'patches')] == [mce, 100]
    heights = [bar.get_height() for bar in bars.containers[0]]
    assert heights == [values['models'][0]['corruptions'][name]['ce'] for name in metrics.COMMON]
    plt.close(figure)
    with Image.open(tmp_path / 'robustness.png') as image:
        assert image.size[0] > 1000 and image.size[1] > 400
    assert [f.name for f in tmp_path.iterdir()] == ['robustness.png']
    nothing = dict(values, models=[dict(model, corruptions={}) for model in values['models']])
    assert not draw_all(tmp_path, nothing) and not [*tmp_path.iterdir()]


@pytest.mark.parametrize('damage, message', [
    (lambda r: r.pop('protocol'), r'missing required field `protocol`'),
    (lambda r: r.update(more=1), 'unknown field `more`'),
    (lambda r: r['models'].clear(), r'length >= 1 - at `\$.models`'),
    (lambda r: r['models'][0].update(checksum='abc'), r'at `\$.models\[0\].checksum`'),
    (lambda r: r['models'][0]['clean'].update(ece=101), r'at `\$.models\[0\].clean.ece`'),
    (lambda r: r['models'][0]['clean'].update(images=0.5), r'at `\$.models\[0\].clean.images`'),
])
def test_types_name_what_is_wrong_and_nothing_is_written(results, damage, message, tmp_path):
    damaged = copy.deepcopy(results.to_dict())
    damage(damaged)
    with pytest.raises(ValueError, match=message):
        Results(damaged).write(tmp_path)
    assert not [*tmp_path.iterdir()]
    (tmp_path / 'results.json').write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match='folder must have results'):
        Results.load(tmp_path)


def test_results_are_written_and_read_again(results, tmp_path):
    assert [path.name for path in results.write(tmp_path)] == [
        'results.json', 'results.csv', 'results.md', 'results.tex', 'robustness.png']
    assert json.loads((tmp_path / 'results.json').read_text()) == json.loads(json.dumps(results.to_dict()))
    assert Results.load(tmp_path).tables() == results.tables()
