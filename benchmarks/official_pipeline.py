"""Speed of the official data pipeline beside timm's: ``python -m benchmarks.official_pipeline``."""
import random
import sys
from typing import Any, Callable, Dict, List

import numpy as np
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import auto_augment_transform

from timm_assemble.data.official import AutoAugment, evaluation_transform, training_crop

from .harness.cli import finish, parse_args
from .harness.measure import make_row

QUESTION = 'How fast is the official data pipeline beside the transforms of timm?'
MEANS = tuple(value / 255 for value in (123.68, 116.78, 103.94))


def make_image(width: int, height: int) -> Image.Image:
    """Return smooth noise, which has every color as a photo does."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def repeated(transform: Callable[[Image.Image], Any], image: Image.Image, count: int) -> Callable[[], None]:
    """Return a function that transforms the image with the same draws at each call."""
    def run() -> None:
        random.seed(0)
        for _ in range(count):
            transform(image)
    return run


def main() -> int:
    """Measure, print and write the results."""
    args = parse_args('official_pipeline', QUESTION, rounds=15)
    count, photo, crop = 50 if args.short else 500, make_image(640, 427), make_image(256, 256)
    timm_train = create_transform(
        256, is_training=True, use_prefetcher=True, scale=(0.05, 1), ratio=(0.75, 1.33), color_jitter=0,
        interpolation='bilinear', auto_augment='original', mean=MEANS)
    crop_official, augment = training_crop(256), AutoAugment('imagenet')
    groups: List[Any] = [
        (f'AutoAugment, 256 x 256, {count} draws', crop, count, 'timm, original', 0.7, {
            'timm, original': auto_augment_transform(
                'original', {'translate_const': 115, 'interpolation': Image.Resampling.BILINEAR}),
            'official, imagenet': augment, 'official, good': AutoAugment('good')}),
        (f'Training, 427 x 640 to 256 x 256, {count} draws', photo, count, 'timm, original', None, {
            'timm, original': timm_train, 'official, imagenet': lambda image: augment(crop_official(image))}),
        ('Evaluation, 427 x 640 to 256 x 256', photo, 10, "timm, Pillow's resize", 0.5, {
            "timm, Pillow's resize": create_transform(
                256, interpolation='bilinear', crop_pct=0.875, mean=MEANS, std=(1 / 255,) * 3),
            'official': evaluation_transform(256)})]
    rows: List[Dict[str, Any]] = []
    for group, image, draws, reference, bound, cases in groups:
        seconds = args.measure({name: repeated(transform, image, draws) for name, transform in cases.items()})
        for name in cases:
            row = make_row(group, name, seconds, None if name == reference else reference, 'speed',
                           None if name == reference else bound)
            row['details'] = {'images/s': draws / row['median_s']}
            rows.append(row)
    return finish(args, QUESTION, rows)


if __name__ == '__main__':
    sys.exit(main())
