"""The results object, and its files."""
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ...utils.atomic import atomic_file
from ..tasks.cache import CachedResult
from ..tasks.task import Classifier
from .exchange import csv_lines, robustbench_entry, timm_tables, to_csv
from .plots import draw
from .predictions import write_predictions
from .publish import check_output
from .schema import check_results
from .statistics_plots import draw_comparisons, draw_reliability
from .tables import headlines, result_tables

__all__ = ['Results', 'file_name']


def file_name(label: str) -> str:
    """Return a label as the name of a file."""
    return re.sub(r'[^\w.=-]+', '_', label).strip('.') or '_'


class Results:
    """What :func:`timm_assemble.robustness.evaluate` measured; prints as tables.

    Args:
        values: In the form of :data:`timm_assemble.robustness.results.schema.SCHEMA`.
        measured: Each model's records, to write its predictions; none are written without.
    """

    def __init__(
            self, values: Dict[str, Any],
            measured: Sequence[Tuple[Classifier, Sequence[CachedResult]]] = (),
    ):
        self._values = values
        self._measured = measured

    @classmethod
    def load(cls, folder: Any) -> 'Results':
        """Return the results that a run wrote into a folder; ValueError if there are none."""
        path = Path(folder) / 'results.json'
        try:
            values = json.loads(path.read_text(encoding='utf-8'))
            check_results(values)
        except (OSError, ValueError) as e:
            raise ValueError(f'folder must have results.json of a finished run, got {folder}: {e}') from e
        return cls(values)

    @property
    def summary(self) -> Dict[str, Dict[str, Optional[float]]]:
        """Headline metrics in percent by label; None for what was not measured."""
        return {model['label']: headlines(model) for model in self._values['models']}

    @property
    def unreadable(self) -> List[Mapping[str, Any]]:
        """Path and reason of each file that could not be read, and of how many tasks it was left out."""
        return self._values['unreadable']

    def to_dict(self) -> Dict[str, Any]:
        """Return everything, as in results.json."""
        return self._values

    def _protocol(self) -> str:
        return f'protocol {self._values["protocol"]["name"]}: {self._values["protocol"]["text"]}'

    def tables(self) -> str:
        """Return the tables of the terminal, with the protocol above and the notes below."""
        parts = [self._protocol(), *(table.text() for table in result_tables(self._values))]
        return '\n\n'.join([*parts, '\n'.join(self._values['notes'])]).rstrip('\n')

    def markdown(self) -> str:
        """Return the same as Markdown."""
        parts = [self._protocol(), *(table.markdown() for table in result_tables(self._values))]
        return '\n\n'.join([*parts, '\n'.join(f'- {note}' for note in self._values['notes'])]).rstrip('\n') + '\n'

    def latex(self) -> str:
        """Return the tables as LaTeX, for the package booktabs; the protocol is a comment."""
        return '\n\n'.join([f'% {self._protocol()}', *(t.latex() for t in result_tables(self._values))]) + '\n'

    def csv(self) -> str:
        """Return one line for each model, task and mean with unrounded percents, as in results.csv."""
        return to_csv([line for model in self._values['models'] for line in csv_lines(model)])

    __str__ = tables

    def write(self, folder: Path) -> List[Path]:
        """Check and write all files; return their paths.

        Without corruptions and perturbations there is no plot, and an earlier one is removed.

        Raises:
            ValueError: The results break the schema, or ``folder`` has those of another measurement.
        """
        check_results(self._values)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        check_output(folder, self._values['measurement'])
        texts = {'results.json': json.dumps(self._values, indent=1, allow_nan=False) + '\n', 'results.csv': self.csv(),
                 'results.md': self.markdown(), 'results.tex': self.latex()}
        texts.update({f'timm/{name}': text for name, text in timm_tables(self._values).items()})
        for model in self._values['models']:
            entry = robustbench_entry(model, self._values)
            if entry:
                texts[f'robustbench/{file_name(model["label"])}.json'] = json.dumps(entry, indent=1) + '\n'
        written = []
        for name, text in texts.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with atomic_file(folder / name) as temporary:
                temporary.write_text(text, encoding='utf-8')
            written.append(folder / name)
        for name, plot in (('robustness.png', draw), ('reliability.png', draw_reliability),
                           ('comparison.png', draw_comparisons)):
            if plot(folder / name, self._values):
                written.append(folder / name)
        for model, results in self._measured:
            path = folder / 'predictions' / f'{file_name(model.label)}.npz'
            path.parent.mkdir(exist_ok=True)
            write_predictions(path, results)
            written.append(path)
        return written
