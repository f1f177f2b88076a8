"""The pages: numbers are those of now; code, commands and links work. Nothing depends on a page's sentences."""
import ast
import copy
import importlib.util
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from docs import tables
from docs.generated_block import markdown_table, rewrite_block
from timm_assemble.cli import main as command_line

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ('README.md', 'CHANGELOG.md', 'CONTRIBUTING.md')),
         *sorted([*ROOT.glob('docs/**/*.md'), *ROOT.glob('benchmarks/**/*.md')])]


def code_blocks(path: Path, language: str = '') -> list:
    return [code for tag, code in re.findall(r'^```(\w*)\n(.*?)^```', path.read_text('utf-8'), re.DOTALL | re.MULTILINE)
            if tag == language]


def anchors(path: Path) -> set:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r'^```.*?^```', '', path.read_text('utf-8'), flags=re.DOTALL | re.MULTILINE)
    found: list = []
    for heading in re.findall(r'^#+ (.*)', text, re.MULTILINE):
        words = re.sub(r'\[(.*?)\]\(.*?\)', r'\1', heading).strip().lower()
        anchor = re.sub(r'[^\w\- ]', '', words).replace(' ', '-')
        found.append(f'{anchor}-{found.count(anchor)}' if anchor in found else anchor)
    return {*found}


def commands(path: Path) -> list:
    """Return the words of every command of a page, with 1 for shell variables."""
    found = []
    for language in ('', 'sh'):
        for block in code_blocks(path, language):
            for line in re.sub(r'\$\w+', '1', block.replace('\\\n', ' ')).splitlines():
                for command in re.split(r'&&|;', line):
                    if re.match(r'\s*(\$ )?(\w+=\S+ )*(timm-assemble|python|torchrun)\b', command):
                        found.append([word for word in shlex.split(command, comments=True) if word != '$'])
    return found


@pytest.mark.parametrize('name', tables.PAGES)
def test_cells_of_the_tables_are_those_of_now(name):
    """Another layout of a table is no failure."""
    def words(text):
        return re.sub(r'\|[-:| ]+\|\n', '', text).replace('|', ' ').split()
    assert words(tables.page(name)) == words((ROOT / 'docs' / f'{name}.md').read_text('utf-8')), (
        'run `python -m docs.tables` and look at what changed')


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_page_has_links_to_files_and_code_and_commands_that_exist(path, capsys):
    links = re.findall(r'\]\(([^)#\s]+)[^)]*\)', path.read_text('utf-8'))
    assert not [link for link in links if '://' not in link and not (path.parent / link).exists()]
    for link, anchor in re.findall(r'\]\(([^)#\s]*)#([^)\s]+)\)', path.read_text('utf-8')):
        if '://' not in link:
            target = path.parent / link if link else path
            assert anchor in anchors(target), f'{path.name}: {target.name} has no heading {anchor}'
    for code in code_blocks(path, 'python'):
        compile(code, str(path), 'exec')
    for words in commands(path):
        if '-m' in words:
            module = words[words.index('-m') + 1]
            assert importlib.util.find_spec(module), f'{path.name}: no module {module}'
            words = ['timm-assemble', *words[words.index('-m') + 2:]] if module == 'timm_assemble' else []
        if 'timm-assemble' in words:
            argv = words[words.index('timm-assemble') + 1:]
            command = command_line.COMMANDS[argv[0]]
            if hasattr(command, 'split_arguments'):
                argv = [argv[0], *command.split_arguments(argv[1:])[0]]  # the rest belongs to one of timm's scripts
            try:
                command_line._parser().parse_args(argv)
            except SystemExit as e:
                assert e.code == 0, f'{path.name}: {" ".join(words)}: {capsys.readouterr().err}'


def test_site_has_every_page_once_and_every_public_package():
    contents = next(ast.literal_eval(node.value) for node in ast.parse((ROOT / 'docs/site/conf.py').read_text()).body
                    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'CONTENTS')
    listed = ' '.join(contents['README'].values()).split()
    assert len({*listed}) == len(listed) and not [page for page in listed if not [*ROOT.glob(f'{page}.*')]]
    tracked = {str(path.relative_to(ROOT).with_suffix('')) for path in PAGES}
    assert tracked - {*listed} == {'README', *(name for name in tracked if name.startswith('benchmarks/pages/'))}
    packages = {path.parent.name for path in ROOT.glob('timm_assemble/*/__init__.py') if '__all__' in path.read_text()}
    assert packages and not [name for name in packages if not (ROOT / f'docs/api/{name}.md').exists()]


def test_every_object_of_the_reference_exists():
    for path in ROOT.glob('docs/api/*.md'):
        names = re.findall(r'auto\w+:: (\S+)', path.read_text('utf-8'))
        assert names and [pkgutil.resolve_name(name) for name in names]


def test_notebook_is_stored_without_outputs_and_compiles():
    cells = json.loads((ROOT / 'docs/walkthrough.ipynb').read_text('utf-8'))['cells']
    codes = [cell for cell in cells if cell['cell_type'] == 'code']
    assert codes and not any(cell['outputs'] for cell in codes)
    for cell in codes:
        compile(''.join(cell['source']), 'walkthrough.ipynb', 'exec')


def test_table_of_models_has_the_official_sizes_and_known_multiply_adds():
    # the official networks at 1001 classes less one class, and the multiply-adds everyone counts for ResNet-50
    [table] = tables.models().values()
    rows = {cells[1].strip(' `'): [cell.strip() for cell in cells] for cells in
            (line.split('|') for line in table.splitlines()[2:])}
    assert rows.keys() == {*timm.list_models('assemble_*')}
    for name, official in (
            ('assemble_resnet50_base', 25_559_081), ('assemble_resnet50_d', 25_578_313),
            ('assemble_resnet50', 41_848_489), ('assemble_resnet152', 117_006_249)):
        assert rows[name][4] == f'{(official - 2049) / 1e6:.2f}'
    assert rows['assemble_resnet50_base'][5:7] == ['4.09', '224']
    assert rows['assemble_resnet50'][6] == '256'
    assert rows['assemble_mobilenet'][2] == 'M0, M2, M3, M4, M5' and rows['assemble_mobilenet'][4:6] == ['4.23', '0.57']


def test_block_alone_is_rewritten_and_needs_each_marker_once_in_order():
    begin, end = '<!-- b:begin -->', '<!-- b:end -->'
    new = rewrite_block(f'before\n{begin}\nold\n{end}\nafter\n', 'b', 'new')
    assert new == f'before\n{begin}\n\nnew\n\n{end}\nafter\n' == rewrite_block(new, 'b', 'new')
    for text in ('', begin, end, end + begin, begin + begin + end, begin + end + end):
        with pytest.raises(ValueError, match='text must have the markers'):
            rewrite_block(text, 'b', 'new')


def test_table_keeps_numbers_as_they_are_written_and_aligns_them_to_the_right():
    titles, rule, first, _ = markdown_table(['name', 'n'], [['a', '1.50'], ['b', '22']], ['n']).splitlines()
    assert rule.endswith(':|') and '1.50 |' in first and titles.split('|')[1].strip() == 'name'


def test_code_of_the_training_page_trains(tmp_path, monkeypatch):
    import numpy as np
    import torch
    from PIL import Image

    from timm_assemble.training import store_teacher_logits

    code = '\n'.join(code_blocks(ROOT / 'docs' / 'training.md', 'python'))
    root = re.search(r"root='(\w+)'", code)[1]
    monkeypatch.chdir(tmp_path)
    model = timm.create_model('test_assemble_resnet', num_classes=3, drop_block_rate=0.1)
    for c in range(3):
        (tmp_path / root / 'train' / str(c)).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((64, 64, 3), 60 * c + i, np.uint8)).save(
                tmp_path / root / 'train' / str(c) / f'{i}.png')
    dataset = timm.data.create_dataset('', root=root, split='train')
    store_teacher_logits(model, 'teacher', dataset, 'teacher', workers=0, progress=False)
    exec(code, dict(model=model, teacher=copy.deepcopy(model), step=5, total_steps=10,
                    loader=[torch.rand(2, 3, 64, 64)]))
    assert model.stages[3][0].drop2.last_rate == pytest.approx(0.05)
    assert all(p.grad is not None for p in model.parameters())


def test_ecosystem_page_tells_what_does_not_work(tmp_path):
    case = dict(module='test_fastai', library='fastai', version='1', done='Train', reason='', seconds=1.0)
    cases = [dict(case, model='resnet50d', outcome='passed'),
             dict(case, model='assemble_resnet50', outcome='xfailed', reason='too small'),
             dict(case, model='test_assemble_resnet', outcome='failed', reason='too small'),
             dict(case, model='skresnet50d', outcome='skipped', reason='no GPU')]
    path = tmp_path / 'ecosystem.json'
    path.write_text(json.dumps(dict(date='2000-01-01', versions=dict(timm='1'), cases=cases)), 'utf-8')
    block = tables.ecosystem(path)['ecosystem']
    assert '## fastai 1\n\n```python\nimport timm_assemble' in block
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in block.splitlines() if line.startswith('|')]
    assert ['fastai', '1', '0 of 2', '1 of 2'] in rows and ['Train', 'no', 'no', 'yes', '-', 'not run'] in rows
    assert '- Does not work: train, with `assemble_resnet50`, `test_assemble_resnet`: too small' in block
    assert '- Not run: train, with `skresnet50d`: no GPU' in block


def test_source_distribution_has_every_tracked_file(tmp_path):
    """By the list that setuptools packs; the files of the package are those of the wheel too."""
    git = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip('not a git checkout')
    code = 'import sys; from setuptools import setup; setup(script_args=["egg_info", "--egg-base", sys.argv[1]])'
    subprocess.run([sys.executable, '-c', code, tmp_path], cwd=ROOT, check=True, capture_output=True)
    [sources] = tmp_path.glob('*.egg-info/SOURCES.txt')
    assert {*git.stdout.split()} - {*sources.read_text().split()} == {'.ci/run', '.gitignore'}
    assert 'timm_assemble/py.typed' in git.stdout
