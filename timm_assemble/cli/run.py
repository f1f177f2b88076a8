"""``timm-assemble run``."""
import argparse
import sys
from typing import List, Tuple

from ..errors import UserError
from .arguments import path

HELP = "run another of timm's scripts with this package's models: validate.py, benchmark.py, ..."


def split_arguments(argv: List[str]) -> Tuple[List[str], List[str]]:
    """Split off the script, which comes first; the rest is passed on as it is."""
    first = 2 if argv[:1] == ['--script'] else 1
    return argv[:first], argv[first:]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..timm_scripts.locate import SCRIPTS

    parser.usage = 'timm-assemble run [-h] {SCRIPT | --script FILE} [ARGUMENT ...]'
    parser.description = (
        "Runs one of timm's scripts, which cannot import this package by themselves. Every ARGUMENT is passed on to "
        'it, --help too. The script comes from the folder in the environment variable TIMM_SCRIPTS, or from the '
        'version of timm that is installed, whose scripts are cloned once into the cache.')
    parser.epilog = (
        'Example: timm-assemble run validate.py --model assemble_resnet50 --checkpoint model_best.pth.tar '
        '--data-dir /imagenet')
    parser.add_argument('name', nargs='?', metavar='SCRIPT',
                        help=f'{", ".join(SCRIPTS[1:])}, with or without .py')
    parser.add_argument('--script', type=path, metavar='FILE', help='another script')


def run(args: argparse.Namespace) -> None:
    from ..timm_scripts.launch import run_script
    from ..timm_scripts.locate import SCRIPTS, find_script

    name = (args.name or '').removesuffix('.py')
    if args.script is None and name == 'train':
        raise UserError('SCRIPT must be another script, got train.py, which `timm-assemble train` runs')
    if args.script is None and name not in SCRIPTS:
        raise UserError(f'SCRIPT must be one of {", ".join(SCRIPTS[1:])}, got {args.name or "none"}')
    script = find_script(name, args.script)
    if name == 'validate':
        print("timm-assemble: validate.py uses timm's transform; top-1 was published with the official one, which "
              '`convert --verify` has', file=sys.stderr)
    run_script(script, args.passed)
