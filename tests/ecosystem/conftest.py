"""The models of every test, the lines of the page, and the report that docs/ecosystem.md is written from."""
import json
import os
from datetime import date
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict

os.environ.update(HF_HUB_OFFLINE='1', WANDB_MODE='disabled', NO_ALBUMENTATIONS_UPDATE='1')  # tests download nothing

import pytest
import torch

import timm_assemble  # noqa: F401

MODELS = ('assemble_resnet50', 'assemble_resnet50_d_sk', 'test_assemble_resnet')
# timm's nearest models run beside them, so that a fault of the library itself shows as one
REFERENCES = {
    'assemble_resnet50': 'resnet50d', 'assemble_resnet50_d_sk': 'skresnet50d', 'test_assemble_resnet': 'resnet50d'}
NAMES = (*MODELS, *dict.fromkeys(REFERENCES.values()))
_cases: Dict[str, Dict[str, Any]] = {}  # by pytest's node id


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def run_how(request, name):
    """Run the module's HOW, the lines of docs/ecosystem.md, with this model and return their variables."""
    def run(**variables: Any) -> SimpleNamespace:
        exec(request.module.HOW.replace(MODELS[0], name), variables)
        return SimpleNamespace(**variables)
    return run


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """Libraries write logs and checkpoints into the working directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--report', metavar='FILE', help='JSON file of outcomes to write.')


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line('filterwarnings', 'ignore')  # for libraries, warnings are no errors


def pytest_collection_modifyitems(items: list) -> None:
    for index, item in enumerate(items):
        if hasattr(item, 'callspec') and hasattr(item.module, 'LIBRARY'):
            model = item.callspec.params['name']
            other = [part for part in item.callspec.id.split('-') if part != model]
            done = ', '.join([item.obj.__doc__.partition('\n')[0].rstrip('.'), *other])
            library = item.module.LIBRARY
            item.user_properties.append(('case', dict(
                index=index, module=Path(item.module.__file__).stem, library=library, version=version(library),
                done=done, model=model)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    case = dict(report.user_properties).get('case')
    if case and (report.when == 'call' or not report.passed):
        outcome, reason = report.outcome, ''
        if hasattr(report, 'wasxfail'):
            outcome, reason = 'xfailed' if report.skipped else 'xpassed', report.wasxfail
        elif report.skipped:
            reason = report.longrepr[2]
        elif report.failed:
            crash = getattr(report.longrepr, 'reprcrash', None)
            reason = crash.message if crash else str(report.longrepr)
        _cases[report.nodeid] = dict(
            case, outcome=outcome, reason=reason.partition('\n')[0][:200], seconds=round(report.duration, 1))


def pytest_sessionfinish(session: pytest.Session) -> None:
    report = session.config.getoption('report')
    if report and not hasattr(session.config, 'workerinput'):  # pytest-xdist's workers report to their controller
        cases = sorted(_cases.values(), key=lambda case: case.pop('index'))
        results = dict(
            date=str(date.today()), versions={package: version(package) for package in ('timm', 'torch')}, cases=cases)
        Path(report).write_text(json.dumps(results, indent=1) + '\n')
