"""``timm-assemble convert``."""
import argparse
import sys
from pathlib import Path

from .arguments import key_value

HELP = 'official TensorFlow checkpoint to a folder that timm loads'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('checkpoint', type=Path, metavar='CHECKPOINT',
                        help='prefix of a TensorFlow 1 checkpoint, its .index file, or its folder: the newest there')
    parser.add_argument('output', type=Path, metavar='OUTPUT', help='folder to make, in the form of the Hub')
    parser.add_argument('--model', help='registered model, where the nearest to the checkpoint is not meant')
    parser.add_argument('--model-kwargs', type=key_value, nargs='+', default=[], metavar='KEY=VALUE',
                        help='constructor arguments, such as global_pool=gem, which no checkpoint shows')
    parser.add_argument('--keep-classes', action='store_true', help='keep 1001 classes, the first is "background"')
    parser.add_argument('--verify', type=Path, metavar='DIR',
                        help='measure top-1 and top-5 on a folder of pictures, a folder a class')
    parser.add_argument('--force', action='store_true', help='replace OUTPUT if it is the folder of a model')


def run(args: argparse.Namespace) -> None:
    import signal

    from .. import convert
    from ..hub.model_card import Result
    from ..utils.accuracy import measure_accuracy, read_class_map
    from ..utils.atomic import check_output_folder

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after an interrupt
    prefix = convert.find_checkpoint(args.checkpoint)
    check_output_folder(args.output, args.force)
    if args.output.resolve() in prefix.resolve().parents:
        raise ValueError(f'OUTPUT must not be a folder that CHECKPOINT lies in, got {args.output}')
    done = convert.convert(
        convert.open_checkpoint(prefix), args.model, dict(args.model_kwargs), keep_classes=args.keep_classes)
    print(done.summary(), flush=True)
    results = []
    if args.verify is not None:
        class_map = read_class_map(args.verify, done.model.num_classes)
        measured = measure_accuracy(done.model, args.verify, class_map)
        print(measured.describe(done.variant.name if not set(done.variant.model_args) - {'num_classes'} else ''),
              flush=True)
        results = [Result(metric, value, measured.protocol, 'timm-assemble convert CHECKPOINT OUTPUT --verify DIR',
                          'imagenet-1k' if measured.imagenet else '')
                   for metric, value in (('top-1', measured.top1), ('top-5', measured.top5))]
    convert.write(done, args.output, args.force, results)
    print(f"written: {args.output}; load it with create_model('local-dir:{args.output}', pretrained=True)")
