"""The results object, and its files."""
import json
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ...evaluation.results import BaseResults, file_name
from ...evaluation.tables import Table, to_csv
from ..tasks.cache import CachedResult
from ..tasks.task import Classifier
from .exchange import COLUMNS, csv_lines, robustbench_entry, timm_tables
from .plots import draw
from .predictions import write_predictions
from .schema import check_results
from .statistics_plots import draw_comparisons, draw_reliability
from .tables import headlines, result_tables

__all__ = ['Results']


class Results(BaseResults):
    """What :func:`timm_assemble.robustness.evaluate` measured; prints as tables.

    Args:
        values: In the form of :data:`timm_assemble.robustness.results.schema.SCHEMA`.
        measured: Each model's records, to write its predictions; none are written without.
    """

    def __init__(
            self, values: Dict[str, Any],
            measured: Sequence[Tuple[Classifier, Sequence[CachedResult]]] = (),
    ):
        super().__init__(values)
        self._measured = measured

    @staticmethod
    def check(values: Any) -> None:
        """Check values against the schema; the ValueError names where they break it."""
        check_results(values)

    def _tables(self) -> Iterable[Table]:
        return result_tables(self._values)

    @property
    def summary(self) -> Dict[str, Dict[str, Optional[float]]]:
        """Headline metrics in percent by label; None for what was not measured."""
        return {model['label']: headlines(model) for model in self._values['models']}

    def csv(self) -> str:
        """Return one line for each model, task and mean with unrounded percents, as in results.csv."""
        return to_csv([line for model in self._values['models'] for line in csv_lines(model)], COLUMNS)

    def write(self, folder: Path) -> List[Path]:
        """Check and write all files; return their paths.

        Without corruptions and perturbations there is no plot, and an earlier one is removed.

        Raises:
            UserError: The results break the schema, or ``folder`` has those of another measurement.
        """
        self.check(self._values)
        folder = Path(folder)
        texts = {f'timm/{name}': text for name, text in timm_tables(self._values).items()}
        for model in self._values['models']:
            entry = robustbench_entry(model, self._values)
            if entry:
                texts[f'robustbench/{file_name(model["label"])}.json'] = json.dumps(entry, indent=1) + '\n'
        written = self.write_texts(folder, texts)
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
