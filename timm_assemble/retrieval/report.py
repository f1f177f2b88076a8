"""The results object, its schema, and its files."""
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from ..evaluation.results import BaseResults, file_name
from ..evaluation.schema import (
    CHECKSUM, COUNT, NATURAL, NUMBER, PERCENT, RATIO, TEXT, check, each, list_of, object_of, or_null,
)
from ..evaluation.tables import Table, to_csv
from .figure import Example, draw

__all__ = ['SCHEMA', 'SCHEMA_VERSION', 'Results']

SCHEMA_VERSION = 1
_MODEL = object_of(
    label=TEXT, source=TEXT,
    # null for a callable
    architecture=or_null(TEXT), checksum=or_null(CHECKSUM), own_size=or_null(COUNT), parameters=or_null(COUNT),
    mean=or_null(list_of(NUMBER)), std=or_null(list_of(NUMBER)),
    input_size=COUNT, crop_pct=RATIO, crop_mode=TEXT, interpolation=TEXT, dimensions=COUNT,
    images=COUNT, queries=COUNT, metrics=each(PERCENT, r'^(recall@\d+|map@r)$'))
SCHEMA: Dict[str, Any] = dict(
    {'$schema': 'https://json-schema.org/draft/2020-12/schema'},
    **object_of(
        schema_version=dict(const=SCHEMA_VERSION), versions=each(TEXT),
        protocol=object_of(name=TEXT, text=TEXT, head=TEXT, last_stride=or_null(COUNT), recall_at=list_of(COUNT),
                           precision=TEXT),
        data=each(object_of(folder=TEXT, fingerprint=TEXT, items=COUNT, classes=COUNT)),
        measurement=CHECKSUM,  # equal for two runs of the same measurement
        unreadable=list_of(object_of(path=TEXT, reason=TEXT)),
        models=dict(type='array', items=_MODEL, minItems=1), notes=list_of(TEXT),
        # the one part that differs between two runs of the same measurement
        run=object_of(date=TEXT, command=TEXT, device=TEXT, batch_size=COUNT, workers=NATURAL, world_size=COUNT,
                      seconds=object_of(embed=RATIO, search=each(RATIO)))))


class Results(BaseResults):
    """What :func:`timm_assemble.retrieval.evaluate` measured; prints as a table.

    Args:
        values: In the form of :data:`timm_assemble.retrieval.report.SCHEMA`.
        examples: Of each label the queries of its figure; none is drawn without.
    """

    def __init__(self, values: Dict[str, Any], examples: Mapping[str, Sequence[Example]] = {}):
        super().__init__(values)
        self._examples = examples

    @staticmethod
    def check(values: Any) -> None:
        """Check values against the schema; the ValueError names where they break it."""
        check(values, SCHEMA, 'retrieval')

    @property
    def summary(self) -> Dict[str, Dict[str, float]]:
        """Metrics in percent by label."""
        return {model['label']: model['metrics'] for model in self._values['models']}

    def _columns(self) -> List[str]:
        return [*(f'recall@{k}' for k in self._values['protocol']['recall_at']), 'map@r']

    def _tables(self) -> Iterable[Table]:
        columns = self._columns()
        yield Table('percent of the queries, and mean average precision at R in percent',
                    ['model', *(name.replace('map@r', 'MAP@R') for name in columns), 'input', 'dimensions', 'queries'],
                    [[model['label'], *(model['metrics'][name] for name in columns), str(model['input_size']),
                      str(model['dimensions']), str(model['queries'])] for model in self._values['models']])

    def csv(self) -> str:
        """Return one line for each model with unrounded percents, as in results.csv."""
        about = ('input_size', 'crop_pct', 'dimensions', 'images', 'queries')
        head = self._values['protocol']['head']
        return to_csv([dict(model['metrics'], model=model['label'], head=head, **{key: model[key] for key in about})
                       for model in self._values['models']], ['model', 'head', *about, *self._columns()])

    def write(self, folder: Path) -> List[Path]:
        """Check and write all files; return their paths.

        Raises:
            UserError: The results break the schema, or ``folder`` has those of another measurement.
        """
        self.check(self._values)
        folder = Path(folder)
        written = self.write_texts(folder)
        for label, examples in self._examples.items():
            path = folder / 'neighbours' / f'{file_name(label)}.png'
            path.parent.mkdir(exist_ok=True)
            draw(path, label, examples, self._values['protocol']['text'])
            written.append(path)
        return written
