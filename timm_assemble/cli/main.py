"""The command line, ``timm-assemble``: it and its commands are the one place that knows all parts.

Bad use is one line and exit status 2. A part's ValueError, and a file that cannot be read or written, are the user's to
mend, and told the same way.
"""
import argparse
import sys
from typing import List, NoReturn, Optional

from . import convert, demo, export, push, recipes, robustness, run, teacher_logits, train

COMMANDS = {
    'demo': demo, 'recipes': recipes, 'teacher-logits': teacher_logits, 'train': train, 'run': run, 'convert': convert,
    'push': push, 'robustness': robustness, 'export': export}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message}\n')


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='timm-assemble', description='Assemble-ResNet for timm.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command; gives the exit status."""
    import timm_assemble  # noqa: F401  registers the models

    argv, passed = list(sys.argv[1:] if argv is None else argv), []
    split = getattr(COMMANDS.get(argv[0]), 'split_arguments', None) if argv else None
    if split is not None:  # the rest belongs to a script of timm's
        own, passed = split(argv[1:])
        argv = [argv[0], *own]
    args = _parser().parse_args(argv)
    args.passed = passed
    try:
        args.run(args)
    except (ValueError, OSError) as e:
        print(f'timm-assemble: {e}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0

