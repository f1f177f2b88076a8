"""Test sets of ImageNet's classes: what their folders' names mean, and among which classes models predict."""
import json
import pkgutil
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from timm.data import ImageNetInfo

from ...errors import UserError
from ...evaluation.image_files import class_folders, some

__all__ = [
    'ANY', 'IMAGENET', 'OBJECTNET', 'LabelMap', 'LabelSpace', 'check_folders', 'known_test_set', 'objectnet_classes',
    'synsets',
]

MAPPINGS = ('folder_to_objectnet_label.json', 'objectnet_to_imagenet_1k.json', 'pytorch_to_imagenet_2012_id.json',
            'imagenet_to_label_2012_v2')


class LabelMap(NamedTuple):
    """Classes of a model for the folders of a test set."""

    targets: Tuple[Tuple[int, ...], ...]  # right predictions for each folder
    mask: Optional[Tuple[int, ...]] = None  # classes among which the model predicts; None for all of its own


class LabelSpace(NamedTuple):
    """How the folders of images are named, and among which classes models predict.

    ``folders`` is ``'any'`` (synsets, or one folder for each class of the model), ``'synsets'``, ``'numbers'`` (0 to
    999) or ``'objectnet'``. ``mask`` has the synsets among which models predict, None for all classes.
    """

    folders: str
    mask: Optional[Tuple[str, ...]] = None
    targets: Optional[Tuple[Tuple[int, ...], ...]] = None  # of ObjectNet's folders, from its own mappings


def synsets(name: str = '') -> List[str]:
    """Return the synsets of ImageNet, or of one of its variants ``'a'`` and ``'r'``, as timm has them."""
    if not name:
        return ImageNetInfo('imagenet-1k').label_names()
    text = pkgutil.get_data('timm.data', f'_info/imagenet_{name}_synsets.txt')
    assert text is not None
    return text.decode().split()


ANY = LabelSpace('any')
IMAGENET = LabelSpace('synsets')
OBJECTNET = LabelSpace('objectnet')
NUMBERED = LabelSpace('numbers')


def known_test_set(name: str) -> LabelSpace:
    """Return how a test set is measured, by its name.

    ``imagenet-a`` and ``imagenet-r`` are measured among their 200 classes, as their authors do; names that begin with
    ``imagenetv2`` or ``imagenet-v2`` have folders 0 to 999; other names have any folders.
    """
    if name in ('imagenet-a', 'imagenet-r'):
        return LabelSpace('synsets', tuple(synsets(name[-1])))
    if name.startswith(('imagenetv2', 'imagenet-v2')):
        return NUMBERED
    if name == 'objectnet':
        return OBJECTNET
    return IMAGENET if name == 'imagenet-sketch' else ANY


def check_folders(name: str, folder: Path, space: LabelSpace) -> List[str]:
    """Return notes on missing classes; ValueError if a folder is none of the test set's classes."""
    found = class_folders(folder)
    if space.folders == 'synsets':
        expected: Sequence[str] = space.mask or synsets()
    elif space.folders == 'numbers':
        expected = [str(i) for i in range(1000)]
    else:
        return []
    unknown = sorted({*found} - {*expected})
    if unknown:
        raise UserError(f'test_sets {name} must have folders of its {len(expected)} classes, {folder} also has '
                         f'{some(unknown)}')
    missing = sorted({*expected} - {*found})
    return [f'{name}: {len(missing)} of {len(expected)} classes have no folder: {some(missing)}'] if missing else []


def objectnet_classes(root: Path) -> Dict[str, Tuple[int, ...]]:
    """Return ImageNet's classes of the folders in ``root/images`` that have some, by the mappings in ``root``.

    ObjectNet's own four files in ``root/mappings`` decide.
    """
    folder = root / 'mappings'
    try:
        texts = [(folder / name).read_text(encoding='utf-8') for name in MAPPINGS]
        label_of_folder, names_of_label, numbers = (json.loads(text) for text in texts[:3])
        class_of_number = {int(number): int(index) for index, number in numbers.items()}
        class_of_name = {line.strip(): class_of_number[i] for i, line in enumerate(texts[3].splitlines())
                         if line.strip()}
        classes = {label: tuple(sorted(class_of_name[name.strip()] for name in names.split(';')))
                   for label, names in names_of_label.items()}
    except (OSError, ValueError, KeyError, AttributeError) as e:
        raise UserError(f'test_sets objectnet must be a folder with images/ and mappings/ as published, with '
                         f'{", ".join(MAPPINGS)}; {root}: {type(e).__name__}: {e}') from e
    return {name: classes[label] for name, label in label_of_folder.items() if label in classes}
