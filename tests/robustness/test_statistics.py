"""Statistics against loops from their definitions."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from timm_assemble.robustness import evaluate, metrics
from timm_assemble.robustness import Results, report, statistics
from timm_assemble.robustness.statistics import calibrate, detection_metrics, fit_temperature

from .. import _oracles as oracles
from ._samples import red_over_half

RESAMPLES = 60  # each has all metrics of all tasks
SCORES = st.lists(st.integers(0, 8), min_size=1, max_size=15)


@settings(max_examples=60, deadline=None)
@given(SCORES, SCORES, st.data())
def test_detection_is_what_counting_pairs_and_thresholds_gives(inside, outside, data):
    a, b = np.array(inside, float), np.array(outside, float)
    got = {name: value.item() for name, value in detection_metrics(a, b).items()}
    assert (got['auroc'], got['aupr'], got['fpr95']) == pytest.approx(oracles.detection(inside, outside))
    weights = [np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(x), max_size=len(x)))) for x in (a, b)]
    if all(w.any() for w in weights):
        repeated = detection_metrics(np.repeat(a, weights[0]), np.repeat(b, weights[1]))
        drawn = detection_metrics(a, b, *(np.stack([w, np.ones_like(w)]) for w in weights))  # two resamples at once
        assert {name: value[0] for name, value in drawn.items()} == pytest.approx(
            {name: value.item() for name, value in repeated.items()})
        assert {name: value[1] for name, value in drawn.items()} == pytest.approx(got)


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_the_tail_of_a_fair_coin(hits):
    first, second = (np.array(column) for column in zip(*hits))
    got = statistics.mcnemar(first, second)
    assert got['p_value'] == pytest.approx(oracles.mcnemar(first, second))
    assert got['only_first_right'] == sum(a and not b for a, b in hits) and got['images'] == len(hits)


def test_temperature_has_the_least_loss_of_a_grid_and_is_fitted_on_half():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 6)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes = np.array([rng.choice(6, p=row) for row in chances])
    overconfident = (logits * 3).astype(np.float32)

    def loss(temperature):
        total = 0.0
        for row, c in zip(overconfident.astype(float)[::2], classes[::2]):
            scaled = [v / temperature for v in row]
            total += np.log(sum(np.exp(v) for v in scaled)) - scaled[c]
        return total
    half = fit_temperature(overconfident[::2], classes[::2])
    assert half == pytest.approx(3, rel=0.1) and all(loss(half) <= loss(half * f) for f in (0.99, 1.01, 0.7, 1.4))
    records = calibrate(_records(overconfident, classes))
    assert records['temperature'] == pytest.approx(half) and 'logits' not in records
    np.testing.assert_allclose(records['calibrated_confidence'], _confidence(overconfident, half), rtol=1e-5)
    got = statistics.temperature_scaling(records, np.ones((1, 3000)))
    odd = np.arange(1, 3000, 2)
    for when, temperature in (('before', 1), ('after', half)):
        rows = [oracles.softened(row.astype(float), temperature) for row in overconfident[odd]]
        scores = [oracles.scores(row, [c]) for row, c in zip(rows, classes[odd])]
        expected = dict(
            nll=np.mean([nll for nll, _ in scores]), brier=100 * np.mean([brier for _, brier in scores]), images=1500,
            ece=100 * oracles.calibration_error([max(row) for row in rows], records['hit1'][odd].tolist(), 15))
        found = {name: got[when][name].item() for name in expected}
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert got['after']['ece'] < got['before']['ece'] / 3 and got['after']['nll'] < got['before']['nll']
    assert (got['temperature'], got['fitted_images']) == (pytest.approx(half), 1500)


def _records(logits, classes):
    """Return the records of logits, before the temperature is fitted."""
    scores = statistics.image_scores(torch.from_numpy(logits), torch.from_numpy(classes[:, None]))
    hits = logits.argmax(1) == classes
    return dict({name: value.numpy() for name, value in scores.items()}, item=np.arange(len(logits)), logits=logits,
                column=classes, hit1=hits, hit5=hits)


def _confidence(logits, temperature):
    e = np.exp(logits.astype(float) / temperature)
    return (e / e.sum(1, keepdims=True)).max(1).astype(np.float32)


def blurry(images):
    """Return logits whose hits depend on the corruption."""
    red = images[:, 0].float().mean((1, 2)) - 127.5
    return np.sqrt(0.01) * red_over_half(images) + (red[:, None] > 60) * 3


@pytest.fixture(scope='module')
def kept(tree, tmp_path_factory):
    output = tmp_path_factory.mktemp('kept')
    models = dict(red=red_over_half, blue=lambda images: -red_over_half(images) * 0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, 'RESAMPLES', RESAMPLES)
        results = _evaluate(models, tree, output)
    return results, output


def _evaluate(models, tree, output):
    return evaluate(
        models, imagenet_c=tree, clean=tree / 'snow' / '1', input_size=32, baseline='blue', shift=2,
        test_sets=dict(mine=tree / 'snow' / '5'), ood=dict(other=tree / 'fog' / '3'), keep_predictions=True,
        output=output, identities=dict(red='1', blue='2'))


def test_predictions_recompute_every_error_and_calibration(kept, tree):
    results, output = kept
    with np.load(output / 'predictions' / 'red.npz') as file:
        arrays = {name: file[name] for name in file.files}
    red = results.to_dict()['models'][0]
    for name in metrics.COMMON:
        for severity in metrics.SEVERITIES:
            key = f'corruption/{name}/{severity}'
            names = arrays[str(arrays[f'{key}/list'])][arrays[f'{key}/file']]
            labels = [n[0] == 'b' for n in names]
            assert labels == arrays[f'{key}/label'].tolist()
            hits = [int(top[0]) == label for top, label in zip(arrays[f'{key}/top5'], labels)]
            entry = red['corruptions'][name]['severities'][str(severity)]
            assert entry['top1_error'] == pytest.approx(100 * (1 - sum(hits) / 4))
            assert entry['ece'] == pytest.approx(
                100 * oracles.calibration_error(arrays[f'{key}/confidence'].tolist(), hits, 15), abs=1e-4)
    clean, other = arrays['clean/clean/confidence'], arrays['ood/other/confidence']
    detected = oracles.detection(clean.tolist(), other.tolist())
    assert tuple(red['ood']['other']['msp'].values()) == pytest.approx(detected)
    assert red['test_sets']['mine']['top1_diff'] == pytest.approx(25)  # two of four wrong, and three of the clean ones
    by_severity = [np.mean([red['corruptions'][name]['severities'][str(s)]['ece'] for name in metrics.COMMON])
                   for s in metrics.SEVERITIES]
    assert [mean['ece'] for mean in red['means_by_severity'].values()] == pytest.approx(by_severity)
    assert red['statistics']['per_class'] == dict(
        clean=dict(a=dict(images=2, top1=0.0), b=dict(images=2, top1=50.0)),
        mine=dict(a=dict(images=2, top1=0.0), b=dict(images=2, top1=100.0)))
    for number, entry in enumerate(red['statistics']['reliability']['clean']):
        inside = [i for i, c in enumerate(clean) if min(14, int(c * 15)) == number]
        assert entry['images'] == len(inside)
        if inside:
            assert entry['accuracy'] == 100 * np.mean(arrays['clean/clean/hit1'][inside])


def test_resampled_reports_are_those_of_the_drawn_images(kept):
    """Images drawn twice count twice, in every metric, for all models alike."""
    results, _ = kept
    measured, rng = results._measured, np.random.default_rng(3)
    drawn = {r.task.names: rng.integers(0, 4, 4) for r in measured[0][1]}
    weights = {names: np.stack([np.bincount(rows, minlength=4), np.ones(4)]) for names, rows in drawn.items()}
    relative = report.Relative('blue', None, True)
    once = [(model, [r._replace(records={name: values[drawn[r.task.names]] for name, values in r.records.items()})
                     for r in each]) for model, each in measured]
    for i, reports in enumerate((report._reports(once, relative), report._reports(measured, relative))):
        for got, expected in zip(report._reports(measured, relative, weights), reports):
            found = {path: values[i] for path, values, _ in report._flatten(got) if values.ndim}
            expected = {path: values.item() for path, values, _ in report._flatten(expected)}
            assert found == pytest.approx(expected, nan_ok=True) and len(found) > 200


def test_rates_have_wilsons_intervals_and_means_a_bootstrap_that_says_when_it_is_too_small(kept):
    results, _ = kept
    red, blue = results.to_dict()['models']
    intervals = red['statistics']['intervals']
    for path, wrong in (('clean.top1_error', 3), ('corruptions.fog.severities.3.top1_error', 1),
                        ('corruptions.fog.severities.1.top1_error', 0)):
        low, high = oracles.wilson(wrong, 4)
        assert intervals[path] == dict(low=pytest.approx(100 * low, abs=1e-6), high=pytest.approx(100 * high),
                                       method='wilson', small=False)
    assert intervals['mce']['low'] < red['mce'] < intervals['mce']['high'] and intervals['mce']['small']
    assert intervals['mce']['method'] == 'bootstrap' and any('* are bootstraps' in n for n in results.values.notes)
    assert [blue['statistics']['intervals']['mce'][end] for end in ('low', 'high')] == [100, 100]
    [pair] = results.to_dict()['comparisons']
    assert pair['models'] == ['red', 'blue'] and pair['differences']['top1']['difference'] == -50
    assert pair['differences']['top1']['interval']['low'] < -50 < pair['differences']['top1']['interval']['high']
    assert pair['mcnemar']['clean']['only_first_right'] == 1 and pair['mcnemar']['fog/3']['only_first_right'] == 3
    assert pair['differences']['mean_error']['interval']['high'] < 0


def test_bootstrap_covers_the_mean_of_many_images():
    rng, covered = np.random.default_rng(0), 0
    for seed in range(60):
        hits = rng.random(400) < 0.3
        sample = [SimpleNamespace(task=SimpleNamespace(names='n'), records=dict(item=hits))]
        drawn = np.concatenate([weights['n'] @ hits / 400 for weights in statistics.resamples(sample, seed)])
        low, high = statistics.percentiles(drawn)
        covered += low <= 0.3 <= high
    assert 51 <= covered  # 57 are expected; fewer than 51 have a chance of 0.003


def test_temperature_on_the_bound_of_its_search_is_not_fitted():
    logits = np.array([[5.0, 0.0], [0.0, 5.0]] * 4, np.float32)
    right = logits.argmax(1)
    assert np.isnan(fit_temperature(logits, right)) and np.isnan(fit_temperature(logits, 1 - right))
    got = statistics.temperature_scaling(calibrate(_records(logits, right)), np.ones((1, 8)))
    assert np.isnan(got['temperature']) and got['after'] is None and got['before']['ece'] > 0


def test_statistics_are_printed_plotted_and_loaded_again(kept):
    results, output = kept
    assert {'results.json', 'reliability.png', 'robustness.png'} <= {f.name for f in output.iterdir()}
    text = results.tables()
    assert "McNemar's exact test" in text and 'AUROC' in text and '25.00 [' in text and '-0.00' not in text
    again = Results.load(output)
    assert again.tables() == text and r'\toprule' in again.latex() and '| red ' in again.markdown()
