"""The trainings of benchmarks.kd_accuracy: one loop for every kind of distillation, on few images of MNIST."""
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

import numpy as np
import torch
from timm import create_model
from timm.data import create_dataset, create_loader, create_transform, resolve_data_config
from timm.data.loader import PrefetchLoader, fast_collate
from timm.data.mixup import FastCollateMixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import random_seed
from torch import nn
from torch.utils.data import DataLoader

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.examples.digits import write_mnist
from timm_assemble.training import (
    StoredLogitsDistillationTask, TeacherCollate, TeacherCollateMixup, TeacherDataset, TeacherLogits, TeacherViews,
    ViewDataset, pack_targets, seeded_generators, store_teacher_logits, store_teacher_views,
)

__all__ = ['STORES', 'Arm', 'Data', 'LargeData', 'Settings', 'epoch_of', 'storing', 'train']

CLASSES = 10
BATCH_SIZE, TEACHER_BATCH_SIZE, TEACHER_EPOCHS = 30, 64, 12
STORES = ('stored', 'views', 'mixed views')  # kinds of rows that are stored
Epoch = Callable[[], None]


@dataclass(frozen=True)
class Settings:
    """What all trainings share."""

    labelled: int = 18  # images of the student, per class; the teacher has all of the training split
    epochs: int = 40
    batch_size: int = BATCH_SIZE
    width: int = 16  # of assemble_resnet50_d with one block per stage
    teacher_width: int = 32
    size: int = 32
    crops: int = 4  # random crops of each held-out image on which accuracy is measured

    def __str__(self) -> str:
        return (f'{CLASSES * self.labelled} labelled images at {self.size}x{self.size}, {self.epochs} epochs, '
                'crops from 0.08, mixup 0.2')


@dataclass(frozen=True)
class Arm:
    """One kind of distillation.

    Attributes:
        name: Of the table.
        rows: Where the teacher's probabilities come from: ``''`` none, ``'stored'`` of the unaugmented images,
            ``'views'`` of stored views, ``'mixed views'`` of those of mixed images, ``'mixed'`` the teacher run on the
            mixed images, ``'unmixed'`` the teacher run on the augmented images before mixup, whose rows are mixed like
            labels.
        views: Stored views per image.
        mixup: Probability of mixup in a batch.
        teacher: Whether the loss has the teacher's term.
    """

    name: str
    rows: str = ''
    views: int = 0
    mixup: float = 1.0
    teacher: bool = True


def mixup(prob: float = 1.0) -> Dict[str, Any]:
    """Return the arguments of timm's mixup."""
    return dict(mixup_alpha=0.2, mode='elem', prob=prob, label_smoothing=0.1, num_classes=CLASSES)


class Data:
    """Images, crops of the held-out images, the teacher and its stores, in an empty folder."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        write_mnist(folder)
        rng = np.random.default_rng(0)
        for c in range(CLASSES):
            (folder / 'few' / str(c)).mkdir(parents=True)
            for file in rng.choice(sorted((folder / 'train' / str(c)).iterdir()), settings.labelled, False):
                shutil.copy(file, folder / 'few' / str(c))
        config, size = resolve_data_config({}, model=self.network(settings.width)), (3, settings.size, settings.size)
        self.normalize: Dict[str, Any] = dict(mean=config['mean'], std=config['std'])
        self.augment: Dict[str, Any] = dict(
            input_size=size, interpolation='bilinear', scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.0,
            color_jitter=0.0)
        held_out = self.dataset('validation')
        held_out.transform = create_transform(
            is_training=True, **{**self.augment, 'scale': (0.25, 1.0)}, **self.normalize)
        with seeded_generators(0):
            samples = [held_out[i] for _ in range(settings.crops) for i in range(len(held_out))]
        self.crops, self.labels = torch.stack([image for image, _ in samples]), torch.tensor([c for _, c in samples])
        self.teacher = self.trained_teacher().eval()

    def network(self, width: int) -> nn.Module:
        return create_model('assemble_resnet50_d', num_classes=CLASSES, width=width, layers=(1, 1, 1, 1)).to(
            memory_format=torch.channels_last)

    def dataset(self, split: str) -> Any:
        return create_dataset('', root=str(self.folder), split=split, input_img_mode='RGB')

    def trained_teacher(self) -> nn.Module:
        random_seed(100)
        teacher = self.network(self.settings.teacher_width)
        loader = self.loader(self.dataset('train'), FastCollateMixup(**mixup()), TEACHER_BATCH_SIZE)
        fit(ClassificationTask(teacher, SoftTargetCrossEntropy(), verbose=False), loader, TEACHER_EPOCHS)
        return teacher

    def loader(self, dataset: Any, collate: Any, batch_size: int) -> Any:
        return create_loader(
            dataset, batch_size=batch_size, is_training=True, collate_fn=collate, num_workers=0,
            device=torch.device('cpu'), **self.augment, **self.normalize)

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Return the teacher's probabilities of normalized images."""
        return self.teacher(images).softmax(1)

    @torch.inference_mode()
    def accuracy(self, model: nn.Module) -> float:
        """Return the top-1 in percent on the crops."""
        model.eval()
        logits = torch.cat([model(x.contiguous(memory_format=torch.channels_last)) for x in self.crops.split(96)])
        return 100 * (logits.argmax(1) == self.labels).double().mean().item()

    def store(self, rows: str, views: int = 0) -> Path:
        """Return the folder of a store, which is written once."""
        output = self.folder / f'{rows}-{views}'
        common: Dict[str, Any] = dict(chunk_size=64, workers=0, progress=False)
        if rows in ('views', 'mixed views'):
            store_teacher_views(self.teacher, 'teacher', self.dataset('few'), output, self.augment, views, **common,
                                mixing={'mixup': 0.2} if rows == 'mixed views' else None)
        else:
            plain = dict(input_size=self.augment['input_size'], interpolation='bilinear', crop_pct=1.0)
            store_teacher_logits(self.teacher, 'teacher', self.dataset('few'), output, preprocessing=plain, **common)
        return output


class LargeData(Data):
    """Data for timings with an untrained ``assemble_resnet50`` as student and teacher."""

    def network(self, width: int) -> nn.Module:
        return create_model('assemble_resnet50', num_classes=CLASSES).to(memory_format=torch.channels_last)

    def trained_teacher(self) -> nn.Module:
        return self.network(0)


class _Unmixed(TeacherCollateMixup):
    """Runs the teacher on a batch's images before it mixes both images and rows."""

    data: Data

    def __call__(self, batch: Sequence[Tuple[Any, Any]], _: Any = None) -> Tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(np.stack([image for image, _ in batch])).float()
        mean, std = (255 * torch.tensor(self.data.normalize[key]).view(1, 3, 1, 1) for key in ('mean', 'std'))
        rows = self.data.probabilities((images - mean) / std)
        packed = [(image, pack_targets(torch.tensor(label), row)) for (image, label), row in zip(batch, rows)]
        return super().__call__(packed)


def build(arm: Arm, data: Data, seed: int) -> Tuple[Any, Any, Optional[Callable]]:
    """Return an arm's student and loss, its loader, and the teacher where it runs on the mixed images."""
    settings, dataset = data.settings, data.dataset('few')
    collate: Any = FastCollateMixup(**mixup(arm.mixup))
    if arm.rows in STORES:
        store = data.store(arm.rows, arm.views)
        dataset = (TeacherDataset(dataset, TeacherLogits(store)) if arm.rows == 'stored'
                   else ViewDataset(dataset, TeacherViews(store), seed=seed, smoothing=0.1))
        collate = (TeacherCollate(fast_collate) if arm.rows == 'mixed views'
                   else TeacherCollateMixup(**mixup(arm.mixup)))
    elif arm.rows == 'unmixed':
        collate = _Unmixed(**mixup(arm.mixup))
        collate.data = data
    random_seed(seed)
    model, criterion = data.network(settings.width), SoftTargetCrossEntropy()
    task: Any = ClassificationTask(model, criterion=criterion, verbose=False)
    if arm.rows:
        task = StoredLogitsDistillationTask(
            model, criterion=criterion, verbose=False, distill_loss_weight=float(arm.teacher), task_loss_weight=1.0)
    loader = data.loader(dataset, collate, settings.batch_size)
    return task, loader, data.probabilities if arm.rows == 'mixed' else None


def make_epoch(task: Any, loader: Any, rows: Optional[Callable], schedule_epochs: int = 0) -> Epoch:
    """Return a function that trains for the next epoch, with LAMB and, if there are epochs for it, a cosine."""
    optimizer = create_optimizer_v2(task.trainable_module, opt='lamb', lr=0.02, weight_decay=0.02)
    scheduler: Any = schedule_epochs and create_scheduler_v2(
        optimizer, 'cosine', num_epochs=schedule_epochs, warmup_epochs=min(2, schedule_epochs - 1), warmup_lr=0.0,
        step_on_epochs=False, updates_per_epoch=len(loader))[0]
    done = dict(epochs=0, updates=0)

    def epoch() -> None:
        if hasattr(loader.dataset, 'set_epoch'):
            loader.dataset.set_epoch(done['epochs'])
        task.train()
        for images, targets in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            if rows is not None:
                targets = pack_targets(targets, rows(images))
            optimizer.zero_grad()
            task(images, targets)['loss'].backward()
            optimizer.step()
            done['updates'] += 1
            if scheduler:
                scheduler.step_update(done['updates'])
        done['epochs'] += 1
    return epoch


def fit(task: Any, loader: Any, epochs: int, rows: Optional[Callable] = None) -> None:
    """Train from begin to end."""
    epoch = make_epoch(task, loader, rows, epochs)
    for _ in range(epochs):
        epoch()


def train(arm: Arm, data: Data, seed: int) -> Dict[str, float]:
    """Train a student; return its top-1 and processor seconds per epoch."""
    task, loader, rows = build(arm, data, seed)
    start = time.process_time()
    fit(task, loader, data.settings.epochs, rows)
    seconds = (time.process_time() - start) / data.settings.epochs
    return dict(top1=data.accuracy(task.trainable_module), seconds=seconds)


def epoch_of(arm: Arm, data: Data) -> Epoch:
    """Return an epoch of an arm to be timed."""
    return make_epoch(*build(arm, data, seed=0))


def storing(data: Data, split: str, views: int, folder: Path) -> Dict[str, Callable[[], Any]]:
    """Return what to time: the teacher's passes over augmented images, storing as many views, and the bare passes."""
    dataset, augmented, stores = data.dataset(split), data.dataset(split), iter(range(10 ** 6))
    augmented.transform = create_transform(is_training=True, use_prefetcher=True, **data.augment)
    loader: Any = PrefetchLoader(  # as create_loader's, but with the last, smaller batch
        DataLoader(augmented, 64, collate_fn=fast_collate), device=torch.device('cpu'), **data.normalize)
    batches = [images for images, _ in loader]

    @torch.inference_mode()
    def passes(batches: Any) -> None:
        for _ in range(views):
            for images, *_ in batches:
                data.teacher(images)

    def store() -> None:
        store_teacher_views(data.teacher, 'teacher', dataset, folder / str(next(stores)), data.augment, views,
                            workers=0, progress=False)
    return {'passes of the teacher over augmented images': lambda: passes(loader), 'storing views': store,
            'passes of the teacher, images in memory': lambda: passes([(images,) for images in batches])}
