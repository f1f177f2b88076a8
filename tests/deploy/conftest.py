"""Compilation in tests: from a clean state, and recorded."""
import pytest
import torch
from torch._dynamo.testing import EagerAndRecordGraphs

from timm_assemble.deploy import optimize


@pytest.fixture
def fresh():
    torch._dynamo.reset()


@pytest.fixture
def compiled(monkeypatch, fresh):
    """The graphs that dynamo compiles, which do not depend on the backend."""
    backend = EagerAndRecordGraphs()
    monkeypatch.setattr(optimize, 'COMPILE', dict(backend=backend))
    return backend.graphs
