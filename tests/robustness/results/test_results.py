"""Summary, tables, CSV, plot and schema of results."""
import copy
import csv
import io
import json
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from timm_assemble.robustness import evaluate, metrics
from timm_assemble.robustness.results import exchange, plots, schema, summary
from timm_assemble.robustness.results.report import Results
from timm_assemble.robustness.tasks.cache import CachedResult

from .._samples import WRONG, red_over_half


def made_up(factor, clean=10.0):
    """Results of AlexNet's errors times a factor on all 19 corruptions."""
    def result(group, name, severity, **values):
        return CachedResult(SimpleNamespace(group=group, name=name, severity=severity), values, 1.0, {}, {}, ())
    return [result('clean', 'clean', 0, images=1000, wrong_top1=int(10 * clean), wrong_top5=5, ece=3.0), *(
        result('corruption', name, severity, images=100000, wrong_top1=round(1000 * error * factor), wrong_top5=7,
               ece=4.0) for name, error in metrics.ALEXNET_ERROR.items() for severity in metrics.SEVERITIES)]


def test_errors_are_relative_to_alexnet_or_a_baseline():
    report, notes = summary.summarise(made_up(0.5), summary.ALEXNET)
    assert report['mce'] == pytest.approx(50, abs=0.01) and not notes
    relative = [(0.5 * e - 10) / (e - 43.5) for e in metrics.ALEXNET_ERROR.values()]
    assert report['relative_mce'] == pytest.approx(100 * np.mean(relative), abs=0.01)
    report, _ = summary.summarise(made_up(0.5), summary.Baseline.measured('other', made_up(0.8, clean=20.0)))
    assert report['mce'] == pytest.approx(62.5, abs=0.01)
    assert report['corruptions']['snow']['relative_ce'] == pytest.approx(
        100 * (0.5 * 86.6816 - 10) / (0.8 * 86.6816 - 20), abs=0.01)
    report, notes = summary.summarise(made_up(0.5), summary.Baseline.measured('perfect', made_up(0.0, clean=0.0)))
    assert report['mce'] is None and any('mCE: baseline must have an error above 0, got 0' in note for note in notes)
    assert len(notes) == 2 and notes[0].startswith('no CE of gaussian_noise, CE of shot_noise')
    report, notes = summary.summarise(made_up(0.5), summary.ALEXNET, all_corruptions=False)
    assert report['mce'] is None and report['corruptions']['fog']['ce'] == pytest.approx(50, abs=0.01)
    report, notes = summary.summarise(made_up(0.5), None)
    assert report['mce'] is None and report['corruptions']['fog']['ce'] is None and not notes


def test_flip_rates_are_relative_to_alexnets():
    flips = {name: 20 if 'noise' in name else 40 for name in metrics.ALEXNET_FLIP_RATE}
    report, notes = summary.summarise([
        CachedResult(SimpleNamespace(group='perturbation', name=name),
                     dict(sequences=2, flips=n, pairs=100, top5_distance=50), 1.0, {}, {}, ())
        for name, n in flips.items()], summary.ALEXNET)
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
    assert ['fog', '100.00', '100.00'] in lines  # consistency of both
    rows = [row for row in csv.DictReader(io.StringIO(results.csv())) if row['model'] == 'red']
    means = {row['name']: row for row in rows if row['severity'] == 'mean'}
    rows = [row for row in rows if row['severity'] != 'mean']
    assert len(rows) == 2 * 76 and all(row['consistency'] == '100.0' for row in rows if row['group'] == 'shift')
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
    assert plots.draw(tmp_path / 'plot.png', values)
    monkeypatch.undo()
    [figure] = shown
    bars, means, *grids = [axes for axes in figure.axes if axes.get_title() or axes.get_legend()]
    mce = values['models'][0]['mce']
    assert [text.get_text() for text in bars.get_legend().get_texts()] == [f'red: mCE {mce:.1f}', 'blue: mCE 100.0']
    assert [axes.get_title() for axes in grids] == ['red', 'blue'] and means.get_title() == 'mCE'
    assert [bar.patches[0].get_height() for bar in means.containers if hasattr(bar, 'patches')] == [mce, 100]
    heights = [bar.get_height() for bar in bars.containers[0]]
    assert heights == [values['models'][0]['corruptions'][name]['ce'] for name in metrics.COMMON]
    snow = grids[0].images[0].get_array()[metrics.COMMON.index('snow')]
    assert snow.tolist() == [75, 0, 0, 0, 50] and figure.get_suptitle().startswith('protocol imagenet-c: ')
    plt.close(figure)
    with Image.open(tmp_path / 'plot.png') as image:
        assert image.size[0] > 1000 and image.size[1] > 800
    assert [f.name for f in tmp_path.iterdir()] == ['plot.png']
    nothing = dict(values, models=[dict(model, corruptions={}) for model in values['models']])
    assert not plots.draw(tmp_path / 'plot.png', nothing) and not [*tmp_path.iterdir()]


@pytest.mark.parametrize('damage, message', [
    (lambda r: r.pop('protocol'), "results: 'protocol' is a required property"),
    (lambda r: r.update(more=1), r"results: .*'more' was unexpected"),
    (lambda r: r['models'].clear(), 'models: .*(non-empty|too short)'),
    (lambda r: r['models'][0].update(checksum='abc'), r'models\[0\].checksum'),
    (lambda r: r['models'][0]['clean'].update(ece=101), r'models\[0\].clean'),
    (lambda r: r['models'][0]['corruptions']['fog']['severities'].update({'6': {}}), 'severities.*unexpected|6'),
    (lambda r: r['run'].pop('seconds'), "run: 'seconds' is a required"),
])
def test_schema_names_what_is_wrong(results, damage, message):
    damaged = copy.deepcopy(results.to_dict())
    damage(damaged)
    with pytest.raises(ValueError, match=message):
        schema.check_results(damaged)


def test_results_that_break_the_schema_are_not_written(results, tmp_path):
    assert [path.name for path in results.write(tmp_path)] == [
        'results.json', 'results.csv', 'results.md', 'results.tex', 'results-clean.csv', 'red.json', 'blue.json',
        'robustness.png']
    written = (tmp_path / 'results.json').read_text()
    assert json.loads(written) == json.loads(json.dumps(results.to_dict()))
    with pytest.raises(ValueError, match='required'):
        Results({}).write(tmp_path)
    assert (tmp_path / 'results.json').read_text() == written


def sets_of(**models):
    """Return results of models with clean images and one test set; top-1 errors by label."""
    def entry(error, **more):
        return dict(images=10, top1_error=error, top5_error=error / 2, ece=1.0, predicted_among='all 1000 classes',
                    **more)
    return dict(
        protocol=dict(name='imagenet-c', images='published', baseline='AlexNet', input_size=224, crop_pct=0.875),
        models=[dict(
            label=label, architecture='resnet50', num_classes=1000, parameters=25557032, mean_error=40.0, mce=60.0,
            references={},
            clean=dict(images=10, top1_error=clean, top5_error=clean / 2, ece=1.0),
            test_sets={'imagenet-sketch': entry(sketch, reference='clean', top1_diff=clean - sketch,
                                                top5_diff=(clean - sketch) / 2)})
            for label, (clean, sketch) in models.items()])


def test_tables_have_timms_columns():
    tables = exchange.timm_tables(sets_of(a=(20.0, 60.0), b=(24.0, 50.0), c=(22.0, 21.0)))
    assert tables == {
        'results-imagenet.csv':
            'model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation\n'
            'a,80.000,20.000,90.000,10.000,25.56,224,0.875,bilinear\n'
            'c,78.000,22.000,89.000,11.000,25.56,224,0.875,bilinear\n'
            'b,76.000,24.000,88.000,12.000,25.56,224,0.875,bilinear\n',
        'results-imagenet-sketch.csv':
            'model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation,top1_diff,top5_diff,rank_diff\n'
            'c,79.000,21.000,89.500,10.500,25.56,224,0.875,bilinear,+1.000,+0.500,+1\n'
            'b,50.000,50.000,75.000,25.000,25.56,224,0.875,bilinear,-26.000,-13.000,+1\n'
            'a,40.000,60.000,70.000,30.000,25.56,224,0.875,bilinear,-40.000,-20.000,-2\n'}


def test_robustbench_has_its_names():
    values = sets_of(a=(20.0, 60.0))
    entry = exchange.robustbench_entry(values['models'][0], values)
    assert (entry['corruptions_acc'], entry['corruptions_mce'], entry['clean_acc']) == ('60.00', '60.00', '80.00')
    assert entry['dataset'] == 'imagenet' and entry['authors'] is None
    values['protocol'].update(name='imagenet-3dcc')
    assert exchange.robustbench_entry(values['models'][0], values)['corruptions_mce_3d'] == '60.00'
    values['protocol'].update(images='generated')
    assert exchange.robustbench_entry(values['models'][0], values) is None
