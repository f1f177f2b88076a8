"""``timm-assemble demo``."""
import argparse
from pathlib import Path

from .arguments import positive

HELP = 'train on handwritten digits, save, read back, classify'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument('--model', default='assemble_resnet50', help='name of the model to train')
    parser.add_argument('--output', type=Path, default=Path('demo-output'), help='folder for all that is made')
    parser.add_argument('--epochs', type=positive, default=5, help='passes over the training pictures')
    parser.add_argument('--seed', type=int, default=0, help='of weights, order and augmentation')


def run(args: argparse.Namespace) -> None:
    import timm

    if not timm.is_model(args.model):
        raise ValueError(f'--model must be a model name that timm knows, got {args.model!r}')
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401

        from ..examples import digits as demo
    except ModuleNotFoundError as e:
        raise ValueError(f"the demo needs {e.name}: pip install 'timm-assemble[demo]'") from e
    demo.run(args.model, args.output, args.epochs, args.seed)
