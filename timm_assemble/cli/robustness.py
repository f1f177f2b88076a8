"""``timm-assemble robustness``."""
import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Tuple

from ..errors import UserError
from .arguments import MODEL_HELP, non_negative, positive


def _folder(text: str) -> Tuple[str, Path]:
    """Parse ``NAME=DIR``."""
    name, equals, folder = text.partition('=')
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f'must be NAME=DIR, got {text!r}')
    return name, Path(folder)


HELP = 'mCE, mFR, calibration and shift consistency of any models of timm'
PARAMETERS = {'model': 'MODEL'}  # what loading calls one of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Measure models on corrupted images, perturbation sequences and shifted crops, by a named protocol; write '
        'results.json, results.csv and robustness.png. Finished tasks are cached: the same command continues where it '
        'stopped.')
    add = parser.add_argument
    add('models', nargs='*', metavar='MODEL', help=MODEL_HELP)
    add('--merge', nargs='+', default=[], metavar='DIR',
        help='outputs of finished runs, whose models come into one table and plot; nothing is measured')
    data = parser.add_argument_group('images, one or more')
    data.add_argument('--imagenet-c', type=Path, metavar='DIR', help='corruption/severity/class/*.JPEG, as published')
    data.add_argument('--imagenet-p', type=Path, metavar='DIR', help='perturbation/class/*.mp4, as published')
    data.add_argument('--generate', type=Path, metavar='DIR',
                      help='class/*: clean images, whose corruptions are generated on the fly')
    data.add_argument('--clean', type=Path, metavar='DIR', help='class/*: the clean images of --imagenet-c')
    data.add_argument('--test-sets', type=_folder, nargs='+', default=[], metavar='NAME=DIR',
                      help='other images of the classes: imagenet-a, imagenet-r, imagenet-sketch, '
                           'imagenetv2-matched-frequency, objectnet, or any name')
    data.add_argument('--ood', type=_folder, nargs='+', default=[], metavar='NAME=DIR',
                      help='images of none of the classes, to tell from the clean ones: imagenet-o, or any name')
    add('--protocol', choices=('imagenet-c', 'assemble', 'imagenet-c-bar', 'imagenet-3dcc'),
        help='15 corruptions at 224, 19 at 256, or the trees of this name for --imagenet-c (default: imagenet-c; with '
             '--generate assemble)')
    add('--baseline', metavar='MODEL',
        help='the one of the models, or one more, that errors are relative to (default: AlexNet on ImageNet, else '
             'none)')
    add('--corruptions', nargs='+', metavar='NAME', help='measure only these; then there is no mCE')
    add('--input-size', type=positive, metavar='N', help="side of the models' input in pixels (default: protocol's)")
    add('--shift', type=positive, metavar='N', help='measure shift consistency, of crops at most N pixels apart')
    add('--seed', type=int, help='of generated corruptions and crops (default: 0)')
    add('--output', type=Path, default=Path('robustness-output'), metavar='DIR',
        help='folder for results and the cache (default: robustness-output)')
    add('--cache', type=Path, metavar='DIR',
        help='folder of finished tasks, which several outputs may share (default: cache in --output)')
    add('--keep-predictions', action='store_true',
        help='write the predictions of every image, intervals of all metrics, comparisons of models, temperature '
             'scaling and accuracy by class')
    add('--strict', action='store_true',
        help='read every file first, and end if one cannot be read (default: leave it out of every condition)')
    add('--batch-size', type=positive, default=64, metavar='N', help='images per batch (default: 64)')
    workers = min(4, os.cpu_count() or 1)
    add('--workers', type=non_negative, default=workers, metavar='N',
        help=f'processes that read and corrupt images; they change no metric (default here: {workers})')
    add('--device', help='where the models run (default: cuda if there is one, else cpu)')
    add('--amp', action='store_true', help='mixed precision: float16 on CUDA, else bfloat16')


def run(args: argparse.Namespace) -> None:
    from ..evaluation.image_files import unreadable_line
    from ..robustness import evaluate, merge
    from ..runtime.ranks import Ranks

    command = shlex.join(['timm-assemble', *sys.argv[1:]])
    if args.merge:
        if args.models:
            raise UserError('merge takes finished runs, and no `models`')
        merged = merge(args.merge, command)
        merged.write(args.output)
        print(f'{merged.tables()}\n\nwritten: {args.output}: {", ".join(sorted(os.listdir(args.output)))}')
        return
    if not args.models:
        raise UserError('models must be at least one, or `merge` given')
    options = {key: value for key, value in vars(args).items() if key not in ('command', 'options', 'passed', 'merge')}
    for name in ('test_sets', 'ood'):
        if len(dict(options[name])) < len(options[name]):
            raise UserError(f'{name} must have distinct names, got {", ".join(name for name, _ in options[name])}')
        options[name] = dict(options[name])
    results = evaluate(**options, progress=True, command=command)
    if Ranks().rank == 0:
        print(f'{results.tables()}\n\nwritten: {args.output}: {", ".join(sorted(os.listdir(args.output)))}')
    if results.unreadable:
        raise UserError(f'{unreadable_line(results.unreadable, ", and are left out of every condition")}; the results '
                         f'are of the others')
