"""``timm-assemble recipes``."""
import argparse
from typing import Collection, List, Sequence

from ..errors import UserError
from .arguments import positive

HELP = "list the training recipes, for train.py's -c, those within a budget, or print one"


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours < float('inf'):
        raise ValueError
    return hours


_hours.__name__ = 'number of hours'  # argparse's error has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        'Prints the table of recipes, or the recipe NAME. Top-1 (%) and mCE are from the paper (arXiv 2001.06268). '
        'With --gpu-hours, prints what ImageNet-1k takes with each recipe within the budget, the best published top-1 '
        'first.')
    parser.add_argument('name', nargs='?', metavar='NAME', help='recipe to print')
    parser.add_argument('--path', action='store_true', help='print the path of its file instead of its text')
    budget = parser.add_argument_group(
        'budget', 'Estimates, not measured: three forward passes per step, at the speed of inference on an H200.')
    budget.add_argument('--gpu-hours', type=_hours, metavar='N', help='hours of one GPU')
    budget.add_argument('--gpus', type=positive, default=1, metavar='M', help='GPUs of the training (default: 1)')
    budget.add_argument('--model', help="network of all recipes (default: each recipe's own)")


def _print(rows: Sequence[Sequence[str]], left: Collection[str]) -> None:
    """Print aligned columns, those of the titles ``left`` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print('  '.join(cell.ljust(width) if title in left else cell.rjust(width)
                        for title, cell, width in zip(rows[0], row, widths)).rstrip())


def _print_budget(args: argparse.Namespace) -> None:
    from ..recipes.budget import DATA_GB, estimates

    found = estimates(args.gpu_hours, args.model)
    if not found:
        raise UserError(f'gpu_hours must be enough for one recipe, got {args.gpu_hours:g}')
    rows: List[Sequence[str]] = [
        ('name', 'model', 'epochs', 'images/s', 'GPU-hours', 'hours', 'memory (GB)', 'store (GB)', 'published top-1')]
    rows += [(e.recipe.name, e.model, str(e.recipe.epochs), f'{args.gpus * e.images_per_s:.0f}', f'{e.gpu_hours:.1f}',
              f'{e.gpu_hours / args.gpus:.1f}', f'{e.memory_gb:.1f}', f'{e.store_gb:.1f}', e.published())
             for e in found]
    _print(rows, ('name', 'model', 'published top-1'))
    print(f'\nEstimates for ImageNet-1k ({DATA_GB} GB of archives) on {args.gpus} x H200, without validation: see '
          f'docs/recipes.md, "Budget".')


def run(args: argparse.Namespace) -> None:
    from ..recipes import read_recipe, recipe_names, recipe_path

    if args.gpu_hours is not None:
        if args.name is not None:
            raise UserError(f'name must be left out with `gpu_hours`, got {args.name!r}')
        return _print_budget(args)
    if args.model or args.gpus > 1:
        raise UserError(f'{"model" if args.model else "gpus"} needs `gpu_hours`')
    if args.name is not None:
        path = recipe_path(args.name)
        print(path if args.path else path.read_text(encoding='utf-8'), end='\n' if args.path else '')
        return
    if args.path:
        raise UserError('--path needs the NAME of a recipe')
    rows = [('name', 'row', 'model', 'epochs', 'top-1', 'mCE')]
    for recipe in map(read_recipe, recipe_names()):
        rows.append((recipe.name, recipe.row, recipe.model, str(recipe.epochs), recipe.top1, recipe.mce or '-'))
    _print(rows, ('name', 'row', 'model'))
