"""Folders of pictures in ImageNet-C's form, and clean ones with corruptions made anew, as cells.

On disk ``corruption/severity/class/*.JPEG``, as published. Knows pictures and the evaluator.
"""
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

from ..datasets.corruptions import library_versions, warm_up
from ..datasets.images import Corruption, Listing, PictureDataset, list_folder
from ..datasets.protocols import Preparation
from ..metrics import SEVERITIES
from .cache import Cell, Subject
from .classify import measure_errors

__all__ = ['clean_cell', 'generated_cells', 'imagenet_c_cells']


def _measure(subject: Subject, batches: Iterable[Any]) -> Dict[str, Any]:
    return measure_errors(subject.classify, batches, subject.class_map)._asdict()


def _dataset(folder: Path, preparation: Preparation, corruption: Optional[Corruption]) -> PictureDataset:
    if corruption is not None:
        warm_up(corruption.name, corruption.severity)
    return PictureDataset(list_folder(folder), preparation, corruption)


def _cell(
        group: str, name: str, severity: int, listing: Listing, preparation: Preparation, made: Dict[str, Any],
        corruption: Optional[Corruption] = None,
) -> Cell:
    identity = dict(
        measure='errors', group=group, name=name, severity=severity, data=listing.fingerprint,
        preparation=preparation._asdict(), **made)
    # the listing itself is not held: 75 of 50,000 names would fill the memory
    return Cell(
        group, name, severity, listing.folder, identity, partial(_dataset, listing.folder, preparation, corruption),
        _measure, lambda pictures: pictures, len(listing.files), 3 * preparation.size ** 2)


def clean_cell(listing: Listing, preparation: Preparation) -> Cell:
    """The pictures as they are."""
    return _cell('clean', 'clean', 0, listing, preparation, {})


def generated_cells(listing: Listing, preparation: Preparation, corruptions: Sequence[str], seed: int) -> List[Cell]:
    """Each corruption made anew at each severity; what decides the pixels is part of the cells' identity.

    Args:
        listing: The clean pictures.
        preparation: Corruption happens between its crop and its last resizing.
        corruptions: Names.
        seed: The run's; each picture has its own from it.
    """
    made = dict(seed=seed, libraries=library_versions())
    return [_cell('corruption', name, severity, listing, preparation, made, Corruption(name, severity, seed))
            for name in corruptions for severity in SEVERITIES]


def _list(values: Sequence[str], most: int = 5) -> str:
    return ', '.join(values[:most]) + (f' and {len(values) - most} more' if len(values) > most else '')


def imagenet_c_cells(root: Path, preparation: Preparation, corruptions: Sequence[str]) -> List[Cell]:
    """Cells of a tree of corrupted pictures, after looking at all of it.

    Args:
        root: Folder with a folder a corruption, in it a folder a severity, in it a folder a class.
        preparation: How pictures come to the model; ImageNet-C's are never resized before the crop.
        corruptions: Which must be there.

    Raises:
        ValueError: Folders are missing, or not all alike in classes and number of pictures; all are told in one line.
    """
    if not root.is_dir():
        raise ValueError(f'--imagenet-c must be a folder with a folder a corruption, got {root}')
    wanted = [(name, severity) for name in corruptions for severity in SEVERITIES]
    absent = [name for name in corruptions if not (root / name).is_dir()]
    missing = absent + [f'{name}/{severity}' for name, severity in wanted
                        if name not in absent and not (root / name / str(severity)).is_dir()]
    if missing:
        raise ValueError(f'--imagenet-c {root} must have {len(corruptions)} corruptions with severities 1 to 5, and '
                         f'lacks {_list(missing)}; --corruptions names those to measure, without an mCE')
    cells: List[Cell] = []
    first = list_folder(root / wanted[0][0] / str(wanted[0][1]))
    unlike: List[str] = []
    for name, severity in wanted:
        listing = list_folder(root / name / str(severity))
        if len(listing.files) != len(first.files) or listing.classes != first.classes:
            unlike.append(f'{name}/{severity} has {len(listing.files)} of {len(listing.classes)}')
        cells.append(_cell('corruption', name, severity, listing, preparation, {}))
    if unlike:
        raise ValueError(f'--imagenet-c {root} must have the same classes and as many pictures in all folders: '
                         f'{wanted[0][0]}/{wanted[0][1]} has {len(first.files)} pictures of {len(first.classes)} '
                         f'classes, {_list(unlike)}')
    return cells
