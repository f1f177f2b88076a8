"""Results as text: tables for the terminal, and one line a cell as CSV. Knows the form of the results."""
import csv
import io
from typing import Any, Dict, List, Optional, Sequence

__all__ = ['csv_text', 'tables']

COLUMNS = (
    'model', 'group', 'name', 'severity', 'items', 'top1_error', 'top5_error', 'ece', 'flip_rate', 'consistency')


def _number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.2f}'


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    grid = [[*head], *([*row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*grid)]
    lines = ['  '.join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:]))]).rstrip()
             for line in grid]
    return '\n'.join([title, *lines])


def _summary(models: Sequence[Dict[str, Any]], normaliser: Optional[str]) -> str:
    columns = {
        'top-1': lambda m: m['clean'] and 100 - m['clean']['top1_error'],
        'top-5': lambda m: m['clean'] and 100 - m['clean']['top5_error'],
        'ECE': lambda m: m['clean'] and m['clean']['ece'],
        'mean error': lambda m: m['mean_error'],
        'mean ECE': lambda m: m['mean_ece'],
        'mCE': lambda m: m['mce'],
        'relative mCE': lambda m: m['relative_mce'],
        'flip rate': lambda m: m['mean_flip_rate'],
        'mFR': lambda m: m['mfr'],
        'consistency': lambda m: m['shift'] and m['shift']['clean'] and m['shift']['clean']['consistency'],
    }
    values = {title: [call(m) for m in models] for title, call in columns.items()}
    shown = [title for title, column in values.items() if any(v is not None for v in column)]
    over = f'; mCE and mFR in percent of {normaliser}' if normaliser else ''
    return _table(
        f'percent: clean top-1, top-5 and calibration error, the rest as the protocol has it{over}', ['model', *shown],
        [[m['label'], *(_number(values[title][i]) for title in shown)] for i, m in enumerate(models)])


def _corruptions(model: Dict[str, Any]) -> str:
    rows = []
    for name, entry in model['corruptions'].items():
        errors = [_number(cell['top1_error']) for cell in entry['severities'].values()]
        rows.append([name, *errors, *(_number(entry[key]) for key in ('mean_error', 'ce', 'relative_ce'))])
    severities = [*next(iter(model['corruptions'].values()))['severities']]
    return _table(f'{model["label"]}: top-1 error in percent by severity',
                  ['corruption', *severities, 'mean', 'CE', 'relative CE'], rows)


def _perturbations(models: Sequence[Dict[str, Any]]) -> str:
    names = [*models[0]['perturbations']]
    head = [part for m in models for part in (m['label'], 'ratio')]
    return _table('flip rate in percent of pairs of frames, and its ratio to the normaliser', ['perturbation', *head], [
        [name, *(_number(m['perturbations'][name][key]) for m in models for key in ('flip_rate', 'flip_ratio'))]
        for name in names])


def _shift(models: Sequence[Dict[str, Any]]) -> str:
    names = [*models[0]['shift']['corruptions']]
    rows = []
    for name in names:
        means = []
        for m in models:
            values = [cell['consistency'] for cell in m['shift']['corruptions'][name].values()]
            means.append(_number(sum(values) / len(values)))
        rows.append([name, *means])
    return _table(f'consistency in percent between two crops at most {models[0]["shift"]["pixels"]} pixels apart, '
                  'mean over severities', ['corruption', *(m['label'] for m in models)], rows)


def tables(results: Dict[str, Any]) -> str:
    """All tables, with the protocol above and the notes below."""
    models, protocol = results['models'], results['protocol']
    parts: List[str] = [f'protocol {protocol["name"]}: {protocol["text"]}', _summary(models, protocol['normaliser'])]
    parts += [_corruptions(m) for m in models if m['corruptions']]
    if models[0]['perturbations']:
        parts.append(_perturbations(models))
    if models[0]['shift'] and models[0]['shift']['corruptions']:
        parts.append(_shift(models))
    if results['notes']:
        parts.append('\n'.join(results['notes']))
    return '\n\n'.join(parts)


def csv_text(results: Dict[str, Any]) -> str:
    """One line a cell, percents in full; what a kind of cell does not have is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()

    def write(model: Dict[str, Any], group: str, name: str, severity: str, figures: Dict[str, Any]) -> None:
        items = figures.get('pictures', figures.get('films'))
        writer.writerow({
            'model': model['label'], 'group': group, 'name': name, 'severity': severity, 'items': items,
            **{key: figures[key] for key in COLUMNS if key in figures}})
    for model in results['models']:
        if model['clean']:
            write(model, 'clean', 'clean', '', model['clean'])
        for name, entry in model['corruptions'].items():
            for severity, cell in entry['severities'].items():
                write(model, 'corruption', name, severity, cell)
        for name, entry in model['perturbations'].items():
            write(model, 'perturbation', name, '', entry)
        shift = model['shift'] or dict(clean=None, corruptions={})
        if shift['clean']:
            write(model, 'shift', 'clean', '', shift['clean'])
        for name, severities in shift['corruptions'].items():
            for severity, cell in severities.items():
                write(model, 'shift', name, severity, cell)
    return text.getvalue()
