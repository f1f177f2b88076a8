"""Training recipes: one YAML file of train.py's arguments for every row of the paper, and others of its networks.

The first line of a file is its row, ``# Row E10.``, ``# E11 with views.``, ``# A1.`` or ``# Food-101.``; the second
says what it is. The published numbers are in :mod:`.paper`.
"""
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Tuple, Union

import yaml

from ..errors import UserError, did_you_mean, error_line
from .paper import FINE_TUNING_TOP1, NEAREST, ROWS, UNPUBLISHED, Nearest

__all__ = ['Recipe', 'check_keys', 'find_config', 'read_config', 'read_recipe', 'recipe_names',
           'recipe_path']

FOLDER = Path(__file__).parent


class Recipe(NamedTuple):
    """A recipe and the paper's numbers for it, as text; ``''`` where the paper publishes none.

    Attributes:
        name: Name of the recipe.
        row: Row of the paper, a variation of one, or the data set of a fine-tuning.
        description: What it is.
        model, epochs, top1, mce, images_per_s, test_size: As in :class:`.paper.Row`.
        nearest: The nearest training with a published accuracy, of recipes that are not the paper's.
    """

    name: str
    row: str
    description: str
    model: str
    epochs: int
    top1: str
    mce: str
    images_per_s: str
    test_size: str
    nearest: Optional[Nearest] = None


def _header(path: Path) -> Tuple[str, str]:
    with path.open(encoding='utf-8') as file:
        row, description = (file.readline().strip().removeprefix('# ').removesuffix('.') for _ in range(2))
    return row.removeprefix('Row '), description


def recipe_names() -> List[str]:
    """Return the names of all recipes in the order of the paper's rows, then modern ones, fine-tunings last."""
    rows = [*ROWS, *UNPUBLISHED, *NEAREST, *FINE_TUNING_TOP1]
    return [path.stem for path in sorted(FOLDER.glob('*.yaml'), key=lambda path: rows.index(_header(path)[0]))]


def recipe_path(name: str, expected: str = 'name must be a recipe') -> Path:
    """Return the YAML file of a recipe.

    Args:
        name: Name, with or without ``.yaml``.
        expected: Beginning of the error message.

    Raises:
        UserError: The recipe does not exist; the message has the nearest names.
    """
    wanted, names = name.removesuffix('.yaml'), recipe_names()
    if wanted not in names:
        meant = did_you_mean(wanted, names, 3) or '; `timm-assemble recipes` lists them'
        raise UserError(f'{expected}, got {name!r}{meant}')
    return FOLDER / f'{wanted}.yaml'


def find_config(config: str) -> Path:
    """Return a configuration file, given as a path or as the name of a recipe; a file comes first.

    Raises:
        UserError: Neither exists; the message has the nearest recipes.
    """
    return Path(config) if Path(config).is_file() else recipe_path(config, 'config must be a file or a recipe')


def read_recipe(name: str) -> Recipe:
    """Return a recipe with the paper's numbers; errors are those of :func:`recipe_path`."""
    path = recipe_path(name)
    config = read_config(path)
    epochs = config['epochs'] + (config['warmup_epochs'] if config.get('warmup_prefix') else 0)
    row, description = _header(path)
    numbers = (str(FINE_TUNING_TOP1.get(row, '')), '', '', '') if row not in ROWS else (
        f'{ROWS[row].top1:.2f}', f'{ROWS[row].mce:.2f}', str(ROWS[row].images_per_s or ''), str(ROWS[row].test_size))
    return Recipe(path.stem, row, description, config['model'], epochs, *numbers, NEAREST.get(row))


def read_config(path: Union[str, Path]) -> Dict[str, Any]:
    """Read a YAML file of train.py's arguments.

    Raises:
        UserError: The file cannot be read or is not a mapping with names as keys.
    """
    try:
        config = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as e:
        raise UserError(f'config {path} cannot be read: {e.strerror or e}') from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f'config {path} must be YAML: {error_line(e)}') from e
    if not isinstance(config, dict):
        raise UserError(f'config {path} must map argument names to values, got '
                         f'{"an empty file" if config is None else type(config).__name__}')
    for key in config:
        if not isinstance(key, str):
            raise UserError(f'config {path} must map argument names to values, got the name {key!r}')
    return config


def check_keys(keys: Iterable[str], known: Iterable[str], path: Union[str, Path]) -> None:
    """Check that the keys of the configuration ``path`` are ``known`` arguments of train.py.

    Raises:
        UserError: A key is unknown; the message has the nearest name.
    """
    names = list(known)
    for key in keys:
        if key not in names:
            raise UserError(f'config {path} has the unknown argument {key!r}{did_you_mean(key, names)}')
