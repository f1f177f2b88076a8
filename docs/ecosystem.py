"""Write the results of ``make ecosystem`` into docs/ecosystem.md: ``python -m docs.ecosystem``.

The code of each library is HOW and other constants of several lines in its test module, which the tests run.
"""
import ast
import json
from itertools import groupby
from pathlib import Path
from typing import Any, Dict, List

from docs.generated_block import markdown_table, rewrite_block

__all__ = ['PAGE', 'RESULTS', 'block']

PAGE = Path(__file__).parent / 'ecosystem.md'
RESULTS = Path(__file__).parent / 'ecosystem.json'
TESTS = Path(__file__).parents[1] / 'tests' / 'ecosystem'
BEGIN, END = '<!-- ecosystem:begin -->', '<!-- ecosystem:end -->'
# each model is followed by the model of timm that did the same
MODELS = ('assemble_resnet50', 'test_assemble_resnet', 'resnet50d', 'assemble_resnet50_d_sk', 'skresnet50d')
WORDS = {'passed': 'yes', 'skipped': 'not run'}  # any other outcome is a loss

Case = Dict[str, Any]


def _how(module: str) -> str:
    """Return a test module's lines of code without importing its library."""
    [path] = TESTS.rglob(f'{module}.py')
    code = [node.value.value.strip() for node in ast.parse(path.read_text(encoding='utf-8')).body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and '\n' in str(node.value.value)]
    if not code:
        raise ValueError(f'module must have a constant HOW, got {module}')
    return '\n\n'.join(f'```python\n{lines}\n```' for lines in code)


def _summary(groups: List[List[Case]]) -> str:
    """Return one line for each library: how many of its checks passed, with our models and with timm's."""
    lines = []
    for cases in groups:
        passed = {ours: [case['outcome'] == 'passed' for case in cases if ('assemble' in case['model']) == ours]
                  for ours in (True, False)}
        lines.append([cases[0]['library'], cases[0]['version'],
                      *(f'{sum(passed[ours])} of {len(passed[ours])}' for ours in (True, False))])
    return markdown_table(['library', 'version', 'works with our models', "works with timm's"], lines)


def _table(cases: List[Case]) -> str:
    """Return one line for each thing that was done and one column for each model."""
    words = {(case['done'], case['model']): WORDS.get(case['outcome'], 'no') for case in cases}
    lines = [[done, *(words.get((done, model), '-') for model in MODELS)]
             for done in dict.fromkeys(case['done'] for case in cases)]
    return markdown_table(['done', *(f'`{model}`' for model in MODELS)], lines)


def _losses(cases: List[Case]) -> List[str]:
    """Return a sentence for everything that did not work, with the models that share its reason."""
    models: Dict[Any, List[str]] = {}
    for case in cases:
        if case['outcome'] != 'passed':
            verb = 'Not run' if case['outcome'] == 'skipped' else 'Does not work'
            models.setdefault((verb, case['done'], case['reason']), []).append(f'`{case["model"]}`')
    return [f'- {verb}: {done[0].lower()}{done[1:]}, with {", ".join(names)}: {reason}'
            for (verb, done, reason), names in models.items()]


def block() -> str:
    """Return a summary, and a section for each library: code, what was done, and what does not work."""
    results = json.loads(RESULTS.read_text(encoding='utf-8'))
    versions = ', '.join(f'{package} {version}' for package, version in results['versions'].items())
    groups = [list(group) for _, group in groupby(results['cases'], key=lambda case: case['module'])]
    sections = [f'Run on {results["date"]} with {versions}.', _summary(groups)]
    for cases in groups:
        unknown = {case['model'] for case in cases} - set(MODELS)
        if unknown:
            raise ValueError(f'MODELS must have a column for every model, got results of {sorted(unknown)}')
        sections += [f'## {cases[0]["library"]} {cases[0]["version"]}', _how(cases[0]['module']), _table(cases)]
        if losses := _losses(cases):
            sections.append('\n'.join(losses))
    return '\n\n'.join(sections)


if __name__ == '__main__':
    PAGE.write_text(rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, block()), encoding='utf-8')
