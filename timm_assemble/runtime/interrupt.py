"""Ctrl-C while ``timm-assemble`` imports torch and timm: the process ends without a traceback."""
import os
import sys

import _signal as signal  # type: ignore[import-not-found]  # `import signal` loads enum: time to be interrupted in

__all__ = ['end_on_interrupt', 'raise_on_interrupt']

COMMANDS = ('timm_assemble', 'timm-assemble', 'timm-assemble.exe')  # as a module and as the console script


def end_on_interrupt() -> None:
    """Let SIGINT end the process at once if it is the command line, and if nobody else handles or ignores SIGINT.

    To be called before the imports: they take seconds, in which nothing can catch KeyboardInterrupt.
    """
    program = sys.orig_argv[-len(sys.argv):][:1]  # sys.argv[0] is '-m' for any module while its package is imported
    is_command = bool(program) and os.path.basename(program[0]).removeprefix('-m') in COMMANDS
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_on_interrupt() -> None:
    """Let SIGINT raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
