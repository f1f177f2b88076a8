"""``timm-assemble train``."""
import argparse
from pathlib import Path
from typing import List, Tuple

from .arguments import take_options

HELP = "run timm's train.py, with the recipes, the DropBlock schedule and stored teachers"


def split_arguments(argv: List[str]) -> Tuple[List[str], List[str]]:
    """The arguments that are ours, and those that go on to train.py as they are."""
    return take_options(argv, flags=('-h', '--help', '--script-help'), with_value=('--script',))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = 'timm-assemble train [-h] [--script FILE] [--script-help] [-c NAME_OR_FILE] [ARGUMENT ...]'
    parser.description = (
        "Runs timm's train.py, with timm_assemble.train_hook added to its --device-modules. Every other ARGUMENT is "
        "train.py's and goes on to it. train.py is the file of --script; else that in the folder of the environment "
        'variable TIMM_SCRIPTS; else that of the installed timm, cloned once into the cache.')
    parser.epilog = (
        'Example: torchrun --nproc-per-node 8 -m timm_assemble train -c assemble_resnet50 --data-dir /imagenet')
    parser.add_argument('--script', type=Path, metavar='FILE', help='a train.py of your own, of timm 1.0.25 or newer')
    parser.add_argument('--script-help', action='store_true', help="print train.py's own help and stop")
    own = parser.add_argument_group("train.py's argument that means more here")
    own.add_argument('-c', '--config', metavar='NAME_OR_FILE',
                     help='a YAML file of its arguments, or a recipe of `timm-assemble recipes`')


def run(args: argparse.Namespace) -> None:
    from ..timm_scripts.bind import NEEDED
    from ..timm_scripts.launch import check_config, check_names, run_script, train_arguments
    from ..timm_scripts.locate import find_script

    arguments = ['--help'] if args.script_help else train_arguments(args.passed)
    script = find_script('train', args.script)
    if not args.script_help:
        check_names(script, NEEDED)
        check_config(script, arguments)
    run_script(script, arguments)
