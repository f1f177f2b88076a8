"""The results object, and its files."""
import csv
import io
import json
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from ...utils.atomic import atomic_file
from .plots import draw
from .schema import check_results

__all__ = ['HEADLINES', 'Results', 'headlines']

# title in tables of each headline metric
HEADLINES = dict(
    top1='top-1', top5='top-5', ece='ECE', mean_error='mean error', mean_ece='mean ECE', mce='mCE',
    relative_mce='relative mCE', mean_flip_rate='flip rate', mfr='mFR', consistency='consistency')
COLUMNS = (
    'model', 'group', 'name', 'severity', 'items', 'top1_error', 'top5_error', 'ece', 'flip_rate', 'consistency')


def headlines(model: Mapping[str, Any]) -> Dict[str, Optional[float]]:
    """Return a model's headline metrics in percent; None for missing ones."""
    clean, shifted = model['clean'] or {}, (model['shift'] or {}).get('clean') or {}
    own = {'top1': 100 - clean['top1_error'] if clean else None, 'top5': 100 - clean['top5_error'] if clean else None,
           'ece': clean.get('ece'), 'consistency': shifted.get('consistency')}
    return {key: own[key] if key in own else model[key] for key in HEADLINES}


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Align columns; numbers get two digits, and None is -."""
    grid = [head, *([v if isinstance(v, str) else '-' if v is None else f'{v:.2f}' for v in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid)]
    lines = ['  '.join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:]))]).rstrip()
             for line in grid]
    return '\n'.join([title, *lines])


def _headlines(models: Sequence[Dict[str, Any]], baseline: Optional[str]) -> str:
    values = {model['label']: headlines(model) for model in models}
    shown = [key for key in HEADLINES if any(row[key] is not None for row in values.values())]
    over = f'; mCE and mFR in percent of {baseline}' if baseline else ''
    return _table(f'percent: top-1, top-5 and ECE on clean images, the rest by the protocol{over}',
                  ['model', *(HEADLINES[key] for key in shown)],
                  [[label, *(row[key] for key in shown)] for label, row in values.items()])


def _corruptions(model: Dict[str, Any]) -> str:
    rows = [[name, *(errors['top1_error'] for errors in entry['severities'].values()),
             entry['mean_error'], entry['ce'], entry['relative_ce']] for name, entry in model['corruptions'].items()]
    severities = [*next(iter(model['corruptions'].values()))['severities']]
    return _table(f'{model["label"]}: top-1 error in percent by severity',
                  ['corruption', *severities, 'mean', 'CE', 'relative CE'], rows)


def _perturbations(models: Sequence[Dict[str, Any]]) -> str:
    head = [part for model in models for part in (model['label'], 'ratio')]
    rows = [[name, *(model['perturbations'][name][key] for model in models for key in ('flip_rate', 'flip_ratio'))]
            for name in models[0]['perturbations']]
    return _table(
        'flip rate in percent of pairs of frames, and its ratio to the baseline', ['perturbation', *head], rows)


def _shift(models: Sequence[Dict[str, Any]]) -> str:
    rows = []
    for name in models[0]['shift']['corruptions']:
        each = [[entry['consistency'] for entry in model['shift']['corruptions'][name].values()] for model in models]
        rows.append([name, *(sum(values) / len(values) for values in each)])
    return _table(f'consistency in percent between two crops at most {models[0]["shift"]["pixels"]} pixels apart, '
                  'mean over severities', ['corruption', *(model['label'] for model in models)], rows)


def _lines(model: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
    """Yield a line of the CSV for each task of a model."""
    shift = model['shift'] or dict(clean=None, corruptions={})
    groups = dict(
        clean=dict(clean={'': model['clean']}),
        corruption={name: entry['severities'] for name, entry in model['corruptions'].items()},
        perturbation={name: {'': metrics} for name, metrics in model['perturbations'].items()},
        shift=dict(clean={'': shift['clean']}, **shift['corruptions']))
    for group, names in groups.items():
        for name, severities in names.items():
            for severity, metrics in severities.items():
                if metrics:
                    yield dict(metrics, model=model['label'], group=group, name=name, severity=severity,
                               items=metrics.get('images', metrics.get('sequences')))


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
        """Return the tables of the terminal, with the protocol above and the notes below."""
        models, protocol = self._values['models'], self._values['protocol']
        parts = [f'protocol {protocol["name"]}: {protocol["text"]}', _headlines(models, protocol['baseline'])]
        parts += [_corruptions(model) for model in models if model['corruptions']]
        if models[0]['perturbations']:
            parts.append(_perturbations(models))
        if models[0]['shift'] and models[0]['shift']['corruptions']:
            parts.append(_shift(models))
        return '\n\n'.join([*parts, '\n'.join(self._values['notes'])]).rstrip('\n')

    def csv(self) -> str:
        """Return one line for each model and task with unrounded percents, as in results.csv."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n', extrasaction='ignore')
        writer.writeheader()
        for model in self._values['models']:
            writer.writerows(_lines(model))
        return text.getvalue()

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
        return [*(folder / name for name in texts), *([plot] if draw(plot, self._values) else [])]
