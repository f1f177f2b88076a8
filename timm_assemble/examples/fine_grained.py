"""The paper's fine-grained data sets as image folders: ``python -m timm_assemble.examples.fine_grained``.

torchvision reads (and downloads) the published files; timm's readers know none of these data sets from torchvision.
"""
import argparse
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..errors import UserError
from ..runtime.atomic import atomic_folder

__all__ = ['DATA_SETS', 'DataSet', 'main', 'write_folders']


class DataSet(NamedTuple):
    """A data set as torchvision has it, and the split that publications use.

    Attributes:
        title: Name of the data set.
        reader: Class in ``torchvision.datasets``.
        train: Its splits that are trained on; the test split validates.
        classes: Number of classes.
        images: Images to train on and to test.
    """

    title: str
    reader: str
    train: Tuple[str, ...]
    classes: int
    images: Tuple[int, int]


DATA_SETS: Dict[str, DataSet] = {
    'food101': DataSet('Food-101', 'Food101', ('train',), 101, (75_750, 25_250)),
    'cars': DataSet('Stanford Cars', 'StanfordCars', ('train',), 196, (8_144, 8_041)),
    'flowers': DataSet('Oxford-Flowers', 'Flowers102', ('train', 'val'), 102, (2_040, 6_149)),
    'aircraft': DataSet('FGVC Aircraft', 'FGVCAircraft', ('trainval',), 100, (6_667, 3_333)),
    'pets': DataSet('Oxford-IIIT Pets', 'OxfordIIITPet', ('trainval',), 37, (3_680, 3_669)),
}


def _samples(data_set: DataSet, root: Path, split: str, download: bool) -> Iterator[Tuple[Path, int, str]]:
    """Yield file, label and class name of every image, without decoding it."""
    from torchvision import datasets  # type: ignore[import-untyped]

    try:
        read: Any = getattr(datasets, data_set.reader)(str(root), split=split, download=download)
    except (RuntimeError, ValueError) as e:  # torchvision says what is missing
        raise UserError(f"root must have torchvision's files of {data_set.title}, got {root}: {e}") from e
    if hasattr(read, 'loader'):
        read.loader = Path
        samples: Any = (read[i] for i in range(len(read)))
    else:  # OxfordIIITPet decodes its images itself
        samples = zip(read._images, read._labels)
    for file, label in samples:
        yield Path(file), int(label), read.classes[label]


def write_folders(name: str, root: Path, output: Path, download: bool = False) -> Dict[str, Tuple[int, int]]:
    """Write ``train`` and ``validation`` with one folder per class, of links to the images; written atomically.

    The folders' alphabetical order is that of the labels.

    Args:
        name: A name of ``DATA_SETS``.
        root: Folder in which torchvision's class finds or downloads its own, such as ``food-101``.
        output: A new folder.
        download: Whether torchvision may download the files. Stanford Cars cannot be downloaded any more.

    Returns:
        Number of images and of classes of both splits.

    Raises:
        UserError: ``name`` is unknown, torchvision does not find the files, or ``output`` exists.
    """
    if name not in DATA_SETS:
        raise UserError(f'name must be one of {", ".join(DATA_SETS)}, got {name!r}')
    data_set, counts = DATA_SETS[name], {}
    with atomic_folder(output) as made:
        for folder, splits in (('train', data_set.train), ('validation', ('test',))):
            labels: List[int] = []
            for split in splits:
                for file, label, class_name in _samples(data_set, root, split, download):
                    target = made / folder / f'{label:03d}_{re.sub("[^A-Za-z0-9.-]+", "_", class_name)}'
                    target.mkdir(parents=True, exist_ok=True)
                    (target / file.name).symlink_to(file.absolute())
                    labels.append(label)
            counts[folder] = len(labels), len(set(labels))
    return counts


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command; return 2 for bad use, after one line."""
    parser = argparse.ArgumentParser(
        'python -m timm_assemble.examples.fine_grained',
        description="Write a fine-grained data set of the paper as an image folder, of links to torchvision's files.")
    parser.add_argument('name', choices=DATA_SETS, metavar='NAME', help=', '.join(DATA_SETS))
    parser.add_argument('root', type=Path, metavar='ROOT', help="torchvision's folder of data sets")
    parser.add_argument('output', type=Path, metavar='OUTPUT', help='new folder with train and validation')
    parser.add_argument('--download', action='store_true', help='let torchvision download the files into ROOT')
    args = parser.parse_args(argv)
    try:
        counts = write_folders(args.name, args.root, args.output, args.download)
    except (ValueError, OSError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 2
    data_set = DATA_SETS[args.name]
    for (folder, (images, classes)), published in zip(counts.items(), data_set.images):
        print(f'{args.output / folder}: {images} images of {classes} classes; '
              f'published: {published} of {data_set.classes}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
