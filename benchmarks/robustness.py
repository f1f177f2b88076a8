"""How fast is the robustness evaluation, beside timm's validate.py?

``TIMM_SCRIPTS=FOLDER python -m benchmarks.robustness``, with the folder of timm's scripts. Write JPEGs in ImageNet-C's
layout, classify them by both with one model and batch size in this process, then time corruptions for one model and for
three, and each corruption.
"""
import copy
import importlib
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import timm
import torch
from PIL import Image

import timm_assemble  # noqa: F401  registers the models
from timm_assemble.data.preprocessing import Preprocessing, normalize
from timm_assemble.robustness import evaluate
from timm_assemble.robustness.corruptions import corrupt
from timm_assemble.robustness.metrics import ALEXNET_ERROR, SEVERITIES

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How fast is the robustness evaluation?'
BOUND = 0.9  # of validate.py's images/s
BATCH_SIZE, CLASSES = 16, 4
MODELS = {'test_assemble_resnet': 320, 'resnet18': 80}  # images; the first is nearly free: what is left is the loop
SIZE, GENERATED = 224, 256
SHARED = ('shot_noise', 'motion_blur', 'brightness')  # about as costly as the mean of all
SHARED_IMAGES = 8
REFERENCE = 'assemble_resnet50 classifies it'


def write_images(folder: Path, count: int, side: int) -> None:
    """Write images as hard to decode as photographs: noise of several scales."""
    for i in range(count):
        rng, total = np.random.RandomState(i), np.zeros((side, side, 3))
        for cells in (4, 16, 64, side):
            noise = Image.fromarray(rng.randint(0, 256, (cells, cells, 3)).astype(np.uint8))
            total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC)) / (1 + cells / 16)
        path = folder / f'class{i % CLASSES}' / f'{i}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * total / total.max()).astype(np.uint8)).save(path, quality=85)


def classifier(model: Any, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a model as the callable from uint8 images to logits that the evaluation takes."""
    mean, std = Preprocessing.of_model(model).statistics(torch.device(device))
    return torch.inference_mode()(lambda images: model(normalize(images, mean, std)))


def loop_rows(name: str, images: int, folder: Path, validate: Any, args: Any) -> List[Dict[str, Any]]:
    """Time both on one folder; validate.py's warm-up batch counts as images too."""
    root = folder / name / 'contrast'
    for severity in SEVERITIES:
        write_images(root / str(severity), images // len(SEVERITIES), SIZE)
    model: Any = timm.create_model(name, num_classes=CLASSES).eval().to(args.device)
    options = validate.parser.parse_args([
        str(root), '--model', name, '--num-classes', str(CLASSES), '--batch-size', str(BATCH_SIZE), '--workers', '0',
        '--device', args.device, '--input-size', '3', str(SIZE), str(SIZE), '--crop-pct', '1.0'])
    validate.create_model = lambda *_, **__: model  # made once: its time is not the loop's
    classify = classifier(model, args.device)

    def ours() -> None:
        evaluate({name: classify}, imagenet_c=folder / name, protocol='imagenet-c', corruptions=['contrast'],
                 batch_size=BATCH_SIZE, device=args.device)
    seconds = args.measure({
        'validate.py': lambda: validate.validate(copy.deepcopy(options)), 'timm_assemble.robustness': ours})
    per_image = {'validate.py': [s / (images + BATCH_SIZE) for s in seconds['validate.py']],
                 'timm_assemble.robustness': [s / images for s in seconds['timm_assemble.robustness']]}
    group = f'One JPEG of {SIZE}, {name}, batch size {BATCH_SIZE}, no workers'
    rows = [make_row(group, 'validate.py', per_image),
            make_row(group, 'timm_assemble.robustness', per_image, 'validate.py', 'speed', BOUND)]
    return [dict(row, details={'images': images, 'images/s': 1 / row['median_s']}) for row in rows]


def sharing_rows(folder: Path, args: Any) -> List[Dict[str, Any]]:
    """Time generated corruptions for one model and for three, which share each corrupted image."""
    images, corruptions = (CLASSES, SHARED[:1]) if args.short else (SHARED_IMAGES, SHARED)
    write_images(folder / 'clean', images, GENERATED)
    models = {f'model {i}': classifier(timm.create_model(
        'test_assemble_resnet', num_classes=CLASSES).eval().to(args.device), args.device) for i in range(3)}

    def case(count: int) -> Callable[[], Any]:
        return lambda: evaluate(dict([*models.items()][:count]), generate=folder / 'clean', corruptions=corruptions,
                                batch_size=BATCH_SIZE, device=args.device)
    seconds = args.measure({'one model': case(1), 'three models': case(3)})
    group = f'{images} images of {GENERATED}, {", ".join(corruptions)} at 5 severities, test_assemble_resnet'
    return [make_row(group, name, seconds, None if name == 'one model' else 'one model') for name in seconds]


def generation_rows(folder: Path, args: Any) -> List[Dict[str, Any]]:
    """Time each corruption, mean over severities, beside a model's forward pass."""
    write_images(folder / 'one', 1, GENERATED)
    pixels = np.asarray(Image.open(folder / 'one' / 'class0' / '0.JPEG'))
    model: Any = timm.create_model('assemble_resnet50').eval().to(args.device)
    batch = torch.randn(4, 3, GENERATED, GENERATED, device=args.device)

    def case(name: str) -> Callable[[], Any]:
        return lambda: [corrupt(pixels, name, severity, 0) for severity in SEVERITIES]
    # in the warm-up rounds, glass_blur is compiled
    seconds = args.measure({REFERENCE: lambda: torch.inference_mode()(model)(batch),
                            **{name: case(name) for name in ALEXNET_ERROR}})
    each = {name: [s / (len(batch) if name == REFERENCE else len(SEVERITIES)) for s in values]
            for name, values in seconds.items()}
    each['mean of the 19'] = [sum(part) / len(ALEXNET_ERROR) for part in zip(*(each[name] for name in ALEXNET_ERROR))]
    group = f'One image of {GENERATED}, corrupted, mean over severities'
    return [make_row(group, name, each, None if name == REFERENCE else REFERENCE) for name in each]


def main() -> int:
    """Measure, print and write; the exit status says whether the bounds hold."""
    args = parse_args('robustness', QUESTION, rounds=9)
    sys.path.insert(0, os.environ['TIMM_SCRIPTS'])
    validate: Any = importlib.import_module('validate')
    logging.disable(logging.INFO)
    rows: List[Dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, images in list(MODELS.items())[:1 if args.short else None]:
            rows += loop_rows(model, images, folder, validate, args)
        rows += sharing_rows(folder, args) + generation_rows(folder, args)
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
