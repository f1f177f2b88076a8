"""The benchmark of distillation: its aggregation, its arms and its plot."""
import pytest
import torch
from benchmarks import kd_accuracy
from benchmarks.harness import kd_training
from benchmarks.harness.measure import environment
from benchmarks.kd_accuracy import ARMS, NONE, ONLINE, STORED
from benchmarks.reports.plots import plot_kd_accuracy


def run_of(top1):
    return dict(top1=top1, seconds=1 + top1 / 100)


def results_of(runs):
    rows = kd_accuracy.accuracy_rows(runs, 'Accuracy: made up')
    return dict(schema_version=1, question='How?', command='python -m benchmarks.kd_accuracy',
                environment=environment('cpu', 'processor time'), rows=rows)


def test_gain_is_paired_by_seed_and_its_share_has_a_jackknife_error():
    none, stored, online = [80.0, 70.0, 75.0], [82.0, 72.0, 77.0], [84.0, 75.0, 78.0]
    top1s = {NONE: none, STORED: stored, ONLINE: online}
    runs = {name: [*map(run_of, values)] for name, values in top1s.items()}
    columns = kd_accuracy.summary(runs, STORED)
    assert columns['top-1 on crops (%)'] == 77
    assert columns['standard error'] == pytest.approx(5 / 3 ** 0.5)
    assert columns['gain'] == 2 and columns['standard error of the gain'] == 0  # although the seeds differ by 10
    assert columns["share of the online teacher's gain (%)"] == pytest.approx(100 * 6 / 12)
    left_out = [4 / 8, 4 / 7, 4 / 9]
    middle = sum(left_out) / 3
    error = (2 / 3 * sum((value - middle) ** 2 for value in left_out)) ** 0.5
    assert columns['standard error of the share'] == pytest.approx(100 * error)
    assert 'gain' not in kd_accuracy.summary(runs, NONE)


@pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning')  # timm's reader leaves files open
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_arms_differ_in_names_and_have_the_teacher_where_they_say(tmp_path, monkeypatch):
    pytest.importorskip('mlxtend')
    settings = kd_training.Settings(labelled=2, batch_size=10, epochs=1, width=8, teacher_width=8, crops=1)
    monkeypatch.setattr(kd_training.Data, 'trained_teacher', lambda data: data.network(8))
    data = kd_training.Data(tmp_path, settings)
    assert len({arm.name for arm in ARMS}) == len(ARMS) and len(data.dataset('few')) == 20
    for arm in ARMS:
        if arm.rows not in ('mixed', 'unmixed'):
            continue
        _, loader, rows = kd_training.build(arm, data, seed=0)
        images, targets = next(iter(loader))
        if arm.rows == 'mixed':
            assert targets.shape == (10, 10) and torch.equal(rows(images), data.teacher(images).softmax(1))
        else:
            assert targets.shape == (10, 20) and rows is None
    run = kd_training.train(kd_training.Arm('', 'mixed views', 2), data, seed=0)
    assert 0 <= run['top1'] <= 100 and run['seconds'] > 0
    assert (tmp_path / 'mixed views-2' / 'view-0001.npy').exists()


def test_plot_has_a_point_for_each_number_of_views(tmp_path):
    runs = {arm.name: [run_of(80.0 + i), run_of(81.0 + i)] for i, arm in enumerate(ARMS)}
    axes = plot_kd_accuracy(results_of(runs), tmp_path / 'plot.png')
    [points] = [line for line in axes.lines if len(line.get_xdata()) == 5 and line.get_marker() == 'o']
    assert [*points.get_xdata()] == [1, 2, 5, 10, 40] and [*points.get_ydata()] == [83.5, 84.5, 85.5, 86.5, 87.5]
    assert (tmp_path / 'plot.png').exists()


def test_timings_are_compared_with_the_first_case():
    rows = kd_accuracy.rows_of('Time', {'a': [1.0, 1.0], 'b': [1.2, 1.2]}, {'b': 1.1})
    assert rows[0]['comparison'] is None and rows[1]['comparison']['passed'] is False
    assert rows[1]['comparison']['reference'] == 'a'
