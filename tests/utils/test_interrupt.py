"""Which processes end at once on SIGINT: the command line, and nothing that only imports the package."""
import signal
import sys

import pytest

from timm_assemble.utils.interrupt import end_on_interrupt, raise_on_interrupt


@pytest.fixture(autouse=True)
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('orig_argv, argv, ends', [
    (['python', '-m', 'timm_assemble', 'demo'], ['-m', 'demo'], True),
    (['python', '-X', 'dev', '-mtimm_assemble'], ['-m'], True),
    (['python', '/bin/timm-assemble', 'demo'], ['/bin/timm-assemble', 'demo'], True),
    (['python', '-m', 'mine', 'timm_assemble'], ['-m', 'timm_assemble'], False),
    (['python', 'train.py', 'demo'], ['train.py', 'demo'], False),
    (['python', '-c', 'spawn_main()', '--multiprocessing-fork'], ['/bin/timm-assemble', 'demo'], False),
    (['python'], [''], False),
    ([], [''], False),
])
def test_only_the_command_line_ends_on_interrupt(orig_argv, argv, ends, monkeypatch):
    monkeypatch.setattr(sys, 'orig_argv', orig_argv)
    monkeypatch.setattr(sys, 'argv', argv)
    end_on_interrupt()
    assert signal.getsignal(signal.SIGINT) is (signal.SIG_DFL if ends else signal.default_int_handler)
    raise_on_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_interrupt_stays_ignored(monkeypatch):
    monkeypatch.setattr(sys, 'orig_argv', ['python', '-m', 'timm_assemble'])
    monkeypatch.setattr(sys, 'argv', ['-m'])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_on_interrupt()
    raise_on_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
