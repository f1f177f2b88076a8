"""The models of every test, the lines of the page, and the report that docs/ecosystem.md is written from."""
import json
import os
import re
from datetime import date
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, Sequence

os.environ.update(HF_HUB_OFFLINE='1', WANDB_MODE='disabled', NO_ALBUMENTATIONS_UPDATE='1')  # tests download nothing

import pytest
import timm
import torch
from torch import nn

from timm_assemble.hub.save import save_model
from timm_assemble.layers import DropBlock2d

MODELS = ('assemble_resnet50', 'assemble_resnet50_d_sk', 'test_assemble_resnet')
# timm's nearest models run beside them, so that a fault of the library itself shows as one
REFERENCES = {
    'assemble_resnet50': 'resnet50d', 'assemble_resnet50_d_sk': 'skresnet50d', 'test_assemble_resnet': 'resnet50d'}
NAMES = (*MODELS, *dict.fromkeys(REFERENCES.values()))
_cases: Dict[str, Dict[str, Any]] = {}  # by pytest's node id


def as_trained(model: nn.Module) -> nn.Module:
    """Fill batch norms as training does: a new model's residual branches end in zeros and do not reach the logits."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


def original_names(weights: dict) -> dict:
    """Name the weights of timm's feature extractor, which has the children of Sequentials as its own, as the model."""
    return {re.sub(r'^(stem|stages)_(\d+)\.', r'\1.\2.', name): value for name, value in weights.items()}


def differing(weights: dict, expected: dict) -> list:
    """Return the names of a feature extractor's weights that are not the model's."""
    return [name for name, value in original_names(weights).items() if not value.equal(expected[name])]


def rates_of_training(model: nn.Module) -> list:
    """Return a list that receives the DropBlock rate of every batch that the model is trained on."""
    rates: list = []
    [*_, last] = [layer for layer in model.modules() if isinstance(layer, DropBlock2d)]
    last.register_forward_pre_hook(lambda layer, _: rates.append(layer.rate.item()) if layer.training else None)
    return rates


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def how(request, name):
    """Return lines of docs/ecosystem.md, a constant of the module, for this model."""
    def code(constant: str = 'HOW', of_reference: Sequence[str] = ()) -> str:
        """``of_reference`` is a word of the lines and the word that timm's models need instead."""
        lines = getattr(request.module, constant).replace(MODELS[0], name)
        return lines.replace(*of_reference) if of_reference and name not in MODELS else lines
    return code


@pytest.fixture
def run_how(how):
    """Run the lines with some variables and return all variables."""
    def run(constant: str = 'HOW', of_reference: Sequence[str] = (), **variables: Any) -> SimpleNamespace:
        exec(how(constant, of_reference), variables)
        return SimpleNamespace(**variables)
    return run


@pytest.fixture
def folder(name, tmp_path):
    """A trained model of three classes in Hugging Face format, as ``timm-assemble`` writes it."""
    path = tmp_path / 'trained'
    path.mkdir()
    save_model(as_trained(timm.create_model(name, num_classes=3)), path, dict(num_classes=3),
               dict(label_names=list('abc')))
    return path


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
            outcome, reason = 'xfailed' if report.skipped else 'xpassed', report.wasxfail.removeprefix('reason: ')
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
