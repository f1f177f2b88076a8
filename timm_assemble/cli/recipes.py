"""``timm-assemble recipes``."""
import argparse

HELP = "list the training recipes, for train.py's -c, or print one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Without a NAME a table of all: top-1 (%%) and mCE are those that the paper (arXiv 2001.06268) publishes.')
    parser.add_argument('name', nargs='?', metavar='NAME', help='recipe to print, as train.py and you can read it')
    parser.add_argument('--path', action='store_true', help="print the path of NAME's file in the place of its text")


def run(args: argparse.Namespace) -> None:
    from ..recipes import read_recipe, recipe_names, recipe_path

    if args.name is not None:
        path = recipe_path(args.name)
        print(path if args.path else path.read_text(encoding='utf-8'), end='\n' if args.path else '')
        return
    if args.path:
        raise ValueError('--path needs the NAME of a recipe')
    rows = [('name', 'row', 'model', 'epochs', 'top-1', 'mCE')]
    for name in recipe_names():
        recipe = read_recipe(name)
        rows.append((name, recipe.row, recipe.model, str(recipe.epochs), recipe.top1, recipe.mce or '-'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) if i < 3 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))))
