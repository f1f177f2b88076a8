"""Queries and the gallery to search: folders of classes, a CSV file, or the test split of a published data set."""
import csv
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..data.images import FileList, list_images, make_file_list, natural_order, printable, some
from ..errors import UserError, check, error_line, reading

__all__ = ['DATASETS', 'Published', 'SearchSet', 'find_images']


class Published(NamedTuple):
    """A published test split: its class in pytorch-metric-learning, the number of images, and the usual recalls."""

    title: str
    kind: str
    images: int
    recall_at: Tuple[int, ...]


DATASETS: Dict[str, Published] = {
    'cub': Published('CUB-200-2011', 'CUB', 5924, (1, 2, 4, 8)),
    'cars196': Published('Cars196', 'Cars196', 8131, (1, 2, 4, 8)),
    'sop': Published('Stanford Online Products', 'StanfordOnlineProducts', 60502, (1, 10, 100, 1000)),
}
SPLITS = ('query', 'gallery', 'distractor', 'train')
COLUMNS = ('path', 'label', 'split')


class SearchSet:
    """Queries, and the gallery that they are searched in; of equal lists each image is searched among all others.

    Attributes:
        lists: ``gallery``, and ``query`` unless the gallery's images are the queries.
        classes: Names of the classes of both.
        query_labels: (Q,) numbers of the queries' classes.
        gallery_labels: (N,) numbers of the classes of the gallery's images; -1 for distractors of no class.
        own: (Q,) number of the gallery's image that is the same file as the query; -1 for none.
    """

    def __init__(self, parameter: str, gallery: FileList, query: Optional[FileList] = None) -> None:
        query = gallery if query is None else query
        self.parameter, self.query, self.gallery = parameter, query, gallery
        self.lists = dict(gallery=gallery) if query == gallery else dict(query=query, gallery=gallery)
        self.classes = sorted({*query.classes, *gallery.classes}, key=natural_order)
        number = {name: i for i, name in enumerate(self.classes)}
        self.query_labels, self.gallery_labels = (
            np.array([-1 if i < 0 else number[files.classes[i]] for _, i in files.files]) for files in (query, gallery))
        if query == gallery:
            self.own = np.arange(len(query.files))
            return
        numbers_of: Dict[Any, List[int]] = {}
        for i, (name, _) in enumerate(gallery.files):
            numbers_of.setdefault(_file(gallery.folder / name), []).append(i)
        same = [numbers_of.get(_file(query.folder / name), [-1]) for name, _ in query.files]
        twice = next((found for found in same if len(found) > 1), None)
        if twice:  # a query would find itself
            raise UserError(f'{parameter} must have an image that is a query once, got '
                            f'{some([printable(gallery.files[i][0]) for i in twice])}, which are one file')
        self.own = np.array([found[0] for found in same])
        other = np.flatnonzero((self.own >= 0) & (self.query_labels != self.gallery_labels[self.own]))
        if len(other):
            raise UserError(f'{parameter} must give an image the class that it has as a query, '
                            f'{printable(query.files[other[0]][0])} has another one')

    def relevant(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """Return how many images each of these queries has to find in these of the gallery; if none any, UserError."""
        counts = np.bincount(self.gallery_labels[gallery] + 1, minlength=len(self.classes) + 1)[1:]
        found = counts[self.query_labels[queries]] - np.isin(self.own[queries], gallery)
        if not found.any():
            have, asked = (some([*map(printable, files.classes)]) for files in (self.gallery, self.query))
            raise UserError(f'{self.parameter} must have two images of one class that can be read, a query and another '
                            f'image; got {len(gallery)} of {len(self.gallery.files)} images, of the classes {have}, '
                            f'and queries of {asked}')
        return found


def _file(path: Path) -> Any:
    """Return what all links to a file share."""
    try:
        found = path.stat()
    except OSError:  # a link to nowhere
        return path
    return found.st_dev, found.st_ino


def _listed(root: Path, files: Sequence[Tuple[str, Optional[str]]], notes: Sequence[str] = ()) -> FileList:
    """Return the list of files that are given by path and class, None for no class."""
    names = [Path(os.path.relpath(path, root) if os.path.isabs(path) else path).as_posix() for path, _ in files]
    missing = [printable(name) for name in names if not os.path.isfile(root / name)]
    if missing or not files:
        raise UserError(f'data_dir must have the images that its lists name, {printable(root)} lacks {len(missing)} of '
                        f'{len(files)}{f": {missing[0]}" if missing else ""}')
    classes = sorted({label for _, label in files if label is not None}, key=natural_order)
    number: Dict[Optional[str], int] = {None: -1, **{label: i for i, label in enumerate(classes)}}
    return make_file_list(root, classes, [(name, number[label]) for name, (_, label) in zip(names, files)], notes)


def _published_split(root: Path, dataset: str, download: bool) -> SearchSet:
    from pytorch_metric_learning import datasets

    published = DATASETS[dataset]
    try:
        data = getattr(datasets, published.kind)(str(root), split='test', download=download)
    except (OSError, ValueError, IndexError) as e:
        hint = '' if download else '; `download` fetches it into a new or empty folder'
        raise UserError(f'data_dir must hold {published.title} as published, {printable(root)} does not: '
                        f'{error_line(e)}{hint}') from e
    files = [(os.path.abspath(path), str(label)) for path, label in zip(data.paths, data.labels)]
    notes = [] if len(files) == published.images else [
        f'{root}: {published.title} has {published.images} test images as published, {len(files)} here']
    return SearchSet('data_dir', _listed(root, files, notes))


def _read_split(path: Path, root: Path) -> SearchSet:
    """Read a CSV file with the columns path, label and split."""
    with reading('split', path), path.open(encoding='utf-8-sig', newline='') as file:
        try:
            lines = csv.DictReader(file)
            columns = [*(lines.fieldnames or ())]
            rows = [[(row.get(key) or '').strip() for key in COLUMNS] for row in lines]
        except (UnicodeDecodeError, csv.Error) as e:
            raise UserError(f'split must be a CSV file in UTF-8, {printable(path)} is not: {error_line(e)}') from e
    check(all(columns.count(key) == 1 for key in COLUMNS), 'split', ','.join(columns),
          'a CSV file with the columns path, label and split, once each')
    found: Dict[str, Dict[str, Optional[str]]] = dict(query={}, gallery={})
    for name, label, split in rows:
        if split == 'train':
            continue
        distracts = split == 'distractor'
        check(split in SPLITS and bool(name) and bool(label or distracts), 'split', f'{name},{label},{split}',
              f'a CSV file with path, label and split, which is one of {", ".join(SPLITS)}')
        role, image = found['gallery' if distracts else split], os.path.abspath(root / name)
        check(image not in role, 'split', name, 'a CSV file that has an image once as query and once in the gallery')
        role[image] = None if distracts else label
    check(all(found.values()), 'split', str(path), 'a CSV file with images of query and gallery')
    query, gallery = (_listed(root, [*files.items()]) for files in found.values())
    return SearchSet('split', gallery, query)


def find_images(
        data_dir: Optional[Path], *, query: Optional[Path] = None, gallery: Optional[Path] = None,
        split: Optional[Path] = None, dataset: Optional[str] = None, download: bool = False,
) -> SearchSet:
    """List the queries and the gallery; a published data set's are the images of its test classes."""
    pair = query or gallery
    if sum(map(bool, (dataset, split, pair))) > 1 or bool(data_dir or split) == bool(pair) or (
            bool(query) != bool(gallery)):
        raise UserError('data_dir must be given, alone or with `dataset` or `split`, or `query` and `gallery` instead')
    if download and not dataset:
        raise UserError('download needs `dataset`: a folder of classes is not fetched')
    if query and gallery:
        return SearchSet('gallery', list_images(gallery, 'gallery'), list_images(query, 'query'))
    if split:
        return _read_split(split, data_dir or split.parent)
    assert data_dir is not None
    return _published_split(data_dir, dataset, download) if dataset else SearchSet(
        'data_dir', list_images(data_dir, 'data_dir'))
