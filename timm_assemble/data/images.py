"""Image files: which files are images, what their pixels are, and what cannot be read."""
import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, Collection, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image
from timm.utils import natural_key

from ..errors import UserError, error_line

__all__ = [
    'EXTENSIONS', 'FileList', 'UnreadableError', 'check_file', 'decode_image', 'list_images', 'make_file_list',
    'printable', 'read_image', 'some']

EXTENSIONS = ('.jpeg', '.jpg', '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')
LFS_POINTER = b'version https://git-lfs.github.com/spec/'


class UnreadableError(UserError):
    """An image file that cannot be read.

    Attributes:
        path: The file, as text that can be printed.
        reason: Why it cannot be read.
    """

    def __init__(self, path: Union[str, os.PathLike], reason: str) -> None:
        self.path, self.reason = printable(path), reason
        super().__init__(f'{self.path} cannot be read: {reason}', parameter='')


class FileList(NamedTuple):
    """Images of a folder, in timm's order.

    Attributes:
        folder: The folder.
        classes: Names of the class folders, those without images too, in timm's order.
        files: Name relative to the folder, with ``/``, and number of the class in ``classes``; -1 without classes.
        fingerprint: Of names and sizes.
        names: Of the names alone: equal for the same images in two folders.
        notes: On class folders without images, and files that are not read.
    """

    folder: Path
    classes: Tuple[str, ...]
    files: Tuple[Tuple[str, int], ...]
    fingerprint: str
    names: str
    notes: Tuple[str, ...]


def printable(path: Union[str, os.PathLike]) -> str:
    """Return a path as text in one line that any terminal and file takes: other bytes and characters as escapes."""
    text = os.fsencode(path).decode('utf-8', 'backslashreplace')
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def some(values: Collection[str], count: int = 5) -> str:
    """Return the first values as a text, and how many more there are."""
    first = ', '.join([*values][:count])
    return first + (f' and {len(values) - count} more' if len(values) > count else '')


def natural_order(name: str) -> Tuple[Any, str]:
    """Return timm's sorting key of names, numbers by value and without regard to case; equal keys by the name."""
    return natural_key(name), name


def decode_image(file: Union[Path, BinaryIO], mode: str = 'RGB') -> Image.Image:
    """Decode an image, 8 bits per channel.

    - 16 bits per channel are scaled to 8; Pillow would cut everything above 255.
    - Other integers and floats have no known range, and are a ValueError.
    - CMYK, palettes, gray and 1-bit images become RGB; transparency is dropped, with the colors below it.
    - The EXIF rotation is not applied, as in timm.

    Args:
        file: Path, or a binary file.
        mode: Mode of the result, ``'RGB'`` or ``'L'``, or another one of Pillow.
    """
    with Image.open(file) as image:
        if image.mode.startswith('I;16') or image.mode == 'I':
            if image.mode == 'I' and image.format != 'PNG':  # older Pillow's mode of a PNG with 16 bits
                raise ValueError('it has 32 bits per pixel, whose range is unknown')
            values = np.asarray(image).astype(np.int64)
            return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert(mode)
        if image.mode == 'F':
            raise ValueError('it has floats as pixels, whose range is unknown')
        if image.mode == 'P' and 'transparency' in image.info:
            return image.convert('RGBA').convert(mode)  # the same pixels, without Pillow's warning
        return image.convert(mode)


def check_file(path: Path) -> None:
    """Raise ValueError for what is no image whatever its name says."""
    if printable(path.name) != str(path.name):
        raise ValueError('its name is not UTF-8')
    if path.is_dir():
        raise ValueError('it is a folder')
    if path.is_symlink() and not path.exists():
        raise ValueError(f'it is a link to {printable(os.readlink(path))}, which does not exist')
    with path.open('rb') as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError('it is a pointer of Git LFS, without the image')


def read_image(path: Path, mode: str = 'RGB') -> Image.Image:
    """Read an image file as :func:`decode_image` does.

    Raises:
        UnreadableError: It cannot be read, whatever Pillow raises; links to nothing, pointers of Git LFS, folders, and
            files whose name is not UTF-8 cannot.
    """
    path = Path(path)
    try:
        check_file(path)
        return decode_image(path, mode)
    except Exception as e:  # Pillow raises errors of many kinds for damaged files
        reason = e.strerror if isinstance(e, OSError) and e.strerror else error_line(e)
        raise UnreadableError(path, printable(reason)) from e


def _walk(folder: Path, extensions: Sequence[str]) -> Iterator[Tuple[str, List[str], List[str]]]:
    """Yield each folder below, itself included, with its images and other files, as names; hidden ones are skipped.

    A folder that is named like an image counts as an image that cannot be read.
    """
    for root, folders, files in os.walk(folder, followlinks=True):
        images = [name for name in folders if name.lower().endswith(tuple(extensions))]
        folders[:] = sorted(name for name in folders if not name.startswith('.') and name not in images)
        files = [name for name in files if not name.startswith('.')]
        images += [name for name in files if name.lower().endswith(tuple(extensions))]
        yield os.path.relpath(root, folder), images, [name for name in files if name not in {*images}]


def make_file_list(
        folder: Path, classes: Sequence[str], files: Sequence[Tuple[str, int]], notes: Sequence[str] = (),
) -> FileList:
    """Return the list of files, with its fingerprints."""
    digest, names = hashlib.sha256(), hashlib.sha256()
    for name, _ in files:
        path = folder / name
        size = os.stat(path).st_size if path.exists() else -1
        digest.update(os.fsencode(f'{name}\t{size}\n'))
        names.update(os.fsencode(f'{name}\n'))
    return FileList(folder, tuple(classes), tuple(files), digest.hexdigest(), names.hexdigest(), tuple(notes))


def list_images(
        folder: Path, parameter: str = 'folder', *, labelled: bool = True, only: Optional[Collection[str]] = None,
        extensions: Sequence[str] = EXTENSIONS,
) -> FileList:
    """List the images of a folder, at any depth, in timm's order.

    What is named like an image is listed, readable or not: :func:`read_image` says what is not. Hidden files and
    folders are skipped.

    Args:
        folder: The folder. The class of an image is the name of the folder that it is in, as in timm.
        parameter: Name of ``folder`` in errors.
        labelled: Whether images have classes: those beside the class folders are not read then.
        only: Names of the classes to list; all if None.
        extensions: Of the files.

    Raises:
        UserError: ``folder`` is not a folder, or has no images.
    """
    expected = 'a folder with one folder per class' if labelled else 'a folder of images'
    if not folder.is_dir():
        raise UserError(f'{parameter} must be {expected}, got {printable(folder)}')
    found: List[Tuple[str, str]] = []  # name and class
    names, other, filled = set(), [], set()
    for relative, images, others in _walk(folder, extensions):
        name = os.path.basename(relative)
        prefix = '' if relative == '.' else f'{relative}/'.replace(os.sep, '/')
        other += [prefix + file for file in others]
        if labelled and (relative == '.' or (only is not None and name not in only)):
            other += [prefix + file for file in images] if relative == '.' else []
            continue
        leaf = labelled and not images and not next(os.walk(folder / relative))[1]
        if labelled and (images or leaf):
            names.add(name)
        if images:
            filled.add(name)
        found += [(prefix + image, name) for image in images]
    if not found:
        raise UserError(f'{parameter} must be {expected}, with files that end in {", ".join(extensions)}; '
                        f'{printable(folder)} has none')
    classes = tuple(sorted(names, key=natural_order))
    number = {name: i for i, name in enumerate(classes)}
    found.sort(key=lambda file: natural_order(file[0]))
    notes = []
    empty = [name for name in classes if name not in filled]
    if empty:
        notes.append(f'{printable(folder)}: {len(empty)} of {len(classes)} class folders have no images: '
                     f'{some([*map(printable, empty)])}')
    if other:
        notes.append(f'{printable(folder)}: {len(other)} files are not read, because they are in no class folder or '
                     f'their names do not end in {", ".join(extensions)}: {some([*map(printable, sorted(other))])}')
    return make_file_list(folder, classes, [(file, number.get(name, -1)) for file, name in found], notes)
