import sys

import pytest

from timm_assemble.timm_scripts import HOOK


@pytest.fixture
def no_scripts(monkeypatch, tmp_path):
    """No scripts on this machine, git without a network, and the hook not yet imported."""
    monkeypatch.delenv('TIMM_SCRIPTS', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('GIT_ALLOW_PROTOCOL', 'file')
    monkeypatch.delitem(sys.modules, HOOK, raising=False)
