"""The results of an evaluation: typed values, tables and files, which never replace those of another measurement."""
import json
import re
import sys
from abc import ABC, abstractmethod
from datetime import datetime, UTC
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Collection, Dict, Iterable, List, Optional, Type, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..data.images import printable
from ..errors import UserError
from ..runtime.atomic import atomic_file
from .options import Options
from .tables import Table

__all__ = [
    'BaseResults', 'Count', 'Data', 'Natural', 'Percent', 'Ratio', 'Report', 'Run', 'Size', 'Text', 'UnreadableFile',
    'Values', 'check_output', 'file_names', 'make_run', 'package_versions', 'unreadable_line']

R = TypeVar('R', bound='BaseResults')
Percent = Annotated[float, Meta(ge=0, le=100 + 1e-9)]
Ratio = Annotated[float, Meta(ge=0)]  # of errors, percent of the baseline's
Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Size = Annotated[List[Count], Meta(min_length=2, max_length=2)]  # height and width
Checksum = Annotated[str, Meta(pattern='^[0-9a-f]{64}$')]


class Data(Struct, forbid_unknown_fields=True):
    """Files that were read."""

    folder: Text
    items: Count
    classes: Count
    fingerprint: Text


class UnreadableFile(Struct, forbid_unknown_fields=True):
    """A file that is left out of ``tasks`` tasks."""

    path: Text
    reason: Text
    tasks: Count


class Run(Struct, forbid_unknown_fields=True):
    """The one part that differs between two runs of the same measurement; seconds are by model."""

    date: Text
    command: Text
    device: Text
    batch_size: Count
    workers: Natural
    world_size: Count
    seconds: Dict[str, Ratio]


class Report(Struct, kw_only=True, forbid_unknown_fields=True):
    """A model under test; None where a callable does not say."""

    label: Text
    source: Text
    architecture: Optional[Text]
    checksum: Optional[Checksum]
    own_size: Optional[Size]
    parameters: Optional[Count]
    mean: Optional[List[float]]
    std: Optional[List[float]]


class Values(Struct, kw_only=True, forbid_unknown_fields=True):
    """What results.json has, whatever is measured; ``measurement`` is equal for two runs of the same one."""

    schema_version: Count
    versions: Dict[str, Text]
    data: Dict[str, Data]
    measurement: Checksum
    unreadable: List[UnreadableFile]
    notes: List[Text]
    run: Run


def make_run(options: Options, device: Any, world_size: int, seconds: Dict[str, float]) -> Dict[str, Any]:
    """Return the part of results that says how they were measured."""
    return dict(date=datetime.now(UTC).isoformat(timespec='seconds'), command=printable(options.command),
                device=str(device), batch_size=options.batch_size, workers=options.workers, world_size=world_size,
                seconds=seconds)


def package_versions(*packages: str) -> Dict[str, str]:
    """Return the versions of this package, Python and others."""
    from .. import __version__

    return {'timm_assemble': __version__, 'python': sys.version.split()[0],
            **{name: metadata.version(name) for name in ('timm', 'torch', 'pillow', *packages)}}


def unreadable_line(files: Collection[Any], consequence: str = '') -> str:
    """Return a text on files that cannot be read, which have a ``path`` and a ``reason``."""
    listed = ', '.join(f'{printable(file.path)} ({file.reason})' for file in [*files][:3])
    return f'{len(files)} of the files cannot be read{consequence}: {listed}{", ..." if len(files) > 3 else ""}'


def file_names(names: Iterable[str], parameter: str, exact: bool = False) -> Dict[str, str]:
    """Return the name of the file of each label, without its ending.

    Args:
        names: Labels of models, or names of sets of images.
        parameter: For errors.
        exact: Whether names must be file names themselves, because results have them as keys.

    Raises:
        UserError: Two would name one file, on a file system that knows no capitals either.
    """
    files: Dict[str, str] = {}
    for name in names:
        file = re.sub(r'[^\w.=-]+', '_', name).strip('.') or '_'
        if len(file.encode()) > 200:
            file = f'{file[:40]}_{file[-40:]}'
        if exact and (file != name or not re.search(r'\w', name)):
            raise UserError(f'{parameter} must have names of letters, digits, "_", "-", "=" and ".", got '
                            f'{printable(name)!r}')
        other = next((label for label, known in files.items() if known.casefold() == file.casefold()), None)
        if other is not None:
            raise UserError(f'{parameter} must have names that differ as file names, got {other!r} and {name!r}, '
                            f'which are both {file!r}')
        files[name] = file
    return files


def check_output(folder: Path, measurement: str) -> None:
    """Check that a folder has no results of another measurement; the error says of which models they are."""
    try:
        earlier = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
        if earlier['measurement'] == measurement:
            return
        about = f'protocol {earlier["protocol"]["name"]}, {", ".join(model["label"] for model in earlier["models"])}'
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        about = 'of another version'
    raise UserError(f'output must not have results of another measurement, {folder / "results.json"} has ({about}); '
                    f'give another folder, and this one\'s cache as `cache` to reuse its tasks')


class BaseResults(ABC):
    """What an evaluation measured; prints as tables.

    Args:
        values: What results.json has.
    """

    kind: ClassVar[Type[Values]]

    def __init__(self, values: Any):
        self.values = msgspec.convert(values, self.kind)

    @abstractmethod
    def _tables(self) -> Iterable[Table]:
        """Return the tables."""

    @abstractmethod
    def csv(self) -> str:
        """Return results.csv."""

    @classmethod
    def load(cls: Type[R], folder: Any, parameter: str = 'folder') -> R:
        """Return the results that a run wrote into a folder; UserError on the parameter if there are none."""
        path = Path(folder) / 'results.json'
        try:
            return cls(json.loads(path.read_text(encoding='utf-8')))
        except (OSError, ValueError) as e:  # of msgspec too
            raise UserError(f'{parameter} must have results.json of a finished run, got {folder}: {e}') from e

    @property
    def unreadable(self) -> List[UnreadableFile]:
        """Path and reason of each file that could not be read."""
        return self.values.unreadable

    def to_dict(self) -> Dict[str, Any]:
        """Return everything, as in results.json."""
        return msgspec.to_builtins(self.values)

    def _protocol(self) -> str:
        protocol = self.to_dict()['protocol']
        return f'protocol {protocol["name"]}: {protocol["text"]}'

    def tables(self) -> str:
        """Return the tables of the terminal, with the protocol above and the notes below."""
        parts = [self._protocol(), *(table.text() for table in self._tables())]
        return '\n\n'.join([*parts, '\n'.join(self.values.notes)]).rstrip('\n')

    def markdown(self) -> str:
        """Return the same as Markdown."""
        parts = [self._protocol(), *(table.markdown() for table in self._tables())]
        return '\n\n'.join([*parts, '\n'.join(f'- {note}' for note in self.values.notes)]).rstrip('\n') + '\n'

    def latex(self) -> str:
        """Return the tables as LaTeX, for the package booktabs; the protocol is a comment."""
        return '\n\n'.join([f'% {self._protocol()}', *(t.latex() for t in self._tables())]) + '\n'

    def __str__(self) -> str:
        return self.tables()

    def write(self, folder: Path) -> List[Path]:
        """Write all files atomically, and return their paths.

        Raises:
            UserError: ``folder`` has results of another measurement.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        check_output(folder, self.values.measurement)
        texts = {'results.json': json.dumps(self.to_dict(), indent=1, allow_nan=False) + '\n',
                 'results.csv': self.csv(), 'results.md': self.markdown(), 'results.tex': self.latex()}
        for name, text in texts.items():
            with atomic_file(folder / name) as temporary:
                temporary.write_text(text, encoding='utf-8')
        return [folder / name for name in texts]
