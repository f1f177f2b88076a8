"""The results of an evaluation: values, tables and files, which never replace those of another measurement."""
import json
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Type, TypeVar

from ..errors import UserError
from ..runtime.atomic import atomic_file
from .tables import Table

__all__ = ['BaseResults', 'check_output', 'file_name']

R = TypeVar('R', bound='BaseResults')


def check_output(folder: Path, measurement: str) -> None:
    """Check that a folder has no results of another measurement; the ValueError says of which models they are."""
    try:
        earlier = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
        if earlier['measurement'] == measurement:
            return
        about = f'protocol {earlier["protocol"]["name"]}, {", ".join(model["label"] for model in earlier["models"])}'
    except (FileNotFoundError, NotADirectoryError):
        return
    except (ValueError, KeyError, TypeError):
        about = 'of another version'
    raise UserError(f'output must not have results of another measurement, {folder / "results.json"} has ({about}); '
                     f'give another folder, and this one\'s cache as `cache` to reuse its tasks')


def file_name(label: str) -> str:
    """Return a label as the name of a file."""
    return re.sub(r'[^\w.=-]+', '_', label).strip('.') or '_'


class BaseResults(ABC):
    """What an evaluation measured; prints as tables.

    Args:
        values: What results.json has.
    """

    def __init__(self, values: Dict[str, Any]):
        self._values = values

    @staticmethod
    @abstractmethod
    def check(values: Any) -> None:
        """Check values against the schema; the ValueError names where they break it."""

    @abstractmethod
    def _tables(self) -> Iterable[Table]:
        """Return the tables."""

    @abstractmethod
    def csv(self) -> str:
        """Return results.csv."""

    @classmethod
    def load(cls: Type[R], folder: Any) -> R:
        """Return the results that a run wrote into a folder; ValueError if there are none."""
        path = Path(folder) / 'results.json'
        try:
            values = json.loads(path.read_text(encoding='utf-8'))
            cls.check(values)
        except (OSError, ValueError) as e:
            raise UserError(f'folder must have results.json of a finished run, got {folder}: {e}') from e
        return cls(values)

    @property
    def unreadable(self) -> List[Mapping[str, Any]]:
        """Path and reason of each file that could not be read."""
        return self._values['unreadable']

    def to_dict(self) -> Dict[str, Any]:
        """Return everything, as in results.json."""
        return self._values

    def _protocol(self) -> str:
        return f'protocol {self._values["protocol"]["name"]}: {self._values["protocol"]["text"]}'

    def tables(self) -> str:
        """Return the tables of the terminal, with the protocol above and the notes below."""
        parts = [self._protocol(), *(table.text() for table in self._tables())]
        return '\n\n'.join([*parts, '\n'.join(self._values['notes'])]).rstrip('\n')

    def markdown(self) -> str:
        """Return the same as Markdown."""
        parts = [self._protocol(), *(table.markdown() for table in self._tables())]
        return '\n\n'.join([*parts, '\n'.join(f'- {note}' for note in self._values['notes'])]).rstrip('\n') + '\n'

    def latex(self) -> str:
        """Return the tables as LaTeX, for the package booktabs; the protocol is a comment."""
        return '\n\n'.join([f'% {self._protocol()}', *(t.latex() for t in self._tables())]) + '\n'

    def __str__(self) -> str:
        return self.tables()

    def write_texts(self, folder: Path, more: Mapping[str, str] = {}) -> List[Path]:
        """Write results.json, .csv, .md, .tex and ``more`` texts by name, and return their paths.

        Raises:
            UserError: ``folder`` has results of another measurement.
        """
        folder.mkdir(parents=True, exist_ok=True)
        check_output(folder, self._values['measurement'])
        texts = {'results.json': json.dumps(self._values, indent=1, allow_nan=False) + '\n', 'results.csv': self.csv(),
                 'results.md': self.markdown(), 'results.tex': self.latex(), **more}
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with atomic_file(folder / name) as temporary:
                temporary.write_text(text, encoding='utf-8')
        return [folder / name for name in texts]
