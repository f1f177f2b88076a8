"""The results object, and its files."""
import json
from pathlib import Path
from typing import Any, Dict, List, Optional

from ...utils.atomic import atomic_file
from .plots import draw
from .schema import check_results
from .tables import csv_text, headlines, tables

__all__ = ['Results']


class Results:
    """What :func:`timm_assemble.robustness.evaluate` measured; prints as tables.

    Args:
        values: In the form of :data:`timm_assemble.robustness.results.schema.SCHEMA`.
    """

    def __init__(self, values: Dict[str, Any]):
        self._values = values

    @property
    def summary(self) -> Dict[str, Dict[str, Optional[float]]]:
        """Headline metrics in percent by label; None for what was not measured."""
        return {model['label']: headlines(model) for model in self._values['models']}

    def to_dict(self) -> Dict[str, Any]:
        """Return everything, as in results.json."""
        return self._values

    def tables(self) -> str:
        """Return the tables of the terminal."""
        return tables(self._values)

    def csv(self) -> str:
        """Return one line for each model and task, as in results.csv."""
        return csv_text(self._values)

    __str__ = tables

    def write(self, folder: Path) -> List[Path]:
        """Check and write results.json, results.csv and robustness.png; return their paths.

        Without corruptions and perturbations there is no plot, and an earlier one is removed.
        """
        check_results(self._values)
        texts = {'results.json': json.dumps(self._values, indent=1, allow_nan=False) + '\n', 'results.csv': self.csv()}
        for name, text in texts.items():
            with atomic_file(folder / name) as temporary:
                temporary.write_text(text, encoding='utf-8')
        plot = folder / 'robustness.png'
        drawn = draw(plot, self._values)
        return [*(folder / name for name in texts), *([plot] if drawn else [])]
