"""From what is asked for to the cells that measure it; all folders are looked at first. Knows every kind of cell."""
import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .datasets.corruptions import library_versions
from .datasets.images import class_folders, list_folder
from .datasets.protocols import PROTOCOLS, Preparation, Protocol, check_corruptions
from .tasks.cache import Cell
from .tasks.imagenet_c import clean_cell, generated_cells, imagenet_c_cells
from .tasks.imagenet_p import imagenet_p_cells
from .tasks.shift import shift_cell

__all__ = ['Plan', 'Request', 'make_plan']


class Request(NamedTuple):
    """Folders and options, as the command line has them; None for what is not asked for."""

    imagenet_c: Optional[Path] = None
    imagenet_p: Optional[Path] = None
    generate: Optional[Path] = None
    clean: Optional[Path] = None
    protocol: Optional[str] = None
    corruptions: Optional[Tuple[str, ...]] = None
    input_size: Optional[int] = None
    shift: Optional[int] = None
    seed: int = 0


class Plan(NamedTuple):
    """Cells in the order of measuring; ``labelled`` is a folder whose classes models must know, None without one;
    ``data`` says of each folder what it holds."""

    protocol: Protocol
    corruptions: Tuple[str, ...]
    size: int
    seed: int
    text: str
    cells: List[Cell]
    classes: Tuple[str, ...]
    labelled: Optional[Path]
    data: Dict[str, Any]
    libraries: Dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether it has all the corruptions of the protocol."""
        return self.corruptions == self.protocol.corruptions


def _protocol(request: Request) -> Protocol:
    """Refuse what does not go together."""
    if not (request.imagenet_c or request.imagenet_p or request.generate or request.clean):
        raise ValueError('there must be pictures: --imagenet-c, --imagenet-p, --generate or --clean')
    if request.generate and (request.imagenet_c or request.clean):
        raise ValueError('--generate makes corruptions of clean pictures, and takes neither --imagenet-c nor --clean')
    name = request.protocol or ('assemble' if request.generate else 'imagenet-c')
    if name not in PROTOCOLS:
        raise ValueError(f'protocol must be one of {[*PROTOCOLS]}, got {name!r}')
    if request.generate and request.imagenet_p and not request.protocol:
        raise ValueError('--generate has pictures of 256 and --imagenet-p films of 224: give --protocol imagenet-c, or '
                         'measure them one after the other')
    if name == 'assemble' and (request.imagenet_c or request.imagenet_p):
        raise ValueError('--protocol assemble is of pictures made by --generate; published ones are 224 x 224')
    if request.corruptions and not (request.imagenet_c or request.generate):
        raise ValueError('--corruptions are of --imagenet-c or --generate, and neither is there')
    if request.shift and not (request.imagenet_c or request.generate or request.clean):
        raise ValueError('--shift needs pictures: --clean, --generate or --imagenet-c')
    return PROTOCOLS[name]


def _data(cells: List[Cell], folders: Dict[str, Optional[Path]]) -> Dict[str, Any]:
    data = {}
    for group, folder in folders.items():
        own = [cell for cell in cells if cell.group == group]
        if own and folder:
            prints = [cell.identity['data'] for cell in own]
            data[group] = dict(
                folder=str(folder), items=sum(cell.items for cell in own), classes=len(class_folders(own[0].folder)),
                fingerprint=hashlib.sha256(' '.join(prints).encode()).hexdigest())
    return data


def make_plan(request: Request) -> Plan:
    """Look at all folders and say what is to be measured.

    Raises:
        ValueError: Options that do not go together, and folders that are missing or not alike.
    """
    protocol = _protocol(request)
    corruptions = check_corruptions(protocol, request.corruptions)
    size = request.input_size or protocol.crop
    if request.shift and request.shift >= size:
        raise ValueError(f'--shift must be below the side of the pictures, {size}, got {request.shift}: crops '
                         f'with nothing in common tell nothing')
    whole = Preparation(protocol.resize, protocol.crop, size)
    cropped = Preparation(0, protocol.crop, size)
    cells: List[Cell] = []
    on_disk: List[Tuple[Cell, Preparation]] = []
    texts: List[str] = []
    clean = request.generate or request.clean
    if clean:
        listing = list_folder(clean)
        cells.append(clean_cell(listing, whole))
        on_disk.append((cells[0], whole))
        texts.append(f'clean pictures: {whole.describe()}')
    if request.generate:
        cells += generated_cells(listing, whole, corruptions, request.seed)
        texts.append(f'{len(corruptions)} corruptions made anew by imagecorruptions-imaug '
                     f'{metadata.version("imagecorruptions-imaug")} (seed {request.seed}, not compressed): '
                     f'{whole.describe(generated=True)}')
    if request.imagenet_c:
        found = imagenet_c_cells(request.imagenet_c, cropped, corruptions)
        cells += found
        on_disk += [(cell, cropped) for cell in found]
        texts.append(f'{len(corruptions)} corruptions, pictures as published: {cropped.describe()}')
    if request.imagenet_p:
        cells += imagenet_p_cells(request.imagenet_p, cropped)
        texts.append(f'films as published: {cropped.describe()}, noise against the first frame, others against the '
                     f'one before')
    if request.shift:
        cells += [shift_cell(cell, preparation, request.shift, request.seed) for cell, preparation in on_disk]
        texts.append(f'shift: two random crops of {size} at most {request.shift} pixels apart (seed {request.seed}), '
                     f'of pictures resized in proportion and continued by reflection where they are too small')
    labelled = [next(c.folder for c in cells if c.group == g)
                for g in ('clean', 'corruption') if any(c.group == g for c in cells)]
    classes = class_folders((labelled or [cells[0].folder])[0])
    if len(labelled) == 2 and class_folders(labelled[1]) != classes:
        raise ValueError(f'--clean must have the classes of --imagenet-c, and {request.clean} has others')
    return Plan(
        protocol, corruptions, size, request.seed, '; '.join(texts), cells, classes, labelled[0] if labelled else None,
        _data(cells, dict(clean=clean, corruption=request.imagenet_c, perturbation=request.imagenet_p)),
        library_versions() if request.generate else {})
