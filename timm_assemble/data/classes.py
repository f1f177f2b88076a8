"""The classes of a model, and which of them a folder, a label or a line of a class map means."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Sequence, Tuple

from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.data.readers.class_map import load_class_map

from ..errors import UserError, error_line
from .images import natural_order, printable, some

__all__ = ['ClassMap', 'Mapped', 'read_class_map']

BACKGROUND = 'background'
BY_ORDER = 'the order of the folders, because nothing names the classes of the model'


class Mapped(NamedTuple):
    """The class of each folder, and what decided it."""

    indices: Dict[str, int]
    by: str


def _imagenet(num_classes: int) -> Tuple[Optional[List[str]], Optional[Dict[str, str]]]:
    """Return the synsets and descriptions of ImageNet-1k, -12k, -21k or -22k; of 1001 classes the first is background.
    """
    background = num_classes == 1001
    subset = infer_imagenet_subset(dict(num_classes=num_classes - background))
    if subset is None:
        return None, None
    info = ImageNetInfo(subset)
    return [BACKGROUND] * background + info.label_names(), info.label_descriptions(as_dict=True)  # type: ignore


def read_class_map(path: Path) -> List[str]:
    """Return the class names of a class map of timm's train.py in the order of the classes, ``''`` for missing ones.

    Args:
        path: ``.txt`` with a name per line, or ``.pkl`` with a dict from names to classes.

    Raises:
        UserError: It is no class map, or gives a class two names.
    """
    try:
        indices = {str(name): int(index) for name, index in load_class_map(str(path)).items()}
    except Exception as e:  # timm raises AssertionError, pickle's errors and others
        raise UserError(f'class_map {path} must be a class map as train.py reads it: {error_line(e)}') from e
    names = [''] * (max(indices.values(), default=-1) + 1)
    for name, index in indices.items():
        if index < 0 or names[index]:
            raise UserError(f'class_map {path} must give each class one name, got {name!r} for class {index}')
        names[index] = name
    return names


@dataclass(frozen=True)
class ClassMap:
    """Names of a model's classes.

    Attributes:
        num_classes: Number of classes.
        names: Names of all classes, in the order of the logits; None where nothing names them.
        by: Where the names are from.
        descriptions: Descriptions by name, or None.
    """

    num_classes: int
    names: Optional[Tuple[str, ...]] = None
    by: str = ''
    descriptions: Optional[Dict[str, str]] = None

    @classmethod
    def of_model(cls, model: Any) -> 'ClassMap':
        """Return the classes of a timm model: those that its configuration names, else ImageNet's synsets, else none.
        """
        cfg = getattr(model, 'pretrained_cfg', None) or {}
        if cfg.get('label_names'):
            return cls(model.num_classes, tuple(cfg['label_names']), "the model's label_names",
                       cfg.get('label_descriptions'))
        return cls.of_count(model.num_classes)

    @classmethod
    def of_count(cls, num_classes: int) -> 'ClassMap':
        """Return the classes of a model that names none."""
        names, descriptions = _imagenet(num_classes)
        if names is None:
            return cls(num_classes)
        return cls(num_classes, tuple(names), "ImageNet's synsets", descriptions)

    @property
    def _decides(self) -> bool:
        """Whether names must match; a model of as many classes as ImageNet may have other ones."""
        return self.names is not None and self.by != "ImageNet's synsets"

    def _candidates(self) -> List[Tuple[str, Sequence[str]]]:
        """Return sets of names that folders may have, with what they are from."""
        if self.names is None:
            return []
        candidates: List[Tuple[str, Sequence[str]]] = [(self.by, self.names)]
        if self.descriptions:
            candidates.append((f'the descriptions of {self.by}', [self.descriptions.get(n, n) for n in self.names]))
        synsets, descriptions = _imagenet(self.num_classes)
        if self._decides and synsets and descriptions:
            # a model that names ImageNet's classes by words: its folders may have the synsets
            words = [descriptions.get(name, name) for name in synsets]
            if all(a == b or a == b.partition(',')[0] for a, b in zip(self.names, words)):
                candidates.append(("ImageNet's synsets", synsets))
        return candidates

    def find(self, folders: Collection[str], parameter: str = 'folder', where: str = '') -> Mapped:
        """Return the class of each folder.

        Names decide wherever there are names: some classes may have no folder, and their order does not matter. Without
        names there must be one folder for each class, in timm's order.

        Args:
            folders: Names of the class folders.
            parameter: What errors call them.
            where: For errors, such as ``' in /images'``.

        Raises:
            UserError: The folders have other names than the classes, or another number where nothing names them.
        """
        folders = sorted(folders, key=natural_order)
        for by, names in self._candidates():
            index = {name: i for i, name in enumerate(names)}
            if folders and len(index) == len(names) and index.keys() >= set(folders):
                return Mapped({name: index[name] for name in folders}, by)
        if self._decides:
            assert self.names is not None
            unknown = [name for name in folders if name not in self.names]
            raise UserError(
                f'{parameter} must have folders named by {self.by}, {some(self.names, 10)}; got '
                f'{some([*map(printable, folders)], 10)}{where}, of which {some([*map(printable, unknown)])} '
                f'{"is" if len(unknown) == 1 else "are"} no class of the model')
        if len(folders) != self.num_classes:
            synsets = ' or folders named by synsets' if self.names else ''
            raise UserError(f'{parameter} must have one folder for each of the {self.num_classes} classes{synsets}, '
                            f'because nothing names the classes of the model, got {len(folders)} folders{where}: '
                            f'{some([*map(printable, folders)])}')
        return Mapped({name: i for i, name in enumerate(folders)}, BY_ORDER)
