"""Test sets of ImageNet's classes: what their folders' names mean, and among which classes models predict.

Another test set is a line of ``TEST_SETS``.
"""
import fnmatch
import hashlib
import json
import pkgutil
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from timm.data import ImageNetInfo, RealLabelsImagenet

from ..data.classes import ClassMap
from ..data.images import FileList, make_file_list, printable, some
from ..errors import UserError, error_line

__all__ = [
    'ANY', 'NO_CLASS', 'REAL', 'TEST_SETS', 'KnownSet', 'LabelMap', 'LabelSpace', 'known_test_set', 'real_labels',
    'synsets']

MAPPINGS = ('folder_to_objectnet_label.json', 'objectnet_to_imagenet_1k.json', 'pytorch_to_imagenet_2012_id.json',
            'imagenet_to_label_2012_v2')

REAL = 'imagenet-real'  # not a folder, but labels of the clean images


class LabelMap(NamedTuple):
    """Classes of a model for the folders of a test set."""

    targets: Tuple[Tuple[int, ...], ...]  # right predictions for each folder
    mask: Optional[Tuple[int, ...]] = None  # classes among which the model predicts; None for all of its own
    by: str = ''  # what decided them, '' for ImageNet's synsets


class LabelSpace(NamedTuple):
    """What the names of folders mean.

    Attributes:
        synsets: Folder and ImageNet's synsets of its images; None if the names of the model's classes decide.
        mask: Synsets among which models predict; None for all classes.
        classes: Whether the images are of the model's classes.
        border: Pixels that are cut off all sides of an image.
    """

    synsets: Optional[Tuple[Tuple[str, Tuple[str, ...]], ...]] = None
    mask: Optional[Tuple[str, ...]] = None
    classes: bool = True
    border: int = 0

    def label_map(self, classes: ClassMap, folders: Sequence[str], parameter: str, where: str = '') -> LabelMap:
        """Return a model's classes of folders; UserError if the model has others."""
        if (self.synsets is not None or self.mask) and classes.num_classes not in (1000, 1001):
            raise UserError(f"{parameter} must be a model of ImageNet's 1000 classes, got {classes.num_classes}")
        mask = None
        if self.mask:
            found = classes.find(self.mask, parameter).indices
            mask = tuple(found[name] for name in self.mask)
        if not self.classes:
            return LabelMap((), mask)
        if self.synsets is not None:
            index, of_folder = classes.find(synsets(), parameter).indices, dict(self.synsets)
            return LabelMap(tuple(tuple(index[s] for s in of_folder[name]) for name in folders), mask)
        indices, by = classes.find(folders, parameter, where)
        return LabelMap(tuple((indices[name],) for name in folders), mask, by)


ANY = LabelSpace()
NO_CLASS = LabelSpace(classes=False)


class KnownSet(NamedTuple):
    """Where the images of a test set are, and which folders it has.

    ``expected`` are the names of its folders, None for any; others are an error, or ignored if ``ignores``.
    """

    folder: Path
    space: LabelSpace = ANY
    expected: Optional[Tuple[str, ...]] = None
    ignores: bool = False

    def check_folders(self, name: str, found: Sequence[str]) -> List[str]:
        """Return notes on missing classes; UserError if a folder is none of the test set's classes."""
        if self.expected is None:
            return []
        unknown = sorted({*found} - {*self.expected})
        if unknown and not self.ignores:
            raise UserError(f'test_sets {name} must have folders of its {len(self.expected)} classes, '
                            f'{printable(self.folder)} also has {some([*map(printable, unknown)])}')
        missing = sorted({*self.expected} - {*found})
        return [f'{name}: {len(missing)} of {len(self.expected)} classes have no folder: {some(missing)}'
                ] if missing else []


def synsets(name: str = '') -> List[str]:
    """Return the synsets of ImageNet, or of one of its variants ``'a'`` and ``'r'``, as timm has them."""
    if not name:
        return ImageNetInfo('imagenet-1k').label_names()
    text = pkgutil.get_data('timm.data', f'_info/imagenet_{name}_synsets.txt')
    assert text is not None
    return text.decode().split()


def _synset_folders(variant: str, root: Path) -> KnownSet:
    """Return a test set with folders of synsets; a variant is measured among its own, as its authors do."""
    names = tuple(synsets(variant))
    return KnownSet(root, LabelSpace(tuple((name, (name,)) for name in names), names if variant else None), names)


def _numbered_folders(root: Path) -> KnownSet:
    """Return a test set with folders 0 to 999."""
    names = {str(i): (name,) for i, name in enumerate(synsets())}
    return KnownSet(root, LabelSpace(tuple(names.items())), tuple(names))


def real_labels(labels: Path, clean: FileList) -> Tuple[FileList, LabelSpace]:
    """Return ImageNet's validation images that have ReaL labels, with one class for each set of labels.

    Source: Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159. Any label of an image is right; images without
    labels are left out.
    """
    try:
        known = RealLabelsImagenet(range(50000), labels).real_labels
        numbers = {name: {*known[name.rpartition('/')[2]]} for name, _ in clean.files}
        if any(type(c) is not int or not 0 <= c < 1000 for of in numbers.values() for c in of):
            raise ValueError('a label is not from 0 to 999')
        sets = {name: ' '.join(synsets()[c] for c in sorted(of)) for name, of in numbers.items()}
    except KeyError as e:
        raise UserError(f"clean must have ImageNet's validation images for test_sets {REAL}, got {e}") from e
    except (OSError, ValueError, TypeError, IndexError, AssertionError, RecursionError) as e:
        raise UserError(f'test_sets {REAL} must be a JSON file of 50,000 lists of classes, got {printable(labels)}: '
                        f'{error_line(e)}') from e
    classes = {name: i for i, name in enumerate(sorted({*sets.values()} - {''}))}
    if not classes:
        raise UserError(f'test_sets {REAL} must have labels of images of `clean`, got {printable(labels)} without any')
    files = make_file_list(clean.folder, [*classes], [(name, classes[of]) for name, of in sets.items() if of])
    digest = hashlib.sha256(json.dumps([files.fingerprint, sets]).encode()).hexdigest()
    return files._replace(fingerprint=digest), LabelSpace(tuple((name, tuple(name.split())) for name in classes))


def _objectnet(root: Path) -> KnownSet:
    """Return ObjectNet as published, whose own four files in ``root/mappings`` say which ImageNet classes it has.

    Its images have a red border, against training on them.
    """
    try:
        texts = [(root / 'mappings' / name).read_text(encoding='utf-8') for name in MAPPINGS]
        label_of_folder, names_of_label, numbers = (json.loads(text) for text in texts[:3])
        class_of_number = {int(number): int(index) for index, number in numbers.items()}
        class_of_name = {line.strip(): class_of_number[i] for i, line in enumerate(texts[3].splitlines())
                         if line.strip()}
        imagenet = synsets()
        of_label = {label: tuple(imagenet[c] for c in sorted(class_of_name[n.strip()] for n in names.split(';')))
                    for label, names in names_of_label.items()}
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as e:
        raise UserError(f'test_sets objectnet must be a folder with images/ and mappings/ as published, with '
                        f'{", ".join(MAPPINGS)}; {printable(root)}: {type(e).__name__}: {error_line(e)}') from e
    folders = {name: of_label[label] for name, label in label_of_folder.items() if label in of_label}
    return KnownSet(root / 'images', LabelSpace(tuple(folders.items()), border=2), tuple(folders), ignores=True)


TEST_SETS: Dict[str, Callable[[Path], KnownSet]] = {
    'imagenet-a': partial(_synset_folders, 'a'),
    'imagenet-r': partial(_synset_folders, 'r'),
    'imagenet-sketch': partial(_synset_folders, ''),
    'imagenetv2*': _numbered_folders,
    'imagenet-v2*': _numbered_folders,
    'objectnet': _objectnet,
}


def known_test_set(name: str, root: Path) -> KnownSet:
    """Return how a test set is measured, by its name; other names have any folders."""
    make = next((make for pattern, make in TEST_SETS.items() if fnmatch.fnmatch(name, pattern)), KnownSet)
    return make(root)
