"""Blocks of the pages: each runs as pasted, in the page's order and one folder, or says why not."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from timm_assemble.errors import INSTALL
from timm_assemble.timm_scripts.locate import find_script

from ._blocks import read_blocks

ROOT = Path(__file__).parents[2]
# Pages whose blocks run, with replacements that only make them faster: fewer epochs, a narrower network.
PAGES = {
    'README.md': {'--epochs 10': '--epochs 1', '--epochs 5': '--epochs 1 --warmup-epochs 0',
                  '--warmup-epochs 1 --drop-block': '--drop-block',
                  '--model assemble_resnet50 --num-classes': '--model test_assemble_resnet --num-classes'},
    'docs/demo.md': {}, 'docs/models.md': {}, 'docs/recipes.md': {}, 'docs/decisions.md': {}, 'docs/exactness.md': {},
    'docs/finetuning.md': {}, 'docs/hub.md': {'--epochs 2': '--epochs 1'},
    'docs/retrieval.md': {'EPOCHS = 5': 'EPOCHS = 1'}, 'docs/official_pipeline.md': {}, 'docs/architecture.md': {},
    'docs/convert.md': {}, 'docs/deployment.md': {}, 'docs/ecosystem.md': {}, 'docs/robustness.md': {},
    'docs/training.md': {}, 'docs/training_step.md': {},
}


def _has_scripts() -> bool:
    try:
        return bool(find_script('train'))
    except ValueError:
        return False


def test_every_page_is_checked():
    assert {path.stem for path in ROOT.glob('docs/*.md')} == {Path(name).stem for name in PAGES} - {'README'}


@pytest.mark.parametrize('name', PAGES)
def test_a_test_that_runs_a_block_names_its_page(name):
    for file in {block.mark.removeprefix('run by ') for block in read_blocks(ROOT / name) if 'run by' in block.mark}:
        assert Path(name).name in (ROOT / file).read_text('utf-8')


@pytest.mark.timeout(900)  # a process for each block of commands
@pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning')  # timm's dataset leaves that to Python
@pytest.mark.parametrize('name', PAGES)
def test_blocks_run_or_say_why_not(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    text = (ROOT / name).read_text('utf-8')
    assert not [old for old in PAGES[name] if old not in text], 'a replacement has no effect'
    names: dict = {}
    for block in read_blocks(ROOT / name):
        code = block.code
        for old, new in PAGES[name].items():
            code = code.replace(old, new)
        if not block.runs:
            continue
        assert block.language in ('python', 'sh'), f'{name} has a block that neither runs nor is marked:\n{code}'
        if block.language == 'python':
            exec(compile(code, name, 'exec'), names)
        elif not code.startswith(('timm-assemble train', 'timm-assemble run')) or _has_scripts():
            done = subprocess.run(['bash', '-euc', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, f'{name}:\n{code}\n{done.stdout}'


def _commands(text: str) -> set:
    lines = text.replace('\\\n', ' ').splitlines()
    return {' '.join(line.split()) for line in lines if re.match(r'\s*(torchrun|timm-assemble|python) ', line)}


def test_trainings_of_the_readme_are_the_recipes_own_lines():
    commands = _commands(''.join(block.code for block in read_blocks(ROOT / 'README.md')))
    named = {command: found[1] for command in commands if (found := re.search(r' -c (\w+)', command))}
    assert len(named) >= 3
    for command, recipe in named.items():
        header = (ROOT / f'timm_assemble/recipes/{recipe}.yaml').read_text('utf-8').partition('\n\n')[0]
        assert command in _commands(re.sub('^# *', '', header, flags=re.MULTILINE))


@pytest.mark.parametrize('path', [
    *ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('docs/*.ipynb'), ROOT / 'timm_assemble/hub/model_card.md'
], ids=lambda path: path.stem)
def test_pages_install_the_package_as_the_constant_says(path):
    """Not by a name of an index, which anyone can claim."""
    command, _, package = INSTALL.rpartition(' ')
    for line in re.findall(r'pip install [^\n`#}]*', path.read_text('utf-8')):
        own = re.search(r'''(?<![\w/])['"]?(timm[-_]assemble|\.)(\[[\w,]+\])?['"]?(?![\w.\]/-])''', line)
        if own:
            assert own[1] == package and line.startswith(command), line
