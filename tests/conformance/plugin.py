"""Pytest plugin that runs timm's ``test_models.py`` on this package's models alone and writes the results as JSON.

It is loaded with ``-p``, before timm's tests are collected, into a pytest process of one timm version. It knows pytest,
timm and the registered models, and nothing of how timm and its tests got here.
"""
import json
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, List, Set

import pytest
import timm

import timm_assemble  # noqa: F401, registers the models

MODULE = 'assemble_resnet'  # timm's name of the family
_report: Dict[str, Any] = dict(kinds=[], results={})  # tests every model must have; outcomes by pytest's node id


def model_names(pattern: str) -> List[str]:
    """This package's models whose name matches a shell pattern."""
    return [name for name in timm.list_models(module=MODULE) if fnmatchcase(name, pattern)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--assemble-timm', help='Version of timm that has to be the imported one.')
    parser.addoption('--assemble-models', help='Shell pattern of the models to test.')
    parser.addoption('--assemble-report', help='JSON file to write.')


def pytest_configure(config: pytest.Config) -> None:
    site = config.rootpath / 'site'
    if timm.__version__ != config.getoption('assemble_timm') or site not in Path(timm.__file__).parents:
        raise pytest.UsageError(f'timm {timm.__version__} was imported, and not the one in {site}')

    # Some tests cover the models of a list of modules, in which only timm's own are named. Ours belongs wherever ResNet
    # is, whose interface it has. The test file imports list_models from timm and calls it in its decorators, so that
    # a wrapper put into timm before collection is enough and the file runs as it was published.
    list_models = timm.list_models

    def list_models_ours_beside_resnet(filter: Any = '', module: Any = '', **kwargs: Any) -> List[str]:
        if not isinstance(module, str) and 'resnet' in module:
            module = [*module, MODULE]
        return list_models(filter, module, **kwargs)

    timm.list_models = list_models_ours_beside_resnet


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Function]) -> None:
    ours = model_names(config.getoption('assemble_models'))
    # What every model has to take is what timm has for each of its ResNets that are, as ours, without weights: tests
    # that need weights, or are for a few models by name, are not among it.
    peers = set(timm.list_models(module='resnet'))
    peers -= set(timm.list_models(module='resnet', pretrained=True, include_tags=False))
    models_of_test: Dict[str, Set[str]] = defaultdict(set)
    for item in items:
        params = item.callspec.params if hasattr(item, 'callspec') else {}
        test, model = item.originalname, str(params.get('model_name')).partition('.')[0]  # without a tag of weights
        models_of_test[test].add(model)
        if model in ours:  # failed until it has run
            _report['results'][item.nodeid] = dict(model=model, test=test, outcome='failed', reason='did not run')
    _report['kinds'] = [test for test, models in models_of_test.items() if models >= peers]
    items[:] = [item for item in items if item.nodeid in _report['results']]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == 'call' or not report.passed:
        crash = getattr(report.longrepr, 'reprcrash', None)
        reason = crash.message if crash else str(report.longrepr or '')
        if isinstance(report.longrepr, tuple):  # of a skip: path, line, reason
            reason = report.longrepr[2]
        _report['results'][report.nodeid].update(outcome=report.outcome, reason=reason.partition('\n')[0])


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(session.config.getoption('assemble_report')).write_text(json.dumps(_report))
