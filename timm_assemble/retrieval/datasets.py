"""Images to search: a folder per class, or the published test split of CUB-200-2011, Cars196 or SOP."""
import os
from pathlib import Path
from typing import Dict, NamedTuple, Optional, Tuple

from ..data.images import FileList, list_images, make_file_list, printable
from ..errors import UserError, error_line

__all__ = ['DATASETS', 'Published', 'find_images']


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


def _published_split(root: Path, dataset: str, download: bool) -> FileList:
    from pytorch_metric_learning import datasets

    published = DATASETS[dataset]
    try:
        data = getattr(datasets, published.kind)(str(root), split='test', download=download)
    except (OSError, ValueError, IndexError) as e:
        hint = '' if download else '; `download` fetches it into a new or empty folder'
        raise UserError(f'data_dir must hold {published.title} as published, {printable(root)} does not: '
                        f'{error_line(e)}{hint}') from e
    classes = sorted({*data.labels})
    number = {label: i for i, label in enumerate(classes)}
    files = [(Path(os.path.relpath(path, root)).as_posix(), number[label])
             for path, label in zip(data.paths, data.labels)]
    missing = [name for name, _ in files if not (root / name).is_file()]
    if missing or not files:
        raise UserError(f'data_dir must have the images that its lists name, {printable(root)} lacks {len(missing)} of '
                         f'{len(files)}{f": {missing[0]}" if missing else ""}')
    notes = [] if len(files) == published.images else [
        f'{root}: {published.title} has {published.images} test images as published, {len(files)} here']
    return make_file_list(root, tuple(map(str, classes)), files, notes)


def find_images(data_dir: Path, dataset: Optional[str] = None, download: bool = False) -> FileList:
    """List the images to search, each with its class; a published data set's are those of its test classes."""
    if dataset is None:
        if download:
            raise UserError('download needs `dataset`: a folder of classes is not fetched')
        return list_images(data_dir, 'data_dir')
    return _published_split(data_dir, dataset, download)
