"""The types of results.json, its table and files."""
from pathlib import Path
from typing import Annotated, Any, ClassVar, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Type

from msgspec import Meta, Struct

from ..data.preprocessing import size_text
from ..evaluation.results import BaseResults, Count, Natural, Percent, Ratio, Report, Size, Text, Values, file_names
from ..evaluation.tables import Table, to_csv
from .figure import Example, draw

__all__ = ['SCHEMA_VERSION', 'Results', 'RetrievalReport', 'RetrievalValues']

SCHEMA_VERSION = 3


class RetrievalReport(Report, kw_only=True):
    """What was measured of a model; ``intervals`` are 95 %, over the queries, and None for the mean of one query."""

    input_size: Size
    crop_pct: Ratio
    crop_mode: Text
    interpolation: Text
    dimensions: Count
    queries: Count
    gallery: Count
    distractors: Natural
    metrics: Dict[str, Percent]
    intervals: Dict[str, Optional[Tuple[Percent, Percent]]]


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
        values: In the form of :class:`.RetrievalValues`.
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
        return [*(f'recall@{k}' for k in self.to_dict()['protocol']['recall_at']), 'map', 'map@r']

    def _tables(self) -> Iterable[Table]:
        columns, models = self._columns(), self.to_dict()['models']
        titles = ['model', *(name.replace('map', 'mAP').replace('mAP@r', 'MAP@R') for name in columns)]
        yield Table('percent of the queries, and mean average precision, of all and at R, in percent',
                    [*titles, 'input', 'dimensions', 'queries', 'gallery', 'distractors'],
                    [[model['label'], *(model['metrics'][name] for name in columns), size_text(model['input_size']),
                      *(str(model[name]) for name in ('dimensions', 'queries', 'gallery', 'distractors'))]
                     for model in models])
        yield Table('95 % intervals over the queries', titles, [
            [model['label'], *(ends and f'{ends[0]:.1f} to {ends[1]:.1f}' for ends in map(
                model['intervals'].get, columns))] for model in models])

    def csv(self) -> str:
        """Return one line for each model with unrounded percents and intervals, as in results.csv."""
        about, values = ('crop_pct', 'dimensions', 'queries', 'gallery', 'distractors'), self.to_dict()
        lines = [dict(model['metrics'], model=model['label'], head=values['protocol']['head'],
                      input_size=size_text(model['input_size']), **{key: model[key] for key in about},
                      **{f'{name} {end}': value for name, ends in model['intervals'].items()
                         for end, value in zip(('low', 'high'), ends or ())})
                 for model in values['models']]
        columns = [f'{name}{end}' for end in ('', ' low', ' high') for name in self._columns()]
        return to_csv(lines, ['model', 'head', 'input_size', *about, *columns])

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
