"""The command line, ``timm-assemble``: the one place that knows all parts, each imported when it is asked for.

Bad use is one line and exit status 2. A part's ValueError, and a file that cannot be read or written, are the user's to
mend, and told the same way.
"""
import argparse
import ast
import sys
from pathlib import Path
from typing import Any, List, NoReturn, Optional, Tuple


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message}\n')


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number from 1, got {text!r}')
    return int(text)


def _demo(args: argparse.Namespace) -> None:
    import timm

    if not timm.is_model(args.model):
        raise ValueError(f'--model must be a model name that timm knows, got {args.model!r}')
    try:
        from . import demo
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401
    except ModuleNotFoundError as e:
        raise ValueError(f"the demo needs {e.name}: pip install 'timm-assemble[demo]'") from e
    demo.run(args.model, args.output, args.epochs, args.seed)


def _push(args: argparse.Namespace) -> None:
    from . import hub

    publication = hub.prepare(args.path, args.repo, args.revision)
    print(publication.describe(), flush=True)
    if args.dry_run:
        print('dry run: nothing was sent; the same command without --dry-run sends it')
        return
    print(f'published: {hub.push(publication, args.private)}\n'
          f"load it with: import timm, timm_assemble; timm.create_model('{publication.source}', pretrained=True)")


def _model_kwargs(text: str) -> Tuple[str, Any]:
    key, equals, value = text.partition('=')
    if not (key and equals):
        raise argparse.ArgumentTypeError(f'must be KEY=VALUE, got {text!r}')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value  # a word without quotes


def _convert(args: argparse.Namespace) -> None:
    import signal

    from . import convert
    from .accuracy import measure_accuracy, read_class_map
    from .model_card import Result
    from .new_folder import check_new_folder

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # clean up, as after an interrupt
    prefix = convert.find_checkpoint(args.checkpoint)
    check_new_folder(args.output, args.force)
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='timm-assemble', description='Assemble-ResNet for timm.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    demo = commands.add_parser(
        'demo', help='train on handwritten digits, save, read back, classify',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    demo.add_argument('--model', default='assemble_resnet50', help='name of the model to train')
    demo.add_argument('--output', type=Path, default=Path('demo-output'), help='folder for all that is made')
    demo.add_argument('--epochs', type=_positive, default=5, help='passes over the training pictures')
    demo.add_argument('--seed', type=int, default=0, help='of weights, order and augmentation')
    demo.set_defaults(run=_demo)
    push = commands.add_parser(
        'push', help='publish a model on the Hugging Face Hub',
        description="A folder in the Hub's form is sent as it is, its card made to name REPO. Of a checkpoint of "
                    "timm's train.py such a folder is made first, beside it and named as the repository, of the EMA "
                    'weights if there are.')
    push.add_argument('path', type=Path, metavar='FOLDER_OR_CHECKPOINT',
                      help="folder with config.json and model.safetensors, or train.py's model_best.pth.tar")
    push.add_argument('repo', metavar='REPO', help='user/name on the Hub, made if it is missing')
    push.add_argument('--private', action='store_true', help='make the repository private')
    push.add_argument('--revision', metavar='BRANCH', help='branch to send to, made if it is missing (default: main)')
    push.add_argument('--dry-run', action='store_true', help='write the folder and print what would go; send nothing')
    push.set_defaults(run=_push)
    convert = commands.add_parser(
        'convert', help='official TensorFlow checkpoint to a folder that timm loads',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    convert.add_argument('checkpoint', type=Path, metavar='CHECKPOINT',
                         help='prefix of a TensorFlow 1 checkpoint, its .index file, or its folder: the newest there')
    convert.add_argument('output', type=Path, metavar='OUTPUT', help='folder to make, in the form of the Hub')
    convert.add_argument('--model', help='registered model, where the nearest to the checkpoint is not meant')
    convert.add_argument('--model-kwargs', type=_model_kwargs, nargs='+', default=[], metavar='KEY=VALUE',
                         help='constructor arguments, such as global_pool=gem, which no checkpoint shows')
    convert.add_argument('--keep-classes', action='store_true', help='keep 1001 classes, the first is "background"')
    convert.add_argument('--verify', type=Path, metavar='DIR',
                         help='measure top-1 and top-5 on a folder of pictures, a folder a class')
    convert.add_argument('--force', action='store_true', help='replace OUTPUT if it is the folder of a model')
    convert.set_defaults(run=_convert)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command; gives the exit status."""
    import timm_assemble  # noqa: F401  registers the models

    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as e:
        print(f'timm-assemble: {e}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
