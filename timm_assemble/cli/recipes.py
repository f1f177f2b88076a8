"""``timm-assemble recipes``."""
import argparse

from ..errors import UserError

HELP = "list the training recipes, for train.py's -c, or print one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Prints the table of recipes, or the recipe NAME. Top-1 (%%) and mCE are from the paper (arXiv 2001.06268).')
    parser.add_argument('name', nargs='?', metavar='NAME', help='recipe to print')
    parser.add_argument('--path', action='store_true', help='print the path of its file instead of its text')


def run(args: argparse.Namespace) -> None:
    from ..recipes import read_recipe, recipe_names, recipe_path

    if args.name is not None:
        path = recipe_path(args.name)
        print(path if args.path else path.read_text(encoding='utf-8'), end='\n' if args.path else '')
        return
    if args.path:
        raise UserError('--path needs the NAME of a recipe')
    rows = [('name', 'row', 'model', 'epochs', 'top-1', 'mCE')]
    for recipe in map(read_recipe, recipe_names()):
        rows.append((recipe.name, recipe.row, recipe.model, str(recipe.epochs), recipe.top1, recipe.mce or '-'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) if i < 3 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))))
