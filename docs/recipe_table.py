"""Put the tables of recipes into docs/recipes.md: ``python -m docs.recipe_table``."""
import sys
from pathlib import Path
from typing import List

from docs.generated_block import markdown_table, rewrite_block
from timm_assemble.recipes import read_recipe, recipe_names
from timm_assemble.recipes.budget import estimate
from timm_assemble.recipes.paper import MOBILENETS, ROWS

__all__ = ['PAGE', 'budget_table', 'mobilenet_table', 'page', 'table']

PAGE = Path(__file__).parent / 'recipes.md'
BEGIN, END = '<!-- recipes:begin -->', '<!-- recipes:end -->'
MOBILE_BEGIN, MOBILE_END = '<!-- mobilenet recipes:begin -->', '<!-- mobilenet recipes:end -->'
TITLES = ('recipe', 'row', 'model', 'what it is', 'epochs', 'top-1 (%)', 'mCE', 'images/s', 'at')
NUMBERS = TITLES[4:]
MOBILE_TITLES = (*TITLES[:7], 'mFR', 'images/s', 'quantized')

BUDGET_BEGIN, BUDGET_END = '<!-- budget:begin -->', '<!-- budget:end -->'
BUDGETS = (('one_gpu_16', 'assemble_resnet50_d'), ('one_gpu_100', 'assemble_resnet50'), ('a2', 'assemble_resnet50'),
           ('assemble_resnet50', 'assemble_resnet50'), ('assemble_resnet152', 'assemble_resnet152'))
BUDGET_TITLES = (
    'recipe', 'model', 'epochs', 'images/s', 'GPU-hours', 'memory (GB)', 'store (GB)', 'published top-1 (%)')


def _cells(name: str) -> List[str]:
    recipe = read_recipe(name)
    cells = [f'`{name}`', recipe.row, f'`{recipe.model}`', recipe.description, str(recipe.epochs), recipe.top1,
             recipe.mce, recipe.images_per_s, recipe.test_size]
    return [cell or '-' for cell in cells]


def table() -> str:
    """Return one line per recipe but MobileNet's: its description and the paper's numbers."""
    names = [name for name in recipe_names() if read_recipe(name).model not in MOBILENETS]
    return markdown_table(TITLES, [_cells(name) for name in names], NUMBERS)


def mobilenet_table() -> str:
    """Return one line per recipe of MobileNet, with the columns of the paper's table."""
    lines = []
    for name in recipe_names():
        row = ROWS.get(read_recipe(name).row)
        if row and row.model in MOBILENETS:
            speeds = [f'{speed:.2f}' for speed in row.pixel3] if row.pixel3 else ['-', '-']
            lines.append([*_cells(name)[:7], f'{row.mfr:.2f}', *speeds])
    return markdown_table(MOBILE_TITLES, lines, MOBILE_TITLES[4:])


def budget_table() -> str:
    """Return five recipes with what they take on ImageNet-1k."""
    lines = []
    for e in (estimate(*case) for case in BUDGETS):
        lines.append([f'`{e.recipe.name}`', f'`{e.model}`', str(e.recipe.epochs), f'{e.images_per_s:.0f}',
                      f'{e.gpu_hours:.1f}', f'{e.memory_gb:.1f}', f'{e.store_gb:.1f}', e.published()])
    return markdown_table(BUDGET_TITLES, lines, BUDGET_TITLES[2:-1])


def page() -> str:
    """Return docs/recipes.md with the current tables."""
    text = rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, table())
    text = rewrite_block(text, BUDGET_BEGIN, BUDGET_END, budget_table())
    return rewrite_block(text, MOBILE_BEGIN, MOBILE_END, mobilenet_table())


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
    sys.stdout.write(f'{table()}\n\n{mobilenet_table()}\n')
