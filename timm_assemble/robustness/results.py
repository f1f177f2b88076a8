"""The types of results.json, its tables and files."""
from pathlib import Path
from typing import Annotated, Any, ClassVar, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Type

import numpy as np
from msgspec import Meta, Struct

from ..data.images import printable
from ..evaluation.cache import write_arrays
from ..evaluation.engine import CachedResult
from ..evaluation.results import BaseResults, Count, Natural, Percent, Ratio, Report, Size, Text, Values, file_names
from ..evaluation.tables import Cell, Table, number, to_csv
from .plan import Adaptation
from .plots import draw_all
from .report import HEADLINES, Headline, Measured, headlines, title_of
from .statistics import METRICS, Errors, ImageMetrics

__all__ = ['SCHEMA_VERSION', 'Results', 'RobustnessReport', 'RobustnessValues']

SCHEMA_VERSION = 5
Maybe = Optional[Ratio]


class OtherSet(Errors):
    predicted_among: Text
    reference: Optional[Text]
    top1_diff: Optional[float]
    top5_diff: Optional[float]


class Corruption(Struct, forbid_unknown_fields=True):
    severities: Dict[str, Errors]
    means: ImageMetrics
    ce: Maybe
    relative_ce: Optional[float]


class Perturbation(Struct, forbid_unknown_fields=True):
    sequences: Count
    flips: Natural
    pairs: Count
    flip_rate: Percent
    flip_ratio: Maybe


class Shift(Struct, forbid_unknown_fields=True):
    pixels: Count
    images: Count
    consistency: Percent


class Detection(Struct, forbid_unknown_fields=True):
    auroc: Percent
    aupr: Percent
    fpr95: Percent


class Foreign(Struct, forbid_unknown_fields=True):
    images: Count
    predicted_among: Text
    msp: Detection
    energy: Detection


class Interval(Struct, forbid_unknown_fields=True):
    """95 %, by ``wilson`` or ``bootstrap``; ``small`` says that the bootstrap has too few images."""

    low: float
    high: float
    method: Text
    small: bool


class Temperature(Struct, forbid_unknown_fields=True):
    temperature: Maybe
    fitted_images: Count
    before: Errors
    after: Optional[Errors]


class Bin(Struct, forbid_unknown_fields=True):
    images: Natural
    accuracy: Optional[Percent]
    confidence: Optional[Percent]


class ClassAccuracy(Struct, forbid_unknown_fields=True):
    images: Count
    top1: Percent


class Statistics(Struct, forbid_unknown_fields=True):
    """``intervals`` are by the path of a number in the model's report."""

    resamples: Count
    intervals: Dict[str, Optional[Interval]]
    reliability: Dict[str, List[Bin]]
    per_class: Dict[str, Dict[str, ClassAccuracy]]


class Difference(Struct, forbid_unknown_fields=True):
    difference: float
    interval: Optional[Interval]


class McNemar(Struct, forbid_unknown_fields=True):
    images: Count
    only_first_right: Natural
    only_second_right: Natural
    p_value: Ratio


class Comparison(Struct, forbid_unknown_fields=True):
    models: Annotated[List[Text], Meta(min_length=2, max_length=2)]
    differences: Dict[str, Difference]
    mcnemar: Dict[str, McNemar]


class RobustnessReport(Report, kw_only=True):
    """What was measured of a model."""

    num_classes: Count
    classes_by: Text
    clean: Optional[Errors]
    temperature: Optional[Temperature]
    corruptions: Dict[str, Corruption]
    perturbations: Dict[str, Perturbation]
    shift: Optional[Shift]
    test_sets: Dict[str, OtherSet]
    ood: Dict[str, Foreign]
    means: Optional[ImageMetrics]
    means_by_severity: Dict[str, ImageMetrics]
    mce: Maybe
    relative_mce: Optional[float]
    mean_flip_rate: Optional[Percent]
    mfr: Maybe
    statistics: Optional[Statistics]


class ProtocolValues(Struct, forbid_unknown_fields=True):
    name: Text
    text: Text
    images: Text  # of corruptions: published, generated or none
    corruptions: List[Text]
    perturbations: List[Text]
    severities: List[Count]
    input_size: Size
    seed: int
    precision: Text
    baseline: Optional[Text]
    adaptation: Optional[Adaptation]


class RobustnessValues(Values, kw_only=True):
    """What results.json has."""

    protocol: ProtocolValues
    models: Annotated[List[RobustnessReport], Meta(min_length=1)]
    comparisons: List[Comparison]


def _ends(interval: Mapping[str, Any], reverse: bool = False) -> str:
    """Return an interval as text; ``reverse`` for that of 100 minus the value."""
    low, high = interval['low'], interval['high']
    low, high = (100 - high, 100 - low) if reverse else (low, high)
    return f'[{number(low)}, {number(high)}]{"*" if interval["small"] else ""}'


def _cell(model: Mapping[str, Any], headline: Headline) -> Cell:
    """Return a value with its interval, if it has one."""
    value, interval = headline.of(model), ((model['statistics'] or {}).get('intervals') or {}).get(headline.path)
    return value if value is None or interval is None else f'{number(value)} {_ends(interval, headline.accuracy)}'


def _headlines(models: Sequence[Dict[str, Any]], baseline: Optional[str]) -> Table:
    shown = [h for h in HEADLINES.values() if h.main and any(h.of(model) is not None for model in models)]
    over = f'; mCE and mFR in percent of {baseline}' if baseline else ''
    intervals = '; 95 % intervals' if any(model['statistics'] for model in models) else ''
    return Table(f'percent: top-1, top-5 and ECE on clean images, the rest by the protocol{over}{intervals}',
                 ['model', *(h.title for h in shown)],
                 [[model['label'], *(_cell(model, h) for h in shown)] for model in models])


def _scores(models: Sequence[Dict[str, Any]]) -> Table:
    """Return the scores of all images but single corruptions, which results.csv has."""
    rows: List[List[Cell]] = []
    for model in models:
        scaled = model['temperature'] or dict(before=None, after=None)
        paths = dict(
            **{'clean': 'clean'} if model['clean'] else {},
            **{'clean, held out': 'temperature.before'} if scaled['before'] else {},
            **{f'clean, held out, temperature {number(scaled["temperature"])}': 'temperature.after'
               } if scaled['after'] else {},
            **{f'severity {s}': f'means_by_severity.{s}' for s in model['means_by_severity']},
            **{'all corruptions': 'means'} if model['means'] else {},
            **{name: f'test_sets.{name}' for name in model['test_sets']})
        rows += [[f'{model["label"]}: {title}', *(_cell(model, Headline('', f'{path}.{key}')) for key in SHOWN)]
                 for title, path in paths.items()]
    return Table('calibration, proper scores, and selection by confidence: NLL in nats, others in percent',
                 ['model: images', *(METRICS[key].title for key in SHOWN)], rows)


def _test_sets(models: Sequence[Dict[str, Any]]) -> Table:
    rows = [[f'{model["label"]}: {name}', _cell(model, HEADLINES['top1'].on(name)),
             _cell(model, Headline('', f'test_sets.{name}.top1_diff')), 100 - entry['top5_error'],
             str(entry['images']), entry['predicted_among'], entry['reference'] or '-']
            for model in models for name, entry in model['test_sets'].items()]
    return Table('test sets: accuracy in percent, and its difference to clean images',
                 ['model: test set', 'top-1', 'difference', 'top-5', 'images', 'predicted among', 'clean images'], rows)


def _ood(models: Sequence[Dict[str, Any]]) -> Table:
    rows = [[f'{model["label"]}: {name}', score, *(
        _cell(model, Headline('', f'ood.{name}.{score}.{key}')) for key in ('auroc', 'aupr', 'fpr95')),
        str(entry['images']), entry['predicted_among']]
        for model in models for name, entry in model['ood'].items() for score in ('msp', 'energy')]
    return Table('images of no class told from clean ones, in percent',
                 ['model: images', 'score', 'AUROC', 'AUPR', 'FPR95', 'images', 'predicted among'], rows)


def _corruptions(model: Dict[str, Any]) -> Table:
    rows = [[name, *(errors['top1_error'] for errors in entry['severities'].values()),
             entry['means']['top1_error'], entry['ce'], entry['relative_ce']]
            for name, entry in model['corruptions'].items()]
    by_severity = model['means_by_severity']
    rows.append(['mean', *(mean['top1_error'] for mean in by_severity.values()), model['means']['top1_error'],
                 model['mce'], model['relative_mce']])
    return Table(f'{model["label"]}: top-1 error in percent by severity',
                 ['corruption', *by_severity, 'mean', 'CE', 'relative CE'], rows)


def _perturbations(models: Sequence[Dict[str, Any]]) -> Table:
    keys = ('flip_rate', 'flip_ratio')
    head = [part for model in models for part in (model['label'], 'ratio')]
    return Table('flip rate in percent of pairs of frames, and its ratio to the baseline',
                 ['perturbation', *head],
                 [[name, *(model['perturbations'][name][key] for model in models for key in keys)]
                  for name in models[0]['perturbations']])


def _comparisons(comparisons: Sequence[Dict[str, Any]]) -> Table:
    rows: List[List[Cell]] = []
    for entry in comparisons:
        for key, value in entry['differences'].items():
            test = entry['mcnemar'].get(dict(top1='clean').get(key, key.removeprefix('top1 of ')))
            rows.append([' - '.join(entry['models']), title_of(key),
                         value['difference'], _ends(value['interval']) if value['interval'] else None,
                         f'{test["p_value"]:.2g}' if test else None])
    return Table('differences of models on the same images, 95 % intervals, and McNemar\'s exact test',
                 ['models', 'metric', 'difference', 'interval', 'p'], rows)


SHOWN = [*METRICS][2:]
SCALED = ('before', 'after')
COLUMNS = ('model', 'group', 'name', 'severity', 'items', *METRICS, 'ce', 'relative_ce', 'flip_rate', 'flip_ratio',
           'consistency', 'auroc', 'aupr', 'fpr95')


def _csv_lines(model: Mapping[str, Any]) -> Iterator[Dict[str, Any]]:
    """Yield a line for each task of a model, and one for each mean, whose severity or name is ``mean``.

    The mean of corruptions has mCE as CE, the mean of perturbations mFR as ratio. Images of no class have a
    line for each score, as their severity.
    """
    corruptions = {name: {**entry['severities'], 'mean': dict(entry, **entry['means'])}
                   for name, entry in model['corruptions'].items()}
    if corruptions:
        corruptions['mean'] = {'mean': dict(model['means'], ce=model['mce'], relative_ce=model['relative_mce'])}
    perturbations = {name: {'': entry} for name, entry in model['perturbations'].items()}
    if perturbations:
        perturbations['mean'] = {'': dict(flip_rate=model['mean_flip_rate'], flip_ratio=model['mfr'])}
    groups = dict(
        clean=dict(clean={'': model['clean']}),
        temperature={name: {'': entry} for name, entry in (model['temperature'] or {}).items() if name in SCALED},
        corruption=corruptions, perturbation=perturbations,
        shift=dict(clean={'': model['shift']}),
        test_set={name: {'': entry} for name, entry in model['test_sets'].items()},
        ood={name: {score: dict(entry[score], images=entry['images']) for score in ('msp', 'energy')}
             for name, entry in model['ood'].items()})
    for group, names in groups.items():
        for name, severities in names.items():
            for severity, metrics in severities.items():
                if metrics:
                    yield dict(metrics, model=model['label'], group=group, name=name, severity=severity,
                               items=metrics.get('images', metrics.get('sequences')))


def _write_predictions(path: Path, results: Sequence[CachedResult]) -> None:
    """Write the records of a model's tasks as arrays ``GROUP/NAME/SEVERITY/RECORD``.

    Only corruptions have a severity. ``file`` numbers the rows of ``files/LIST``, the names of the files relative to
    their folder; ``list`` says which.
    """
    arrays: Dict[str, np.ndarray] = {}
    lists: Dict[str, str] = {}
    for result in results:
        task = result.task
        if task.names not in lists:
            lists[task.names] = f'files/{len(lists)}'
            arrays[lists[task.names]] = np.array([printable(name) for name, _ in task.list_files().files])
        arrays[f'{task.key}/list'] = np.array(lists[task.names])
        for name, values in result.records.items():
            arrays[f'{task.key}/{"file" if name == "item" else name}'] = values
    write_arrays(path, arrays)


class Results(BaseResults):
    """What :func:`timm_assemble.robustness.evaluate` measured; prints as tables.

    Args:
        values: In the form of :class:`.RobustnessValues`.
        measured: Each model's records, to write its predictions; none are written without.
    """

    kind: ClassVar[Type[Values]] = RobustnessValues

    def __init__(self, values: Any, measured: Measured = ()):
        super().__init__(values)
        self._measured = measured

    def _tables(self) -> Iterable[Table]:
        values = self.to_dict()
        models = values['models']
        corrupted = [_corruptions(model) for model in models if model['corruptions']]
        optional = [_scores(models), _test_sets(models), _ood(models), *corrupted, _perturbations(models),
                    _comparisons(values['comparisons'])]
        return [_headlines(models, values['protocol']['baseline']), *(table for table in optional if table.rows)]

    @property
    def summary(self) -> Dict[str, Dict[str, Optional[float]]]:
        """Headline metrics by label; None for what was not measured."""
        return {model['label']: headlines(model) for model in self.to_dict()['models']}

    def csv(self) -> str:
        """Return one line for each model, task and mean with unrounded percents, as in results.csv."""
        return to_csv([line for model in self.to_dict()['models'] for line in _csv_lines(model)], COLUMNS)

    def write(self, folder: Path) -> List[Path]:
        """Write all files atomically, and return their paths; earlier figures that do not apply are removed.

        Raises:
            UserError: ``folder`` has results of another measurement.
        """
        folder = Path(folder)
        written = [*super().write(folder), *draw_all(folder, self.to_dict())]
        names = file_names([model.label for model, _ in self._measured], 'models')
        for model, results in self._measured:
            path = folder / 'predictions' / f'{names[model.label]}.npz'
            path.parent.mkdir(exist_ok=True)
            _write_predictions(path, results)
            written.append(path)
        return written
