"""Ctrl-C while ``timm-assemble`` imports torch and timm: the process ends without a traceback."""
import os
import signal
import sys

__all__ = ['end_on_interrupt', 'raise_on_interrupt']

COMMANDS = ('timm_assemble', 'timm-assemble', 'timm-assemble.exe')  # as a module and as the console script


def end_on_interrupt() -> None:
    """Let SIGINT end this process at once if it is the command line; called before the imports, for seconds of which
    nothing can catch a KeyboardInterrupt. A SIGINT that is ignored or handled otherwise stays so.
    """
    program = sys.orig_argv[-len(sys.argv):][:1]  # sys.argv[0] is '-m' of every module while its package is imported
    is_command = bool(program) and os.path.basename(program[0]).removeprefix('-m') in COMMANDS
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_on_interrupt() -> None:
    """Let SIGINT raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
