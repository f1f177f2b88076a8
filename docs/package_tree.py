"""Write the tree of the package into docs/architecture.md: ``python -m docs.package_tree``.

A file's caption is the first line of its docstring, so that both are true or neither is.
"""
import ast
from pathlib import Path
from typing import List

from .generated_block import rewrite_block

__all__ = ['PAGE', 'page', 'tree']

PACKAGE = Path(__file__).parents[1] / 'timm_assemble'
PAGE = Path(__file__).parent / 'architecture.md'
BEGIN, END = '<!-- tree:begin -->', '<!-- tree:end -->'
# in the order of the imports: each folder imports from those below it
FOLDERS = (
    'cli', 'convert', 'examples', 'retrieval', 'robustness', 'timm_scripts', 'evaluation', 'hub', 'training', 'recipes',
    'deploy', 'models', 'layers', 'utils')


def _caption(path: Path) -> str:
    """Return the first line of a module's docstring, of a command with its help."""
    module = ast.parse(path.read_text(encoding='utf-8'))
    caption = (ast.get_docstring(module) or '').partition('\n')[0]
    help_ = next((node.value for node in module.body if isinstance(node, ast.Assign)
                  and ast.unparse(node.targets[0]) == 'HELP'), None)
    return f'{caption[:-1]}: {ast.literal_eval(help_)}' if help_ is not None else caption


def _lines(folder: Path, indent: str) -> List[str]:
    captions = {path.name: _caption(path) for path in sorted(folder.glob('*.py')) if path.name != '__init__.py'}
    width = max(map(len, captions), default=0)
    lines = [f'{indent}{name:<{width}}  {caption}' for name, caption in captions.items()]
    for inner in sorted(path for path in folder.iterdir() if (path / '__init__.py').exists()):
        lines += [f'{indent}{inner.name}/  {_caption(inner / "__init__.py")}', *_lines(inner, indent + '    ')]
    return lines


def tree() -> str:
    """Return the folders and modules of the package, one caption each.

    Raises:
        ValueError: A folder of the package is not in ``FOLDERS``, or the other way round.
    """
    found = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    if found != set(FOLDERS):
        raise ValueError(f'FOLDERS must be the folders of the package, differing in {sorted(found ^ set(FOLDERS))}')
    top = [f'    {name:<13}  {_caption(PACKAGE / name)}' for name in ('__init__.py', '__main__.py', 'train_hook.py')]
    lines = ['timm_assemble/', *top]
    for name in FOLDERS:
        lines += [f'    {name}/  {_caption(PACKAGE / name / "__init__.py")}', *_lines(PACKAGE / name, ' ' * 8)]
    return '\n'.join(['```', *lines, '```'])


def page() -> str:
    """Return docs/architecture.md with the current tree."""
    return rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, tree())


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
