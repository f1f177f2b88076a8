"""Write the tables of the pages in docs/. ``python -m docs.tables``, or with the names of the pages to write.

Parameters and multiply-adds are counted on the models; other numbers are the paper's or those of results files.
"""
import ast
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import timm

import timm_assemble  # noqa: F401  registers the models
from benchmarks.harness.measure import RESULTS, ROOT
from docs.generated_block import markdown_table, rewrite_block
from timm_assemble.recipes import read_recipe, recipe_names
from timm_assemble.recipes.budget import estimate
from timm_assemble.recipes.paper import MOBILENETS, ROWS, TECHNIQUES, Row, rows_of, span

__all__ = ['PAGES', 'ecosystem', 'page']

DOCS = ROOT / 'docs'
Rows = List[Dict[str, Any]]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8'))


def _row_names(rows: Sequence[Row]) -> str:
    """Return the names of rows, as a range where they are consecutive."""
    names = [row.name for row in rows]
    consecutive = int(names[-1][1:]) - int(names[0][1:]) < len(names) if names else True
    return span(names) if consecutive else ', '.join(names)


def _model(name: str) -> List[str]:
    from benchmarks.harness.networks import multiply_adds  # needs what `make ecosystem` does not install

    model: Any = timm.create_model(name, device='meta').eval()
    size = (model.pretrained_cfg.get('test_input_size') or model.pretrained_cfg['input_size'])[-1]
    rows = rows_of(name)
    cells = [
        f'`{name}`', _row_names(rows), {**TECHNIQUES, **MOBILENETS}[name],
        f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f}', f'{multiply_adds(model, size) / 1e9:.2f}', str(size),
        span([f'{row.top1:.2f}' for row in rows]), span([f'{row.mce:.2f}' for row in rows]),
        span([str(row.images_per_s) for row in rows if row.images_per_s])]
    return [cell or '-' for cell in cells]


def models() -> Dict[str, str]:
    """Return one row per registered model, in the paper's order."""
    titles = ['model', 'paper row', 'techniques', 'params (M)', 'GMACs', 'test size', 'top-1 (%)', 'mCE', 'images/s']
    return {'variants': markdown_table(titles, [_model(name) for name in [*TECHNIQUES, *MOBILENETS]], titles[3:])}


BUDGETS = (('one_gpu_16', 'assemble_resnet50_d'), ('one_gpu_100', 'assemble_resnet50'), ('a2', 'assemble_resnet50'),
           ('assemble_resnet50', 'assemble_resnet50'), ('assemble_resnet152', 'assemble_resnet152'))


def budget() -> str:
    """Return five recipes with what they take on ImageNet-1k."""
    titles = ['recipe', 'model', 'epochs', 'images/s', 'GPU-hours', 'memory (GB)', 'store (GB)', 'published top-1 (%)']
    lines = [[f'`{e.recipe.name}`', f'`{e.model}`', str(e.recipe.epochs), f'{e.images_per_s:.0f}', f'{e.gpu_hours:.1f}',
              f'{e.memory_gb:.1f}', f'{e.store_gb:.1f}', e.published()] for e in (estimate(*case) for case in BUDGETS)]
    return markdown_table(titles, lines, titles[2:-1])


def recipes() -> Dict[str, str]:
    """Return one line per recipe with the paper's numbers, of MobileNets in a table with other columns."""
    titles = ['recipe', 'row', 'model', 'what it is', 'epochs', 'top-1 (%)', 'mCE', 'images/s', 'at']
    mobile_titles = [*titles[:7], 'mFR', 'images/s', 'quantized']
    lines, mobile = [], []
    for name in recipe_names():
        recipe = read_recipe(name)
        row, cells = ROWS.get(recipe.row), [
            f'`{name}`', recipe.row, f'`{recipe.model}`', recipe.description, str(recipe.epochs), recipe.top1,
            recipe.mce, recipe.images_per_s, recipe.test_size]
        cells = [cell or '-' for cell in cells]
        if row and row.model in MOBILENETS:
            mobile.append([*cells[:7], f'{row.mfr:.2f}', *(f'{speed:.2f}' for speed in row.pixel3 or ())])
            mobile[-1] += ['-'] * (len(mobile_titles) - len(mobile[-1]))
        elif recipe.model not in MOBILENETS:
            lines.append(cells)
    return {'budget': budget(), 'recipes': markdown_table(titles, lines, titles[4:]),
            'mobilenet recipes': markdown_table(mobile_titles, mobile, mobile_titles[4:])}


def training() -> Dict[str, str]:
    """Return one line per kind of distillation: accuracy and its gain, time of an epoch, time of a step."""
    lines = []
    for row in _read(RESULTS / 'kd_accuracy.json')['rows']:
        d, c = row['details'], row['comparison']
        if 'top-1 on crops (%)' in d:  # not the timings of other groups
            columns = [('top-1 on crops (%)', 'standard error', 1), ('gain', 'standard error of the gain', 1),
                       ("share of the online teacher's gain (%)", 'standard error of the share', 0)]
            cells = [f'{d[value]:.{digits}f} ± {d[error]:.{digits}f}' if value in d else ''
                     for value, error, digits in columns]
            lines.append([row['name'], *cells, f'{c["ratio"]:.2f}' if c else '1'])
    steps = [[row['name'], f'{c["ratio"]:.3f} ({c["q1"]:.3f} to {c["q3"]:.3f})' if c else '1']
             for row in _read(RESULTS / 'kd_step.json')['rows'] for c in [row['comparison']]]
    return {'kd_accuracy': markdown_table(
        ['distillation', 'top-1 (%)', 'gain', "share of the online teacher's gain (%)", 'time of an epoch'], lines),
        'kd_step': markdown_table(['distillation', 'time of a step'], steps)}


# forms of the benchmark, with what the page calls them; bold is what `backend=None` takes without AMX
FORMS = {
    'peer, float32, ONNX Runtime': 'ONNX Runtime, our file, float32',
    'peer, float32, OpenVINO': 'OpenVINO, plain conversion, float32',
    'ours, float32, inductor': '**inductor with Winograd, float32**',
    'ours, bfloat16, inductor': 'inductor, bfloat16',
    'peer, bfloat16, OpenVINO': 'OpenVINO, plain conversion, bfloat16',
    'ours, bfloat16, openvino': "**`backend='openvino'`, bfloat16**",
    'file, int8, ONNX Runtime': 'our int8 file in ONNX Runtime', 'file, int8, OpenVINO': 'our int8 file in OpenVINO',
    'peer, int8, NNCF and OpenVINO': "NNCF's defaults on the plain conversion",
    'ours, int8': '**`calibration=`, int8**'}


def deployment() -> Dict[str, str]:
    """Return the forms of one setting, and what the rule takes over the fastest peer in all of them."""
    rows = {(row['group'], row['name']): row for row in _read(RESULTS / 'deployment.json')['rows']}

    def row(batch: int, threads: int, name: str) -> Any:
        return rows[f'assemble_resnet50 at 256, batch size {batch}, threads {threads}', name]

    forms = []
    for name, title in FORMS.items():
        found = row(4, 1, name)
        d = found['details']
        forms.append([title, f'{found["comparison"]["ratio"]:.2f}', f'{d["images/s"]:.1f}',
                      f'{float(d["SQNR (dB)"]):.3g}', f'{d["ready (s)"]:.0f}'])
    peers = [[str(threads), name.split(', ')[1], *(
        f'{row(batch, threads, name)["details"]["over the fastest peer"]:.2f}' for batch in (1, 4, 32))]
        for threads in (1, 2) for name, title in FORMS.items() if '**' in title]
    titles = ['form', 'speed-up', 'images/s', 'SQNR (dB)', 'ready (s)']
    batches = ['batch 1', 'batch 4', 'batch 32']
    return {'forms': markdown_table(titles, forms, titles[1:]),
            'peers': markdown_table(['threads', 'dtype', *batches], peers, batches)}


# each model is followed by the model of timm that did the same
ECOSYSTEM_MODELS = ('assemble_resnet50', 'test_assemble_resnet', 'resnet50d', 'assemble_resnet50_d_sk', 'skresnet50d')
WORDS = {'passed': 'yes', 'skipped': 'not run'}  # any other outcome is a loss


def _how(module: str) -> str:
    """Return a test module's lines of code, its constants of several lines, without importing its library."""
    [path] = (ROOT / 'tests' / 'ecosystem').rglob(f'{module}.py')
    code = [node.value.value.strip() for node in ast.parse(path.read_text(encoding='utf-8')).body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and '\n' in str(node.value.value)]
    return '\n\n'.join(f'```python\n{lines}\n```' for lines in code)


def _losses(cases: Rows) -> List[str]:
    """Return a sentence for everything that did not work, with the models that share its reason."""
    found: Dict[Any, List[str]] = {}
    for case in cases:
        if case['outcome'] != 'passed':
            verb = 'Not run' if case['outcome'] == 'skipped' else 'Does not work'
            found.setdefault((verb, case['done'], case['reason']), []).append(f'`{case["model"]}`')
    return [f'- {verb}: {done[0].lower()}{done[1:]}, with {", ".join(names)}: {reason}'
            for (verb, done, reason), names in found.items()]


def ecosystem(path: Path = DOCS / 'ecosystem.json') -> Dict[str, str]:
    """Return a summary of ``make ecosystem``, and for each library: code, what was done, and what does not work."""
    results, summary, sections = _read(path), [], []
    for module, group in groupby(results['cases'], key=lambda case: case['module']):
        cases = [*group]
        library, version = cases[0]['library'], cases[0]['version']
        passed = {ours: [case['outcome'] == 'passed' for case in cases if ('assemble' in case['model']) == ours]
                  for ours in (True, False)}
        summary.append([library, version, *(f'{sum(passed[ours])} of {len(passed[ours])}' for ours in (True, False))])
        words = {(case['done'], case['model']): WORDS.get(case['outcome'], 'no') for case in cases}
        table = [[done, *(words.get((done, model), '-') for model in ECOSYSTEM_MODELS)]
                 for done in dict.fromkeys(case['done'] for case in cases)]
        sections += [f'## {library} {version}', _how(module),
                     markdown_table(['done', *(f'`{model}`' for model in ECOSYSTEM_MODELS)], table)]
        if losses := _losses(cases):
            sections.append('\n'.join(losses))
    versions = ', '.join(f'{package} {version}' for package, version in results['versions'].items())
    return {'ecosystem': '\n\n'.join([f'Run on {results["date"]} with {versions}.', markdown_table(
        ['library', 'version', 'works with our models', "works with timm's"], summary), *sections])}


PAGES: Dict[str, Callable[[], Dict[str, str]]] = {  # by page, the function of its blocks
    'models': models, 'recipes': recipes, 'training': training, 'deployment': deployment, 'ecosystem': ecosystem}


def page(name: str) -> str:
    """Return a page with its tables of now."""
    text = (DOCS / f'{name}.md').read_text(encoding='utf-8')
    for block, table in PAGES[name]().items():
        text = rewrite_block(text, block, table)
    return text


if __name__ == '__main__':
    for chosen in sys.argv[1:] or PAGES:
        (DOCS / f'{chosen}.md').write_text(page(chosen), encoding='utf-8')
