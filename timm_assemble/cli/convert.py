"""``timm-assemble convert``."""
import argparse
import os
import sys
from typing import Any, List

from ..errors import UserError
from .arguments import key_value, path

HELP = 'convert an official TensorFlow checkpoint to a folder that timm loads'
PARAMETERS = {
    'name': '--model', 'model_args': '--model-kwargs', 'shapes': 'CHECKPOINT', 'variables': 'CHECKPOINT',
    'prefix': 'CHECKPOINT'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('checkpoint', type=path, metavar='CHECKPOINT',
                        help='prefix of a TensorFlow 1 checkpoint, its .index file, or a folder, for its newest one')
    parser.add_argument('output', type=path, metavar='OUTPUT', help='folder to create, in Hugging Face format')
    parser.add_argument('--model', help='registered model, instead of the nearest to the checkpoint')
    parser.add_argument('--model-kwargs', type=key_value, nargs='+', default=[], metavar='KEY=VALUE',
                        help='constructor arguments that no checkpoint has, such as global_pool=gem')
    parser.add_argument('--moving-averages', action='store_true',
                        help='take the moving averages of the variables, which a checkpoint may have beside them')
    parser.add_argument('--keep-classes', action='store_true', help='keep 1001 classes; the first is "background"')
    parser.add_argument('--verify', type=path, metavar='DIR',
                        help='measure top-1 and top-5 on a folder with one folder of images per class, by the official '
                             "transform and by timm's")
    parser.add_argument('--force', action='store_true', help='replace OUTPUT if it is the folder of a model')


def _published(variant: Any, accuracy: Any) -> str:
    """Return the paper's top-1 if the model is registered and the images are ImageNet's, else an empty string."""
    from ..recipes.paper import rows_of, span

    if not accuracy.imagenet or set(variant.model_args) - {'num_classes'}:
        return ''
    top1 = span([f'{row.top1:.2f}' for row in rows_of(variant.name)])
    return top1 and f"; published, by this transform: top-1 {top1} % on the 50000 of ImageNet's validation"


def run(args: argparse.Namespace) -> None:
    import signal

    from .. import convert
    from ..data.accuracy import measure_accuracy
    from ..hub.model_card import Result
    from ..runtime.atomic import check_output_folder

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after an interrupt
    prefix = convert.find_checkpoint(args.checkpoint)
    check_output_folder(args.output, args.force)
    if args.output.resolve() in prefix.resolve().parents:
        raise UserError(f'output must not be a folder that contains `checkpoint`, got {args.output}')
    if "'" in args.output.name or not args.output.name.isprintable():
        raise UserError(f'output must have a name without quotes and control characters, got {str(args.output)!r}')
    conversion = convert.convert(
        convert.open_checkpoint(prefix, args.moving_averages), args.model, dict(args.model_kwargs),
        keep_classes=args.keep_classes)
    print(conversion.summary(), flush=True)
    results: List[Result] = []
    if args.verify is not None:
        for official in (True, False) if conversion.variant.inferred.in_chans == 3 else (False,):
            accuracy = measure_accuracy(
                conversion.model, args.verify, 'verify', official=official, workers=min(4, os.cpu_count() or 1))
            for line in accuracy.unreadable if not results else ():
                print(f'skipped: {line}', file=sys.stderr)
            print(f'{accuracy}{_published(conversion.variant, accuracy) if official else ""}', flush=True)
            dataset = 'imagenet-1k' if official and accuracy.imagenet else ''  # one of the two for the card's header
            results += [Result(metric, value, accuracy.protocol, 'timm-assemble convert CHECKPOINT OUTPUT --verify DIR',
                               dataset) for metric, value in (('top-1', accuracy.top1), ('top-5', accuracy.top5))]
    convert.write(conversion, args.output, args.force, results)
    print(f"written: {args.output}; load it with create_model('local-dir:{args.output}', pretrained=True)")
