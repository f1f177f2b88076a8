"""How fast is the robustness evaluation, beside timm's validate.py?

``TIMM_SCRIPTS=FOLDER python -m benchmarks.robustness``, with the folder of timm's scripts. Write JPEGs in ImageNet-C's
layout, classify them by both with one model and batch size in this process, then time corruptions for one model and for
three, and each corruption.
"""
import copy
import importlib.util
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
from timm_assemble.data import Preprocessing
from timm_assemble.evaluation.engine import Loading, TaskCache, run_tasks
from timm_assemble.evaluation.models import from_pixels
from timm_assemble.robustness.corruptions import corrupt, warm_up
from timm_assemble.robustness.metrics import ALEXNET_ERROR, SEVERITIES
from timm_assemble.robustness.plan import RobustnessOptions, make_plan
from timm_assemble.robustness.tasks import Classifier

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How fast is the robustness evaluation?'
BOUND = 0.9  # of validate.py's images/s
BATCH_SIZE = 16
MODELS = {'test_assemble_resnet': 256, 'resnet18': 64}  # the first is nearly free: what is left is the loop
SIZE = 224
GENERATED = 256
SHARED = ('shot_noise', 'motion_blur', 'brightness')  # about as costly as the mean of all
SHARED_IMAGES = 8
REFERENCE = 'assemble_resnet50 classifies it'


def synthetic_image(side: int, seed: int) -> Image.Image:
    """Return an image as hard to decode as a photograph: noise of several scales."""
    rng = np.random.RandomState(seed)
    total = np.zeros((side, side, 3))
    for cells in (4, 16, 64, side):
        noise = Image.fromarray(rng.randint(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC)) / (1 + cells / 16)
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


def load_validate() -> Any:
    """Import timm's validate.py."""
    path = Path(os.environ.get('TIMM_SCRIPTS', '')) / 'validate.py'
    if not path.is_file():
        print('python -m benchmarks.robustness: error: TIMM_SCRIPTS must be the folder of validate.py', file=sys.stderr)
        sys.exit(2)
    spec = importlib.util.spec_from_file_location('validate', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    logging.disable(logging.INFO)
    return module


def loop_rows(name: str, images: int, folder: Path, validate: Any, args: Any) -> List[Dict[str, Any]]:
    """Time both on one folder; validate.py's warm-up batch counts as images too."""
    root = folder / name / 'contrast'
    for severity in SEVERITIES:
        for i in range(images if severity == 1 else 1):
            path = root / str(severity) / f'class{i % 4}' / f'{i}.JPEG'
            path.parent.mkdir(parents=True, exist_ok=True)
            synthetic_image(SIZE, i).save(path, quality=85)
    for severity in SEVERITIES[1:]:  # as large as the first, which alone is measured
        (root / str(severity)).rename(root / f'not {severity}')
        os.symlink(root / '1', root / str(severity))
    model: Any = timm.create_model(name).eval()
    options = validate.parser.parse_args([
        str(root / '1'), '--model', name, '--batch-size', str(BATCH_SIZE), '--workers', '0', '--device', args.device,
        '--input-size', '3', str(SIZE), str(SIZE), '--crop-pct', '1.0'])
    validate.create_model = lambda *_, **__: model  # made once: its time is not the loop's
    device = torch.device(args.device)
    compute = from_pixels(model, Preprocessing.of_model(model).with_size((SIZE, SIZE)), device)
    classifier = Classifier(label=name, compute=compute, identity={}, is_callable=False)
    [task, *_] = make_plan(RobustnessOptions(imagenet_c=folder / name, corruptions=('contrast',))).tasks
    loading = Loading(BATCH_SIZE, 0, device)
    errors: List[float] = []

    def ours() -> None:
        with tempfile.TemporaryDirectory() as cache_folder:
            cache = TaskCache(Path(cache_folder))
            run_tasks([task], [classifier], cache, loading)
            errors.append(100 * float((~cache.expect(task, classifier).records['hit1']).mean()))

    def theirs() -> None:
        result = validate.validate(copy.deepcopy(options))
        assert abs(result['top1_err'] - errors[-1]) < 1e-3 if errors else True, (result, errors[-1])
    seconds = args.measure({'validate.py': theirs, 'timm_assemble.robustness': ours})
    per_image = {'validate.py': [s / (images + BATCH_SIZE) for s in seconds['validate.py']],
                 'timm_assemble.robustness': [s / images for s in seconds['timm_assemble.robustness']]}
    group = f'One JPEG of {SIZE}, {name}, batch size {BATCH_SIZE}, no workers'
    rows = []
    for case in per_image:
        row = make_row(group, case, per_image, *(() if case == 'validate.py' else ('validate.py', 'speed', BOUND)))
        row['details'] = {'images': images, 'images/s': 1 / row['median_s']}
        rows.append(row)
    return rows


def generation_rows(args: Any) -> List[Dict[str, Any]]:
    """Time each corruption, mean over severities, beside a model's forward pass."""
    pixels = np.asarray(synthetic_image(GENERATED, 0))
    model: Any = timm.create_model('assemble_resnet50').eval().to(args.device)
    batch = torch.randn(4, 3, GENERATED, GENERATED, device=args.device)

    def classify() -> None:
        with torch.inference_mode():
            model(batch)

    def case(name: str) -> Callable[[], None]:
        def call() -> None:
            for severity in SEVERITIES:
                corrupt(pixels, name, severity, 0)
        return call
    for severity in SEVERITIES:
        warm_up('glass_blur', severity)
    seconds = args.measure({REFERENCE: classify, **{name: case(name) for name in ALEXNET_ERROR}})
    each = {REFERENCE: [s / 4 for s in seconds[REFERENCE]],
            **{name: [s / len(SEVERITIES) for s in seconds[name]] for name in ALEXNET_ERROR}}
    each['mean of the 19'] = [sum(part) / len(ALEXNET_ERROR) for part in zip(*(each[name] for name in ALEXNET_ERROR))]
    group = f'One image of {GENERATED}, corrupted, mean over severities'
    return [make_row(group, name, each, None if name == REFERENCE else REFERENCE) for name in each]


def sharing_rows(folder: Path, args: Any) -> List[Dict[str, Any]]:
    """Time generated corruptions for one model and for three, which share each corrupted image."""
    images, corruptions = (2, SHARED[:1]) if args.short else (SHARED_IMAGES, SHARED)
    for i in range(images):
        path = folder / 'clean' / f'class{i % 4}' / f'{i}.JPEG'
        path.parent.mkdir(parents=True, exist_ok=True)
        synthetic_image(GENERATED, i).save(path, quality=85)
    device = torch.device(args.device)
    plan = make_plan(RobustnessOptions(generate=folder / 'clean', corruptions=corruptions))
    [_, *tasks] = plan.tasks
    models = []
    for i in range(3):
        model: Any = timm.create_model('test_assemble_resnet').eval()
        compute = from_pixels(model, Preprocessing.of_model(model).with_size(plan.size), device)
        models.append(Classifier(label=f'model {i}', compute=compute, identity=dict(number=i), is_callable=False))

    def case(count: int) -> Callable[[], None]:
        def call() -> None:
            with tempfile.TemporaryDirectory() as cache_folder:
                run_tasks(tasks, models[:count], TaskCache(Path(cache_folder)), Loading(BATCH_SIZE, 0, device))
        return call
    seconds = args.measure({'one model': case(1), 'three models': case(3)})
    group = f'{images} images of {GENERATED}, {", ".join(corruptions)} at 5 severities, test_assemble_resnet'
    return [make_row(group, name, seconds, None if name == 'one model' else 'one model') for name in seconds]


def main() -> int:
    """Measure, print and write; the exit status says whether the bounds hold."""
    args = parse_args('robustness', QUESTION, rounds=9)
    validate = load_validate()
    rows: List[Dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, images in list(MODELS.items())[:1 if args.short else None]:
            rows += loop_rows(name, images, Path(folder), validate, args)
        rows += sharing_rows(Path(folder), args)
    rows += generation_rows(args)
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
