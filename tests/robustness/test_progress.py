"""Images done, and the time that is left."""
from types import SimpleNamespace

import pytest

from timm_assemble.robustness.datasets.corruptions import MILLISECONDS, Corruption
from timm_assemble.evaluation.image_files import Batch
from timm_assemble.robustness.datasets.protocols import Preprocessing
from timm_assemble.robustness.metrics import ALEXNET_ERROR, SEVERITIES
from timm_assemble.robustness.progress import Progress
from timm_assemble.robustness.tasks.measurements import ErrorTask

IMAGES, BATCH = 600, 50


def tasks():
    def task(name, severity=0, corruption=None):
        return ErrorTask('g', name, severity, None, IMAGES, '', '', (), Preprocessing(292, 256, 256), corruption)
    return [task('clean'), *(task(name, s, Corruption(name, s, 0)) for name in ALEXNET_ERROR for s in SEVERITIES)]


@pytest.mark.parametrize('workers, models, classify', [(0, 1, 1e-3), (0, 3, 20e-3), (4, 1, 1e-3), (4, 2, 5e-3)])
@pytest.mark.parametrize('cached', [0, 40])
def test_time_left_is_right_within_a_third_after_a_tenth(workers, models, classify, cached):
    """Corruptions take what they take on another machine: three times as long, and not in the known ratios."""
    work = tasks()
    clock = [0.0]
    shown = SimpleNamespace(total=0, n=0, reset=lambda total: setattr(shown, 'total', total),
                            update=lambda n: setattr(shown, 'n', shown.n + n), set_postfix_str=lambda *a, **k: None)
    progress = Progress(workers, shown, lambda: clock[0])
    progress.start([(task, models, 0 if i < cached else models) for i, task in enumerate(work)])
    assert shown.total == 96 * IMAGES * models and shown.n == cached * IMAGES * models
    assert progress.seconds_left() is None

    def seconds(task):
        made = 3e-3 * MILLISECONDS[task.corruption.name] * (1.2 if task.severity > 3 else 0.9) if task.corruption else 0
        load, run = 4e-3 + 1e-3 + made, classify * models
        return load, run, (max(load / workers, run) if workers else load + run)
    total = sum(seconds(task)[2] * IMAGES for task in work[cached:])
    checked = 0
    for task in work[cached:]:
        load, run, wall = seconds(task)
        for _ in range(IMAGES // BATCH):
            clock[0] += wall * BATCH
            spent = 4e-3 * BATCH, (load - 4e-3) * BATCH
            progress.update(task, Batch(range(BATCH), None, (1,) * BATCH, range(BATCH), (), spent), run * BATCH)
            if 0.1 * total < clock[0] < 0.98 * total:
                assert progress.seconds_left() == pytest.approx(total - clock[0], rel=0.3)
                checked += 1
    assert shown.n == shown.total and progress.seconds_left() == 0 and checked > 100
