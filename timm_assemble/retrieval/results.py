"""The types of results.json, its table and files."""
from pathlib import Path
from typing import Annotated, Any, ClassVar, Dict, Iterable, List, Mapping, Optional, Sequence, Type

from msgspec import Meta, Struct

from ..data.preprocessing import size_text
from ..evaluation.results import BaseResults, Count, Percent, Ratio, Report, Size, Text, Values, file_names
from ..evaluation.tables import Table, to_csv
from .figure import Example, draw

__all__ = ['SCHEMA_VERSION', 'Results', 'RetrievalReport', 'RetrievalValues']

SCHEMA_VERSION = 2


class RetrievalReport(Report, kw_only=True):
    """What was measured of a model."""

    input_size: Size
    crop_pct: Ratio
    crop_mode: Text
    interpolation: Text
    dimensions: Count
    images: Count
    queries: Count
    metrics: Dict[str, Percent]


class ProtocolValues(Struct, forbid_unknown_fields=True):
    name: Text
    text: Text
    head: Text
    last_stride: Optional[Count]
    recall_at: List[Count]
    precision: Text


class RetrievalValues(Values, kw_only=True):
    """What results.json has."""

    protocol: ProtocolValues
    models: Annotated[List[RetrievalReport], Meta(min_length=1)]


class Results(BaseResults):
    """What :func:`timm_assemble.retrieval.evaluate` measured; prints as a table.

    Args:
        values: In the form of :class:`RetrievalValues`.
        examples: Of each label the queries of its figure; none is drawn without.
    """

    kind: ClassVar[Type[Values]] = RetrievalValues

    def __init__(self, values: Any, examples: Mapping[str, Sequence[Example]] = {}):
        super().__init__(values)
        self._examples = examples

    @property
    def summary(self) -> Dict[str, Dict[str, float]]:
        """Metrics in percent by label."""
        return {model['label']: model['metrics'] for model in self.to_dict()['models']}

    def _columns(self) -> List[str]:
        return [*(f'recall@{k}' for k in self.to_dict()['protocol']['recall_at']), 'map@r']

    def _tables(self) -> Iterable[Table]:
        columns = self._columns()
        yield Table('percent of the queries, and mean average precision at R in percent',
                    ['model', *(name.replace('map@r', 'MAP@R') for name in columns), 'input', 'dimensions', 'queries'],
                    [[model['label'], *(model['metrics'][name] for name in columns), size_text(model['input_size']),
                      str(model['dimensions']), str(model['queries'])] for model in self.to_dict()['models']])

    def csv(self) -> str:
        """Return one line for each model with unrounded percents, as in results.csv."""
        about, values = ('crop_pct', 'dimensions', 'images', 'queries'), self.to_dict()
        lines = [dict(model['metrics'], model=model['label'], head=values['protocol']['head'],
                      input_size=size_text(model['input_size']), **{key: model[key] for key in about})
                 for model in values['models']]
        return to_csv(lines, ['model', 'head', 'input_size', *about, *self._columns()])

    def write(self, folder: Path) -> List[Path]:
        """Write all files atomically, and return their paths.

        Raises:
            UserError: ``folder`` has results of another measurement.
        """
        folder = Path(folder)
        written = super().write(folder)
        for label, name in file_names(self._examples, 'models').items():
            path = folder / 'neighbours' / f'{name}.png'
            path.parent.mkdir(exist_ok=True)
            draw(path, label, self._examples[label], self.to_dict()['protocol']['text'])
            written.append(path)
        return written
