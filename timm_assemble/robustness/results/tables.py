"""Tables of results, as aligned text, Markdown or LaTeX."""
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ...evaluation.tables import Cell, Table, number

__all__ = ['HEADLINES', 'headlines', 'result_tables']

# title in tables of each headline metric
HEADLINES = dict(
    top1='top-1', top5='top-5', ece='ECE', mean_error='mean error', mean_ece='mean ECE', mce='mCE',
    relative_mce='relative mCE', mean_flip_rate='flip rate', mfr='mFR', mt5d='mT5D', consistency='consistency')
# where a headline metric has its interval, if that is not its own name; accuracies are 100 minus errors
PATHS = dict(top1='clean.top1_error', top5='clean.top5_error', ece='clean.ece', consistency='shift.clean.consistency')


def headlines(model: Mapping[str, Any]) -> Dict[str, Optional[float]]:
    """Return a model's headline metrics in percent; None for missing ones."""
    clean, shifted = model['clean'] or {}, (model['shift'] or {}).get('clean') or {}
    own = {'top1': 100 - clean['top1_error'] if clean else None, 'top5': 100 - clean['top5_error'] if clean else None,
           'ece': clean.get('ece'), 'consistency': shifted.get('consistency')}
    return {key: own[key] if key in own else model.get(key) for key in HEADLINES}


def _with_interval(model: Mapping[str, Any], path: str, value: Optional[float], reverse: bool = False) -> Cell:
    """Return a value with its interval, if it has one; ``reverse`` for an interval of 100 minus the value."""
    interval = ((model.get('statistics') or {}).get('intervals') or {}).get(path)
    if value is None or interval is None:
        return value
    low, high = (100 - interval[1], 100 - interval[0]) if reverse else interval
    return f'{number(value)} [{number(low)}, {number(high)}]'


def _headlines(models: Sequence[Dict[str, Any]], baseline: Optional[str]) -> Table:
    values = {model['label']: headlines(model) for model in models}
    shown = [key for key in HEADLINES if any(row[key] is not None for row in values.values())]
    over = f'; mCE and mFR in percent of {baseline}' if baseline else ''
    intervals = '; 95 % intervals' if any(model.get('statistics') for model in models) else ''
    return Table(f'percent: top-1, top-5 and ECE on clean images, the rest by the protocol{over}{intervals}',
                 ['model', *(HEADLINES[key] for key in shown)],
                 [[model['label'], *(_with_interval(model, PATHS.get(key, key), values[model['label']][key],
                                                    key in ('top1', 'top5')) for key in shown)] for model in models])


def _test_sets(models: Sequence[Dict[str, Any]]) -> Table:
    rows = [[f'{model["label"]}: {name}',
             _with_interval(model, f'test_sets.{name}.top1_error', 100 - entry['top1_error'], True),
             _with_interval(model, f'test_sets.{name}.top1_diff', entry['top1_diff']), 100 - entry['top5_error'],
             entry['ece'], str(entry['images']), entry['predicted_among'], entry['reference'] or '-']
            for model in models for name, entry in model['test_sets'].items()]
    return Table('test sets: accuracy in percent, and its difference to clean images',
                 ['model: test set', 'top-1', 'difference', 'top-5', 'ECE', 'images', 'predicted among',
                  'clean images'], rows)


def _ood(models: Sequence[Dict[str, Any]]) -> Table:
    rows = [[f'{model["label"]}: {name}', score, *(
        _with_interval(model, f'ood.{name}.{score}.{key}', entry[score][key]) for key in ('auroc', 'aupr', 'fpr95')),
        str(entry['images']), entry['predicted_among']]
        for model in models for name, entry in model['ood'].items() for score in ('msp', 'energy')]
    return Table('images of no class told from clean ones, in percent',
                 ['model: images', 'score', 'AUROC', 'AUPR', 'FPR95', 'images', 'predicted among'], rows)


def _corruptions(model: Dict[str, Any]) -> Table:
    rows = [[name, *(errors['top1_error'] for errors in entry['severities'].values()),
             entry['mean_error'], entry['ce'], entry['relative_ce']] for name, entry in model['corruptions'].items()]
    severities = [*next(iter(model['corruptions'].values()))['severities']]
    rows.append(['mean', *(sum(entry['severities'][s]['top1_error'] for entry in model['corruptions'].values())
                           / len(model['corruptions']) for s in severities),
                 model['mean_error'], model['mce'], model['relative_mce']])
    rows.append(['mean ECE', *(model['ece_by_severity'][s] for s in severities), model['mean_ece'], None, None])
    return Table(f'{model["label"]}: top-1 error in percent by severity',
                 ['corruption', *severities, 'mean', 'CE', 'relative CE'], rows)


def _perturbations(models: Sequence[Dict[str, Any]]) -> Table:
    keys = ('flip_rate', 'flip_ratio', 'top5_distance', 'top5_ratio')
    head = [part for model in models for part in (model['label'], 'ratio', 'top-5 distance', 'ratio')]
    return Table('flip rate in percent of pairs of frames, top-5 distance, and their ratios to the baseline',
                 ['perturbation', *head],
                 [[name, *(model['perturbations'][name][key] for model in models for key in keys)]
                  for name in models[0]['perturbations']])


def _shift(models: Sequence[Dict[str, Any]]) -> Table:
    rows: List[List[Cell]] = []
    for name in models[0]['shift']['corruptions']:
        each = [[entry['consistency'] for entry in model['shift']['corruptions'][name].values()] for model in models]
        rows.append([name, *(sum(values) / len(values) for values in each)])
    return Table(f'consistency in percent between two crops at most {models[0]["shift"]["pixels"]} pixels apart, '
                 'mean over severities', ['corruption', *(model['label'] for model in models)], rows)


def _temperatures(models: Sequence[Dict[str, Any]]) -> Table:
    fits = {model['label']: (model['statistics'] or {}).get('temperature') for model in models}
    return Table('temperature fitted on every second clean image; ECE of the others in percent',
                 ['model', 'temperature', 'ECE before', 'ECE after'],
                 [[label, fit['temperature'], fit['ece_before'], fit['ece_after']]
                  for label, fit in fits.items() if fit])


def _comparisons(comparisons: Sequence[Dict[str, Any]]) -> Table:
    rows: List[List[Cell]] = []
    for entry in comparisons:
        first, second = entry['models']
        for key, value in entry['differences'].items():
            interval = value['interval']
            test = entry['mcnemar'].get(dict(top1='clean').get(key, key.removeprefix('top1 of ')))
            rows.append([f'{first} - {second}', HEADLINES.get(key, key), value['difference'],
                         f'[{number(interval[0])}, {number(interval[1])}]' if interval else None,
                         f'{test["p_value"]:.2g}' if test else None])
    return Table('differences of models on the same images, 95 % intervals, and McNemar\'s exact test',
                 ['models', 'metric', 'difference', 'interval', 'p'], rows)


def result_tables(values: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of results, in the form of the schema."""
    models, baseline = values['models'], values['protocol']['baseline']
    yield _headlines(models, baseline)
    optional = [_test_sets(models), _ood(models)]
    optional += [_corruptions(model) for model in models if model['corruptions']]
    if models[0]['perturbations']:
        optional.append(_perturbations(models))
    if models[0]['shift'] and models[0]['shift']['corruptions']:
        optional.append(_shift(models))
    optional += [_temperatures(models), _comparisons(values['comparisons'])]
    yield from (table for table in optional if table.rows)
