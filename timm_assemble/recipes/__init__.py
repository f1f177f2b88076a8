"""Training recipes: the arguments of timm's train.py for every row of the paper, one YAML file each, and reading them.

A file's first line is its row and what was published, and there alone; the rest is for people and for train.py. Reads
configurations of the user's as well, with errors that say what is meant. Knows YAML and nothing of timm.
"""
import difflib
import itertools
import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Union

import yaml

__all__ = ['Recipe', 'check_keys', 'read_config', 'read_recipe', 'recipe_names', 'recipe_path']

FOLDER = Path(__file__).parent
FIRST_LINE = re.compile(
    r'# (?:Row )?(?P<row>\S+): top-1 (?P<top1>[\d.]+) %'
    r'(?:, mCE (?P<mce>[\d.]+), (?P<images_per_s>\d+) images/s, tested at (?P<test_size>\d+))?\.')


class Recipe(NamedTuple):
    """A recipe and what the paper (arXiv 2001.06268) publishes of it; empty where it publishes nothing.

    ``row`` is that of the paper's ablation or the data set of a fine-tuning, ``epochs`` counts those of the warm-up,
    ``top1`` is in percent, ``images_per_s`` on one Tesla P40, ``test_size`` the side of the test pictures.
    """

    name: str
    row: str
    model: str
    epochs: int
    top1: str
    mce: str
    images_per_s: str
    test_size: str


def recipe_names() -> List[str]:
    """Names of all recipes, in the order of the paper's rows, fine-tunings last."""
    rows = {path.stem: _published(path)['row'] for path in FOLDER.glob('*.yaml')}
    return sorted(rows, key=lambda name: (rows[name][0] != 'E', len(rows[name]), rows[name]))


def recipe_path(name: str) -> Path:
    """The YAML file of a recipe.

    Args:
        name: Name, with or without ``.yaml``.

    Raises:
        ValueError: No recipe has this name; the nearest that there are.
    """
    names, wanted = recipe_names(), name[:-len('.yaml')] if name.endswith('.yaml') else name
    if wanted in names:
        return FOLDER / f'{wanted}.yaml'
    near = difflib.get_close_matches(wanted.lower(), names, 3)
    meant = f'did you mean {", ".join(near)}?' if near else '`timm-assemble recipes` lists them'
    raise ValueError(f'no recipe has the name {name!r}; {meant}')


def read_recipe(name: str) -> Recipe:
    """A recipe's model, length and published result; an unknown name is a ValueError."""
    path = recipe_path(name)
    config = read_config(path)
    epochs = config['epochs'] + (config['warmup_epochs'] if config['warmup_prefix'] else 0)
    return Recipe(path.stem, model=config['model'], epochs=epochs, **_published(path))


def _published(path: Path) -> Dict[str, str]:
    with path.open(encoding='utf-8') as file:
        found = FIRST_LINE.match(file.readline())
    assert found is not None, f'{path.name} must begin with its row and what was published'
    return found.groupdict(default='')


def read_config(path: Union[str, Path]) -> Dict[str, Any]:
    """A configuration of train.py: argument names and their values.

    Args:
        path: YAML file.

    Raises:
        ValueError: The file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        config = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except OSError as e:
        raise ValueError(f'configuration {path} cannot be read: {e.strerror or e}') from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ValueError(f'configuration {path} must be YAML: {" ".join(str(e).split())}') from e
    if not isinstance(config, dict):
        raise ValueError(f'configuration {path} must be a mapping of argument names to values, got '
                         f'{"an empty file" if config is None else type(config).__name__}')
    return config


def check_keys(keys: Iterable[Any], known: Iterable[str], where: Union[str, Path]) -> None:
    """Refuse a key that is no argument of train.py, which older versions of it pass over.

    Args:
        keys: Keys of a configuration.
        known: Names that the script's arguments have in it (argparse's ``dest``), the commoner ones first.
        where: The file they are from, for the message.

    Raises:
        ValueError: A key that is not known: the key, the file, and the known name nearest to it.
    """
    names = list(dict.fromkeys(known))
    for key in keys:
        if key not in names:
            near = _nearest(str(key), names)
            meant = f'; did you mean {near!r}?' if near else ''
            raise ValueError(f'{where}: {key!r} is no argument of the script{meant}')


def _nearest(key: str, names: Sequence[str]) -> Optional[str]:
    """The name that was most probably meant: another spelling, a typo, an abbreviation, or a part of it."""
    def initials(name: str) -> str:
        return ''.join(word[:1] for word in name.split('_'))

    plain = key.lower().replace('-', '_').strip('_ ')
    words = set(plain.split('_'))
    fewer = [name for name in names if words > set(name.split('_'))]
    return next(itertools.chain(
        difflib.get_close_matches(plain, names, 1, cutoff=0.85),
        (name for name in names if name == initials(plain) or initials(name) == plain),  # learning_rate: lr; wd
        sorted(fewer, key=len, reverse=True),  # mixup_alpha: mixup
        (name for name in names if words < set(name.split('_'))),  # ema: model_ema
        difflib.get_close_matches(plain, names, 1),
        (name for name in names if plain.startswith(name)),  # optimizer: opt
    ), None)
