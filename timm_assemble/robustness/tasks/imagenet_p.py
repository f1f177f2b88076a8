"""Short films of a picture that is perturbed a little more in each frame, in ImageNet-P's form, as cells.

On disk ``perturbation/class/*.mp4``, as published. Knows PyAV, which reads them, and the evaluator.
"""
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterable, List, Sequence, Tuple, Union

import torch
from PIL import Image
from torch.utils.data import Dataset

from ..datasets.images import Listing, Unreadable, list_folder, to_tensor
from ..datasets.protocols import Preparation
from ..metrics import ALEXNET_FLIP_RATE, compares_with_first, count_flips
from .cache import Cell, Subject
from .classify import predict

__all__ = ['PERTURBATIONS', 'FilmDataset', 'imagenet_p_cells', 'read_frames']

PERTURBATIONS = tuple(ALEXNET_FLIP_RATE)
EXTENSIONS = ('.mp4',)
FRAMES = 31  # of most of ImageNet-P's films; more or fewer are taken as they are


def read_frames(path: Path) -> List[Image.Image]:
    """All frames, RGB, in the order in which they are shown, which is not always the one they are stored in.

    Raises:
        OSError: It is no film, or has fewer frames than it says: one cut off is decoded without complaint.
    """
    import av

    try:
        with av.open(str(path)) as film:
            frames = [frame.to_image() for frame in film.decode(video=0)]
            said = film.streams.video[0].frames  # 0 where the file does not say
    except (av.FFmpegError, IndexError, UnicodeDecodeError) as e:  # the second where a file has sound alone
        raise OSError(f'no film: {e}') from e
    if len(frames) < said:
        raise OSError(f'it says that it has {said} frames, and {len(frames)} can be read')
    return frames


class FilmDataset(Dataset):
    """The films of a listing: (frames, 3, S, S) uint8 and the class, or :class:`Unreadable`."""

    def __init__(self, listing: Listing, preparation: Preparation):
        self.listing = listing
        self.preparation = preparation

    def __len__(self) -> int:
        return len(self.listing.files)

    def __getitem__(self, index: int) -> Union[Tuple[torch.Tensor, int], Unreadable]:
        name, target = self.listing.files[index]
        path = self.listing.folder / name
        try:
            frames = [self.preparation.after(self.preparation.before(frame)) for frame in read_frames(path)]
            if len(frames) < 2:
                raise ValueError(f'it has {len(frames)} frames, and flips need 2 or more')
        except (OSError, ValueError) as e:
            return Unreadable(path, ' '.join(str(e).split()) or type(e).__name__)
        return to_tensor(frames), target


def _measure(name: str, subject: Subject, batches: Iterable[Any]) -> Dict[str, Any]:
    films = flips = pairs = 0
    for batch in batches:
        for classes in predict(subject.classify, batch.images).split(list(batch.counts)):
            changed, of = count_flips(classes.tolist(), compares_with_first(name))
            films, flips, pairs = films + 1, flips + changed, pairs + of
    return dict(films=films, flips=flips, pairs=pairs)


def _dataset(folder: Path, preparation: Preparation) -> FilmDataset:
    return FilmDataset(list_folder(folder, EXTENSIONS), preparation)


def imagenet_p_cells(root: Path, preparation: Preparation, perturbations: Sequence[str] = PERTURBATIONS) -> List[Cell]:
    """Cells of a tree of films, after looking at all of it.

    Args:
        root: Folder with a folder a perturbation, in it a folder a class.
        preparation: How frames come to the model; ImageNet-P's are never resized before the crop.
        perturbations: Which must be there.

    Raises:
        ValueError: Folders are missing, or not all alike in number of films; all are told in one line.
    """
    missing = [name for name in perturbations if not (root / name).is_dir()]
    if missing:
        raise ValueError(f'--imagenet-p must be a folder with the {len(perturbations)} perturbations '
                         f'{", ".join(perturbations)}; {root} lacks {", ".join(missing)}')
    listings = {name: list_folder(root / name, EXTENSIONS) for name in perturbations}
    counts = {name: len(listing.files) for name, listing in listings.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f'--imagenet-p {root} must have as many films in all perturbations: '
                         f'{", ".join(f"{name} has {count}" for name, count in counts.items())}')
    return [Cell(
        'perturbation', name, 0, listing.folder,
        dict(measure='flips', group='perturbation', name=name, severity=0, data=listing.fingerprint,
             preparation=preparation._asdict()),
        partial(_dataset, listing.folder, preparation), partial(_measure, name),
        lambda pictures: max(1, pictures // FRAMES), len(listing.files), FRAMES * 3 * preparation.size ** 2,
    ) for name, listing in listings.items()]
