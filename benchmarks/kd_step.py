"""Time of a training step with stored logits and with a teacher: ``python -m benchmarks.kd_step``."""
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import timm
import torch
from timm.data import FastCollateMixup
from timm.data.loader import PrefetchLoader
from timm.loss import SoftTargetCrossEntropy
from timm.task import ClassificationTask, LogitDistillationTask
from torch.utils.data import DataLoader

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.training import StoredLogitsDistillationTask, TeacherCollateMixup, TeacherDataset, TeacherLogits

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How long does a training step with distillation take?'
STUDENT, TEACHER = 'assemble_resnet50', 'tf_efficientnet_b4'
SIZE, BATCH_SIZE, CLASSES = 224, 8, 1000
BOUND = 1.03  # time with stored logits relative to no distillation
MIXUP = dict(mixup_alpha=0.2, mode='elem', label_smoothing=0.1, num_classes=CLASSES)


def make_step(task: Any, dataset: Any, mixup: FastCollateMixup, device: torch.device) -> Callable[[], None]:
    """Return one update as in train.py: samples, collation with mixup, prefetcher, forward, backward, optimizer."""
    loader = PrefetchLoader(DataLoader(dataset, BATCH_SIZE, collate_fn=mixup), device=device)
    optimizer = torch.optim.SGD(task.trainable_module.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        for images, targets in loader:
            task(images.contiguous(memory_format=torch.channels_last), targets)['loss'].backward()
            optimizer.step()
            optimizer.zero_grad()
    return step


def steps(folder: Path, device: torch.device) -> Dict[str, Callable[[], None]]:
    """Return the cases: the same student without a teacher, with rows of 1,000 classes in a file, with a teacher."""
    np.save(folder / 'rows.npy', np.random.default_rng(1).standard_normal((BATCH_SIZE, CLASSES)).astype(np.float16))
    student = timm.create_model(STUDENT, drop_block_rate=0.1).to(device).to(memory_format=torch.channels_last).train()
    teacher = timm.create_model(TEACHER).to(device).to(memory_format=torch.channels_last)
    criterion: Any = SoftTargetCrossEntropy()
    # decoded images in memory, so that reading files does not hide the cost of the teacher's rows
    pixels = np.random.default_rng(0).integers(0, 255, (BATCH_SIZE, 3, SIZE, SIZE), np.uint8)
    images: Any = [*zip(pixels, range(BATCH_SIZE))]
    stored, plain = TeacherDataset(images, TeacherLogits(folder / 'rows.npy')), FastCollateMixup(**MIXUP)
    common: Dict[str, Any] = dict(criterion=criterion, device=device, verbose=False)
    return {
        'without distillation': make_step(ClassificationTask(student, **common), images, plain, device),
        'stored logits': make_step(
            StoredLogitsDistillationTask(student, **common), stored, TeacherCollateMixup(**MIXUP), device),
        f"timm's, {TEACHER} run in each step": make_step(
            LogitDistillationTask(student, teacher, **common), images, plain, device),
    }


def main() -> int:
    """Measure, print and write the results; return a non-zero status if the bound does not hold."""
    args = parse_args('kd_step', QUESTION, rounds=10)
    with tempfile.TemporaryDirectory() as folder:
        seconds = args.measure(steps(Path(folder), torch.device(args.device)))
    names = list(seconds)
    rows: List[Dict[str, Any]] = []
    for name in names:
        row = make_row(
            f'{STUDENT} at {SIZE}, batch size {BATCH_SIZE}, a whole update, float32, eager', name, seconds,
            None if name == names[0] else names[0], bound=BOUND if name == 'stored logits' else None)
        row['details'] = {'images/s': BATCH_SIZE / row['median_s']}
        rows.append(row)
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
