"""The parser and the exit status of ``timm-assemble``; one module a command.

A user's mistake is one line on standard error and exit status 2: a UserError of the library, whose parameter becomes
the option, or an error of the operating system on a path that was given. So are warnings. Any other exception is a bug,
and shows its traceback.
"""
import argparse
import os
import sys
import warnings
from typing import Any, List, NoReturn, Optional

from .. import __version__
from ..data.images import printable
from ..errors import UserError
from . import convert, demo, export, push, recipes, retrieval, robustness, run, teacher_logits, train
from .arguments import name_options, option_names, option_of_path

__all__ = ['main']

COMMANDS = {
    'demo': demo, 'recipes': recipes, 'teacher-logits': teacher_logits, 'train': train, 'run': run, 'convert': convert,
    'push': push, 'robustness': robustness, 'retrieval': retrieval, 'export': export}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message}\n')


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='timm-assemble', description='Assemble-ResNet for timm.')
    parser.add_argument('--version', action='version', version=f'timm-assemble {__version__}')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(command=command, options=option_names(subparser))
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run one command and return the exit status."""
    argv, passed = list(sys.argv[1:] if argv is None else argv), []
    split = getattr(COMMANDS.get(argv[0]), 'split_arguments', None) if argv else None
    if split is not None:  # the rest belongs to one of timm's scripts
        own, passed = split(argv[1:])
        argv = [argv[0], *own]
    args = _parser().parse_args(argv)
    args.passed = passed
    names = {**args.options, **getattr(args.command, 'PARAMETERS', {})}

    def show_warning(message: Any, *_: Any) -> None:
        print(f'timm-assemble: warning: {name_options(" ".join(str(message).split()), names)}', file=sys.stderr)
    try:
        with warnings.catch_warnings():
            if split is None:  # a script's warnings keep their source lines
                warnings.showwarning = show_warning  # type: ignore[assignment]
            args.command.run(args)
    except UserError as e:
        print(f'timm-assemble: {name_options(str(e), names)}', file=sys.stderr)
        return 2
    except BrokenPipeError:  # of `| head`
        if split is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        return 1
    except OSError as e:
        option = option_of_path(e, vars(args), names)
        if option is None:
            raise
        print(f'timm-assemble: {option} {printable(e.filename)}: {e.strerror}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
