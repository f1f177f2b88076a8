"""Pytest plugin: run timm's ``test_models.py`` on this package's models and write the results as JSON.

``-p`` loads it into a pytest process of one timm version, before timm's tests are collected.
"""
import json
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest
import timm

from timm_assemble.models.family import FAMILIES, registered_models

_report: Dict[str, Any] = dict(kinds=[], results={})  # tests every model must have; outcomes by pytest's node id


def model_names(pattern: str) -> List[str]:
    """Return this package's models whose name matches a shell pattern."""
    return [name for name in registered_models() if fnmatchcase(name, pattern)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--assemble-timm', help='Version of timm that must be imported.')
    parser.addoption('--assemble-models', help='Shell pattern of the models to test.')
    parser.addoption('--assemble-report', help='JSON file to write.')


def pytest_configure(config: pytest.Config) -> None:
    site = config.rootpath / 'site'
    if timm.__version__ != config.getoption('assemble_timm') or site not in Path(timm.__file__).parents:
        raise pytest.UsageError(f'the imported timm must be the one in {site}, got {timm.__version__}')

    # Some tests cover the models of a list of timm's modules. Ours have the interface of ResNet and belong wherever
    # ResNet is. The test file calls timm's list_models in its decorators: wrapped before collection, it runs unchanged.
    list_models = timm.list_models

    def list_models_with_ours(filter: Any = '', module: Any = '', **kwargs: Any) -> List[str]:
        if not isinstance(module, str) and 'resnet' in module:
            module = [*module, *FAMILIES]
        return list_models(filter, module, **kwargs)

    timm.list_models = list_models_with_ours


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Function]) -> None:
    ours = model_names(config.getoption('assemble_models'))
    # Every model must have the tests that timm has for each of its ResNets without weights. Tests that need weights or
    # name a few models are not among them.
    peers = set(timm.list_models(module='resnet'))
    peers -= set(timm.list_models(module='resnet', pretrained=True, include_tags=False))
    models_of_test: Dict[str, Set[str]] = defaultdict(set)
    for item in items:
        params = item.callspec.params if hasattr(item, 'callspec') else {}
        test, model = item.originalname, str(params.get('model_name')).partition('.')[0]  # without its tag
        models_of_test[test].add(model)
        if model in ours:  # until it has run
            _report['results'][item.nodeid] = dict(model=model, test=test, outcome='failed', reason='did not run')
    _report['kinds'] = [test for test, models in models_of_test.items() if models >= peers]
    items[:] = [item for item in items if item.nodeid in _report['results']]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == 'call' or not report.passed:
        crash = getattr(report.longrepr, 'reprcrash', None)
        reason = crash.message if crash else str(report.longrepr or '')
        if isinstance(report.longrepr, tuple):  # a skip's path, line and reason
            reason = report.longrepr[2]
        _report['results'][report.nodeid].update(outcome=report.outcome, reason=reason.partition('\n')[0])


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(session.config.getoption('assemble_report')).write_text(json.dumps(_report))
