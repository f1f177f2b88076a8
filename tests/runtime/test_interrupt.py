"""Which processes end at once on SIGINT: the command line, and nothing that only imports the package."""
import signal
import sys

import pytest

from timm_assemble.runtime.interrupt import end_on_interrupt, raise_on_interrupt


RAISES, ENDS, IGNORED = signal.default_int_handler, signal.SIG_DFL, signal.SIG_IGN


@pytest.mark.parametrize('orig_argv, argv, before, importing', [
    (['python', '-m', 'timm_assemble', 'demo'], ['-m', 'demo'], RAISES, ENDS),
    (['python', '-X', 'dev', '-mtimm_assemble'], ['-m'], RAISES, ENDS),
    (['python', '/bin/timm-assemble', 'demo'], ['/bin/timm-assemble', 'demo'], RAISES, ENDS),
    (['python', '-m', 'mine', 'timm_assemble'], ['-m', 'timm_assemble'], RAISES, RAISES),
    (['python', 'train.py', 'demo'], ['train.py', 'demo'], RAISES, RAISES),
    (['python', '-c', 'spawn_main()', '--multiprocessing-fork'], ['/bin/timm-assemble', 'demo'], RAISES, RAISES),
    (['python'], [''], RAISES, RAISES),
    ([], [''], RAISES, RAISES),
    (['python', '-m', 'timm_assemble'], ['-m'], IGNORED, IGNORED),
])
def test_only_the_command_line_ends_on_interrupt(orig_argv, argv, before, importing, monkeypatch):
    monkeypatch.setattr(sys, 'orig_argv', orig_argv)
    monkeypatch.setattr(sys, 'argv', argv)
    restored = signal.signal(signal.SIGINT, before)
    try:
        end_on_interrupt()
        assert signal.getsignal(signal.SIGINT) is importing
        raise_on_interrupt()
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, restored)
