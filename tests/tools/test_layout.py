"""The layout and the words of the repository, over the files that git tracks."""
import ast
import re
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES, MAX_LAYER_LINES, MAX_MODULES = 350, 160, 12
PAGE_LINES = {'README.md': 150, 'benchmarks/README.md': 120}
WORDS = re.compile(r'(?<![a-z])(p[i]ctures?|f[i]lms?)(?![a-z])', re.IGNORECASE)
QUOTATIONS: tuple = ()  # (file, text of the line) of words that others wrote
OPTION = re.compile(r'(?:^|[\s`(])(--[a-z][\w-]*)')
# options of git and of timm's train.py, which these modules call, and of an example with its own command line
FOREIGN_OPTIONS = {
    'timm_assemble/examples/fine_grained.py': {'--download'},
    'timm_assemble/hub/prepare.py': {'--config'},
    'timm_assemble/train_hook.py': {'--device-modules'},
    'timm_assemble/timm_scripts/launch.py': {'--config', '--device-modules'},
    'timm_assemble/timm_scripts/locate.py': {'--branch', '--depth', '--quiet'},
}


@lru_cache
def tracked(suffix: str = '') -> dict:
    """Return path -> text of the tracked text files."""
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a git checkout')
    texts = {}
    for name in listed.stdout.split('\0'):
        if name.endswith(suffix) and (ROOT / name).is_file():
            content = (ROOT / name).read_bytes()
            if b'\0' not in content:
                texts[name] = content.decode()
    return texts


def test_files_and_folders_are_short_enough_to_read_in_one_go():
    limits = {name: MAX_LAYER_LINES if name.startswith('timm_assemble/layers/') else MAX_LINES
              for name in tracked('.py')} | PAGE_LINES
    lengths = {name: len(text.splitlines()) for name, text in tracked().items()}
    assert not {name: lengths[name] for name, limit in limits.items() if lengths[name] > limit}
    folders = Counter(Path(name).parent for name in tracked('.py') if not name.endswith('__init__.py'))
    assert not {str(folder): n for folder, n in folders.items() if n > MAX_MODULES}
    top = {Path(name).name for name in tracked('.py') if Path(name).parent == Path('timm_assemble')}
    assert top == {'__init__.py', '__main__.py', 'train_hook.py'}


def test_source_distribution_has_every_tracked_file(tmp_path):
    """By the list that setuptools packs; the files of the package are those of the wheel too."""
    code = 'import sys; from setuptools import setup; setup(script_args=["egg_info", "--egg-base", sys.argv[1]])'
    subprocess.run([sys.executable, '-c', code, tmp_path], cwd=ROOT, check=True, capture_output=True)
    [sources] = tmp_path.glob('*.egg-info/SOURCES.txt')
    tracked()  # skips outside a git checkout
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {*listed.split()} - {*sources.read_text().split()} == {'.ci/run', '.gitignore'}
    assert 'timm_assemble/py.typed' in listed


def test_words_of_the_field():
    found = [(name, line.strip()) for name, text in tracked().items() if not name.startswith('tests/golden/')
             for line in text.splitlines() if WORDS.search(line)]
    assert not [hit for hit in found if hit not in QUOTATIONS]


def test_options_are_named_in_the_command_line_alone():
    found = {}
    for name, text in tracked('.py').items():
        if name.startswith('timm_assemble/') and not name.startswith('timm_assemble/cli/'):
            strings = [node.value for node in ast.walk(ast.parse(text))
                       if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            options = {option for string in strings for option in OPTION.findall(string)}
            found[name] = options - FOREIGN_OPTIONS.get(name, set())
    assert found and not {name: options for name, options in found.items() if options}


def test_docstrings_leave_imports_to_import_linter():
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    assert not [name for name, text in tracked('.py').items() for node in ast.walk(ast.parse(text))
                if isinstance(node, kinds)
                and re.search(r'(?:^|\. )Knows ', ast.get_docstring(node) or '', re.MULTILINE)]
