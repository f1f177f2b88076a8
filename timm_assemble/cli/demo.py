"""``timm-assemble demo``."""
import argparse
from pathlib import Path

from ..errors import UserError, install_extra
from .arguments import non_negative, path, positive

HELP = 'train on handwritten digits, save, read back, classify'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('--model', default='assemble_resnet50', help="one of this package's models")
    parser.add_argument('--output', type=path, default=Path('demo-output'), help='folder for everything it writes')
    parser.add_argument('--epochs', type=positive, default=5, help='number of epochs')
    parser.add_argument('--seed', type=non_negative, default=0, help='of weights, order and augmentation')


def run(args: argparse.Namespace) -> None:
    from ..models.family import registered_models

    names = registered_models()
    if args.model not in names:
        raise UserError(f'model must be one of {", ".join(names)}, got {args.model!r}')
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401

        from ..examples import digits
    except ModuleNotFoundError as e:
        raise UserError(f'the demo needs {e.name}: {install_extra("demo")}') from e
    command = f'timm-assemble demo --model {args.model} --epochs {args.epochs} --seed {args.seed}'
    digits.run(args.model, args.output, args.epochs, args.seed, command)
