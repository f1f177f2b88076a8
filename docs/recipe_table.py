"""Put the table of recipes into docs/recipes.md: ``python -m docs.recipe_table``."""
import sys
from pathlib import Path
from typing import List

from docs.generated_block import markdown_table, rewrite_block
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
    return markdown_table(TITLES, [_cells(name) for name in recipe_names()], NUMBERS)


def page() -> str:
    """Return docs/recipes.md with the current table."""
    return rewrite_block(PAGE.read_text(encoding='utf-8'), BEGIN, END, table())


if __name__ == '__main__':
    PAGE.write_text(page(), encoding='utf-8')
    sys.stdout.write(table() + '\n')
