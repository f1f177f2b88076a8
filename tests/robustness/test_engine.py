"""Tasks measured with callables, and their cache."""
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from timm_assemble.evaluation.engine import Loading, TaskCache, Unreadable, run_tasks
from timm_assemble.robustness import tasks as robustness_tasks
from timm_assemble.robustness.metrics import ALEXNET_FLIP_RATE
from timm_assemble.robustness.evaluation import _leave_out
from timm_assemble.robustness.plan import RobustnessOptions as Request, make_plan
from timm_assemble.robustness.tasks import Classifier
from timm_assemble.robustness.test_sets import LabelMap

from ._samples import counting, red_over_half, write_image, write_video

LOADING = Loading(4, 0, torch.device('cpu'))


def classifier(label, compute, **identity):
    return Classifier(label=label, compute=compute, identity=identity)


def metrics_of(result):
    found = result.task.metrics(result.records, np.ones((1, len(result.records['item']))))
    return {name: value.item() for name, value in found.items()}


def test_sequences_are_batched_without_mixing_their_frames(tmp_path):
    """One flips at frames 2 and 3 of 4: 1 pair with the first, 2 with the one before."""
    root = tmp_path / 'imagenet-p'
    flipping = write_video(tmp_path / 'flipping.mp4', [40, 210, 40, 40]).read_bytes()
    still = write_video(tmp_path / 'still.mp4', [40, 40, 40]).read_bytes()
    for name in ALEXNET_FLIP_RATE:
        for path, content in ((root / name / 'a' / '0.mp4', flipping), (root / name / 'b' / '1.mp4', still)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    plan = make_plan(Request(imagenet_p=root, input_size=32))
    cache = TaskCache(tmp_path / 'cache')
    for batch_size, batches in ((4, [4, 3]), (62, [7])):  # a sequence counts as 31 images
        counts = []
        model = classifier('red', counting(counts), batch_size=batch_size)
        run_tasks(plan.tasks, [model], cache, LOADING._replace(batch_size=batch_size))
        assert counts == batches * 10
        for task in plan.tasks:
            flips = 1 if task.name in ('gaussian_noise', 'shot_noise') else 2
            assert metrics_of(cache.expect(task, model)) == dict(
                sequences=2, flips=flips, pairs=5, flip_rate=20 * flips)
    (root / 'tilt' / 'b' / '1.mp4').unlink()
    with pytest.raises(ValueError, match=r'same number of videos .* tilt has 1'):
        make_plan(Request(imagenet_p=root))


def test_finished_tasks_are_cached_for_their_model(tree, tmp_path):
    plan = make_plan(Request(imagenet_c=tree, input_size=32, corruptions=('fog',)))
    counts, cache = [], TaskCache(tmp_path)
    model = classifier('red', counting(counts), made_by='red')
    with pytest.raises(ValueError, match='lacks fog/1'):
        cache.expect(plan.tasks[0], model)
    swapped = replace(model, label_map=lambda task: LabelMap(((1,), (0,))))
    for other, measured in ((model, 5), (model, 0), (replace(model, identity=dict(made_by='green')), 5), (swapped, 5)):
        counts.clear()
        run_tasks(plan.tasks, [other], cache, LOADING)
        assert counts == [4] * measured and all(cache.get(task, other) for task in plan.tasks)


def test_unreadable_clean_image_is_left_out_of_all_corruptions(tmp_path, monkeypatch):
    monkeypatch.setattr(robustness_tasks, 'corrupt', lambda image, *args: image)  # slow, and not what is tested
    for i in range(3):
        write_image(tmp_path / 'clean' / 'a' / f'{i}.png', Image.new('RGB', (64, 64)))
    (tmp_path / 'clean' / 'a' / '1.png').write_bytes(b'not an image')
    plan = make_plan(Request(generate=tmp_path / 'clean', input_size=32))
    assert len(plan.tasks) == 1 + 19 * 5 and plan.complete
    cache, model = TaskCache(tmp_path / 'cache'), classifier('red', red_over_half)
    run_tasks(plan.tasks, [model], cache, LOADING)
    [(_, results)], files = _leave_out([(model, [cache.expect(task, model) for task in plan.tasks])])
    assert [(file.path, file.tasks) for file in files] == [(str(tmp_path / 'clean' / 'a' / '1.png'), 96)]
    assert all(metrics_of(result)['images'] == 2 and result.records['item'].tolist() == [0, 2] for result in results)


def test_corruptions_are_generated_once_for_all_models(tmp_path, monkeypatch):
    write_image(tmp_path / 'clean' / 'a' / '0.png', Image.new('RGB', (64, 64)))
    write_image(tmp_path / 'clean' / 'b' / '1.png', Image.new('RGB', (64, 64)))
    plan = make_plan(Request(generate=tmp_path / 'clean', input_size=32))
    made = []
    monkeypatch.setattr(robustness_tasks, 'corrupt', lambda image, *args: (made.append(args), image)[1])
    for models in (1, 3):
        made.clear()
        run_tasks(plan.tasks, [classifier(str(i), red_over_half, i=i, of=models) for i in range(models)],
                  TaskCache(tmp_path / 'cache'), LOADING)
        assert len(made) == len({*made}) == 2 * 19 * 5


def test_identity_covers_all_that_decides_the_metrics(tree, tmp_path):
    model = classifier('red', red_over_half)

    def identities(size=32, **options):
        return [task.identity(model) for task in make_plan(Request(input_size=size, **options)).tasks]
    clean = tree / 'fog' / '3'
    found = [*identities(imagenet_c=tree), *identities(clean=clean, shift=3)[1:],
             *identities(clean=clean, shift=2, seed=1)[1:], *identities(clean=clean, shift=2),
             *identities(clean=clean, protocol='assemble'), *identities(generate=clean)[1:],
             *identities(generate=clean, seed=1)[1:],
             *identities(imagenet_c=tree, size=48), *identities(imagenet_c=tree, size=(48, 32))]
    assert all(found.count(identity) == 1 for identity in found)
    write_image(tmp_path / 'a' / '0.png', Image.new('RGB', (64, 64)))
    before = identities(clean=tmp_path)
    write_image(tmp_path / 'a' / '0.png', Image.effect_noise((64, 64), 9))
    assert identities(clean=tmp_path) != before


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_workers_hold_no_files_open(tmp_path):
    for i in range(20):
        write_image(tmp_path / 'clean' / 'a' / f'{i}.png', Image.new('RGB', (256, 256), (12 * i, 0, 0)))
    plan = make_plan(Request(clean=tmp_path / 'clean', input_size=32))
    opened = []

    def classify(images):
        opened.append(len(os.listdir('/proc/self/fd')))
        return red_over_half(images)
    models = [classifier(name, classify, made_by=name) for name in ('red', 'same')]
    before, cache = len(os.listdir('/proc/self/fd')), TaskCache(tmp_path / 'cache')
    run_tasks(plan.tasks, models, cache, LOADING._replace(batch_size=1, workers=1))
    assert len(opened) == 40 and max(opened) - before < 20
    for model in models:
        assert metrics_of(cache.expect(plan.tasks[0], model))['top1_error'] == 5 * sum(12 * i > 127 for i in range(20))


def test_too_large_batch_is_reported(tree, tmp_path):
    def classify(images):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate ...')
    plan = make_plan(Request(imagenet_c=tree, input_size=32))
    with pytest.raises(ValueError, match='batch_size must be below 4: cpu has too little memory for red on gaussian_n'):
        run_tasks(plan.tasks, [classifier('red', classify)], TaskCache(tmp_path), LOADING)


def test_damaged_cached_result_counts_as_missing(tree, tmp_path):
    [task, *_] = make_plan(Request(imagenet_c=tree)).tasks
    task = replace(task, items=3)
    model, cache = classifier('red', red_over_half, a=(1, 2)), TaskCache(tmp_path)
    records = dict(item=np.array([0, 2]), hit1=np.array([True, False]), hit5=np.array([True, True]),
                   confidence=np.array([0.5, 0.75], np.float32), nll=np.array([0.5, 1.0]), brier=np.array([0.5, 1.0]))
    cache.put(task, model, records, [Unreadable(task.folder / 'a' / '1.JPEG', 1, 'why')], 0.5)
    got = cache.get(task, model)
    found = metrics_of(got)
    assert found['ece'] == pytest.approx(62.5) and (found['images'], found['top1_error'], found['nll']) == (2, 50, 0.75)
    assert got.seconds == 0.5
    assert got.unreadable == (Unreadable(task.folder / 'a' / '1.JPEG', 1, 'why'),)
    assert {name: values.tolist() for name, values in got.records.items()} == {
        name: values.tolist() for name, values in records.items()}
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    for damaged in (b'', whole[:-20], b'[]', whole[:75] + b'xxxx' + whole[79:]):
        path.write_bytes(damaged)
        assert cache.get(task, model) is None
    path.write_bytes(whole)
    assert cache.get(task, replace(model, identity=dict(a=(1, 3)))) is None and cache.get(task, model)
