"""Results as text: headline metrics, tables for the terminal, and CSV."""
import csv
import io
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

__all__ = ['HEADLINES', 'csv_text', 'headlines', 'tables']

# title in tables of each headline metric
HEADLINES = dict(
    top1='top-1', top5='top-5', ece='ECE', mean_error='mean error', mean_ece='mean ECE', mce='mCE',
    relative_mce='relative mCE', mean_flip_rate='flip rate', mfr='mFR', consistency='consistency')
COLUMNS = (
    'model', 'group', 'name', 'severity', 'items', 'top1_error', 'top5_error', 'ece', 'flip_rate', 'consistency')


def headlines(model: Mapping[str, Any]) -> Dict[str, Optional[float]]:
    """Return a model's headline metrics in percent; None for missing ones."""
    clean, shifted = model['clean'] or {}, (model['shift'] or {}).get('clean') or {}
    return {**dict.fromkeys(HEADLINES), **{key: model[key] for key in HEADLINES if key in model},
            'top1': 100 - clean['top1_error'] if clean else None, 'top5': 100 - clean['top5_error'] if clean else None,
            'ece': clean.get('ece'), 'consistency': shifted.get('consistency')}


def _number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.2f}'


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    grid = [[*head], *([*row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid)]
    lines = ['  '.join([line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:]))]).rstrip()
             for line in grid]
    return '\n'.join([title, *lines])


def _headlines(models: Sequence[Dict[str, Any]], baseline: Optional[str]) -> str:
    values = [headlines(model) for model in models]
    shown = [key for key in HEADLINES if any(row[key] is not None for row in values)]
    over = f'; mCE and mFR in percent of {baseline}' if baseline else ''
    return _table(f'percent: top-1, top-5 and ECE on clean images, the rest by the protocol{over}',
                  ['model', *(HEADLINES[key] for key in shown)],
                  [[model['label'], *(_number(row[key]) for key in shown)] for model, row in zip(models, values)])


def _corruptions(model: Dict[str, Any]) -> str:
    severities = [*next(iter(model['corruptions'].values()))['severities']]
    rows = [[name, *(_number(errors['top1_error']) for errors in entry['severities'].values()),
             *(_number(entry[key]) for key in ('mean_error', 'ce', 'relative_ce'))]
            for name, entry in model['corruptions'].items()]
    return _table(f'{model["label"]}: top-1 error in percent by severity',
                  ['corruption', *severities, 'mean', 'CE', 'relative CE'], rows)


def _perturbations(models: Sequence[Dict[str, Any]]) -> str:
    head = [part for model in models for part in (model['label'], 'ratio')]
    rows = [[name, *(_number(model['perturbations'][name][key]) for model in models
                     for key in ('flip_rate', 'flip_ratio'))] for name in models[0]['perturbations']]
    return _table(
        'flip rate in percent of pairs of frames, and its ratio to the baseline', ['perturbation', *head], rows)


def _shift(models: Sequence[Dict[str, Any]]) -> str:
    rows = []
    for name in models[0]['shift']['corruptions']:
        each = [[entry['consistency'] for entry in model['shift']['corruptions'][name].values()] for model in models]
        rows.append([name, *(_number(sum(values) / len(values)) for values in each)])
    return _table(f'consistency in percent between two crops at most {models[0]["shift"]["pixels"]} pixels apart, '
                  'mean over severities', ['corruption', *(model['label'] for model in models)], rows)


def tables(results: Dict[str, Any]) -> str:
    """Return all tables, with the protocol above and the notes below."""
    models, protocol = results['models'], results['protocol']
    parts: List[str] = [f'protocol {protocol["name"]}: {protocol["text"]}', _headlines(models, protocol['baseline'])]
    parts += [_corruptions(model) for model in models if model['corruptions']]
    if models[0]['perturbations']:
        parts.append(_perturbations(models))
    if models[0]['shift'] and models[0]['shift']['corruptions']:
        parts.append(_shift(models))
    if results['notes']:
        parts.append('\n'.join(results['notes']))
    return '\n\n'.join(parts)


def _entries(model: Dict[str, Any]) -> Iterator[Any]:
    """Yield group, name, severity and metrics of each task of a model."""
    shift = model['shift'] or dict(clean=None, corruptions={})
    if model['clean']:
        yield 'clean', 'clean', '', model['clean']
    for name, entry in model['corruptions'].items():
        for severity, metrics in entry['severities'].items():
            yield 'corruption', name, severity, metrics
    for name, metrics in model['perturbations'].items():
        yield 'perturbation', name, '', metrics
    if shift['clean']:
        yield 'shift', 'clean', '', shift['clean']
    for name, severities in shift['corruptions'].items():
        for severity, metrics in severities.items():
            yield 'shift', name, severity, metrics


def csv_text(results: Dict[str, Any]) -> str:
    """Return one line for each model and task, with unrounded percents."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n', extrasaction='ignore')
    writer.writeheader()
    for model in results['models']:
        for group, name, severity, metrics in _entries(model):
            items = metrics.get('images', metrics.get('sequences'))
            writer.writerow(dict(
                metrics, model=model['label'], group=group, name=name, severity=severity, items=items))
    return text.getvalue()
