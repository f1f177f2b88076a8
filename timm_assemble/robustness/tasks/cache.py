"""Cells, the units of work, and the store that keeps each one's figures once it is done. Knows the standard library.

A cell is one model on one corruption at one severity, on one perturbation, or on the clean pictures. Its identity holds
all that decides its figures, so that a store never gives the figures of other weights, pictures or protocols.
"""
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence

__all__ = ['Cell', 'CellStore', 'Kept', 'Subject', 'identity_of']


class Subject(NamedTuple):
    """A model to be measured: ``classify`` as in the evaluator, ``identity`` what tells it from every other,
    ``class_map`` its class of each folder (None: the same, or no classes are needed)."""

    label: str
    identity: Dict[str, Any]
    classify: Callable[..., Any]
    class_map: Optional[Sequence[int]] = None


class Cell(NamedTuple):
    """What is measured on what.

    ``group`` is ``'clean'``, ``'corruption'``, ``'perturbation'`` or ``'shift'``; ``severity`` is 0 where there is
    none; ``identity`` all that decides the figures apart from the model; ``items_per_batch`` how many items of the
    dataset make a batch of a given number of pictures; ``item_bytes`` is of one item as pixels.
    """

    group: str
    name: str
    severity: int
    folder: Path
    identity: Dict[str, Any]
    dataset: Callable[[], Any]
    measure: Callable[[Subject, Iterable[Any]], Dict[str, Any]]
    items_per_batch: Callable[[int], int]
    items: int
    item_bytes: int

    @property
    def title(self) -> str:
        """For people."""
        name = self.name if self.group != 'shift' else f'shift {self.name}'
        return f'{name}/{self.severity}' if self.severity else name


class Kept(NamedTuple):
    """A cell with its figures and the seconds it took when it was measured."""

    cell: Cell
    figures: Dict[str, Any]
    seconds: float


def identity_of(cell: Cell, subject: Subject, precision: str) -> Dict[str, Any]:
    """All that decides the figures of a model on a cell."""
    return dict(
        cell=cell.identity, model=subject.identity, precision=precision,
        class_map=None if subject.class_map is None else [*subject.class_map])


class CellStore:
    """One small file a cell; a file is there whole or not at all, and a damaged one counts as none.

    Args:
        folder: Made if it is not there.
        versions: Package to version, written down with each cell. They are not of its identity: another version seldom
            changes a figure, and when it does, :meth:`other_versions` says where to look.
    """

    def __init__(self, folder: Path, versions: Optional[Dict[str, str]] = None):
        self.folder = folder
        self.versions = versions or {}
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, identity: Dict[str, Any]) -> Path:
        text = json.dumps(identity, sort_keys=True)
        return self.folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.json'

    def _read(self, identity: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        try:
            kept = json.loads(self._path(identity).read_text(encoding='utf-8'))
        except (FileNotFoundError, ValueError):
            return None
        whole = isinstance(kept, dict) and kept.get('identity') == json.loads(json.dumps(identity))
        return kept if whole else None

    def get(self, identity: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        """``dict(figures=..., seconds=...)`` of a cell, or None."""
        kept = self._read(identity)
        return kept and {key: kept[key] for key in ('figures', 'seconds')}

    def other_versions(self, cells: Sequence[Cell], subject: Subject, precision: str) -> List[str]:
        """Packages and versions, sorted, that cells of a model were measured with and that are not those of now."""
        found = (self._read(identity_of(cell, subject, precision)) or {} for cell in cells)
        return sorted({f'{name} {version}' for kept in found for name, version in kept.get('versions', {}).items()
                       if self.versions.get(name, version) != version})

    def collect(self, cells: Sequence[Cell], subject: Subject, precision: str) -> List[Kept]:
        """All cells of a model.

        Raises:
            ValueError: One is not there.
        """
        found = [(cell, self.get(identity_of(cell, subject, precision))) for cell in cells]
        lost = [cell.title for cell, value in found if value is None]
        if lost:
            raise ValueError(f'{self.folder} must have all cells of {subject.label} by now, and lacks {lost[0]}; all '
                             f'processes must see the same folder')
        return [Kept(cell, value['figures'], value['seconds']) for cell, value in found if value is not None]

    def put(self, identity: Dict[str, Any], figures: Dict[str, Any], seconds: float) -> None:
        """Keep a cell: written beside its place, flushed to the disk, then renamed."""
        path = self._path(identity)
        made = path.with_name(f'.{path.name}.{os.getpid()}')
        try:
            with open(made, 'w', encoding='utf-8') as file:
                json.dump(dict(identity=identity, figures=figures, seconds=seconds, versions=self.versions), file,
                          indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, path)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
