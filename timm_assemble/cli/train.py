"""``timm-assemble train``."""
import argparse
from typing import List, Tuple

from .arguments import path, take_options

HELP = "run timm's train.py, with the recipes, the DropBlock schedule and stored teacher logits"


def split_arguments(argv: List[str]) -> Tuple[List[str], List[str]]:
    """Split off this command's own arguments; train.py gets the others as they are."""
    return take_options(argv, flags=('-h', '--help', '--script-help'), with_value=('--script',))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = 'timm-assemble train [-h] [--script FILE] [--script-help] [-c NAME_OR_FILE] [ARGUMENT ...]'
    parser.description = (
        "Runs timm's train.py with timm_assemble.train_hook among its --device-modules. Every other ARGUMENT is passed "
        'on to train.py. train.py comes from --script, from the folder in the environment variable TIMM_SCRIPTS, or '
        'from the version of timm that is installed, whose scripts are cloned once into the cache.')
    parser.epilog = (
        'Example: torchrun --nproc-per-node 8 -m timm_assemble train -c assemble_resnet50 --data-dir /imagenet')
    parser.add_argument('--script', type=path, metavar='FILE', help='another train.py, of timm 1.0.25 or newer')
    parser.add_argument('--script-help', action='store_true', help="print train.py's own help and exit")
    own = parser.add_argument_group("train.py's argument with more values")
    own.add_argument('-c', '--config', metavar='NAME_OR_FILE',
                     help='YAML file of its arguments, or a recipe of `timm-assemble recipes`')


def run(args: argparse.Namespace) -> None:
    from ..timm_scripts.launch import run_script, train_arguments
    from ..timm_scripts.locate import find_script

    arguments = ['--help'] if args.script_help else train_arguments(args.passed)
    run_script(find_script('train', args.script), arguments)
