"""Put the table of recipes into docs/recipes.md: ``python -m docs.recipe_table``."""
import sys
from pathlib import Path
from typing import List

from docs.generated_block import rewrite_block
from timm_assemble.recipes import read_recipe, recipe_names

__all__ = ['PAGE', 'page', 'table']

PAGE = Path(__file__).parent / 'recipes.md'
BEGIN, END = '<!-- recipes:begin -->', '<!-- recipes:end -->'
TITLES = ('recipe', 'row', 'model', 'what it is', 'epochs', 'top-1 (%)', 'mCE', 'images/s', 'at')
NUMBERS = TITLES[4:]


def _cells(name: str) -> List[str]:
    recipe = read_recipe(name)
    cells = [f'`{name}`', recipe.row, f'`{recipe.model}`', recipe.description, str(recipe.epochs), recipe.top1,
             recipe.mce, recipe.images_per_s, recipe.test_size]
    return [cell or '-' for cell in cells]


def table() -> str:
    """Return one line per recipe: its description and the paper's numbers."""
    grid = [list(TITLES)] + [_cells(name) for name in recipe_names()]
    widths = [max(map(len, column)) for column in zip(*grid)]
    rule = ['-' * (width - 1) + (':' if title in NUMBERS else '-') for title, width in zip(TITLES, widths)]
    aligned = [[c.rjust(w) if t in NUMBERS else c.ljust(w) for t, c, w in zip(TITLES, row, widths)] for row in grid]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (aligned[0], rule, *aligned[1:]))


def page() -> str:
    """Return docs/recipes.md with the current table."""
    return rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, table())


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
    sys.stdout.write(table() + '\n')
