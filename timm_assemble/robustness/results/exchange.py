"""Results as other projects have them: CSV, the columns of timm's results, the names of RobustBench."""
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from ...evaluation.tables import to_csv

__all__ = ['COLUMNS', 'csv_lines', 'robustbench_entry', 'timm_tables']

COLUMNS = ('model', 'group', 'name', 'severity', 'items', 'top1_error', 'top5_error', 'ece', 'ce', 'relative_ce',
           'flip_rate', 'flip_ratio', 'top5_distance', 'top5_ratio', 'consistency')
TIMM_COLUMNS = ('model', 'top1', 'top1_err', 'top5', 'top5_err', 'param_count', 'img_size', 'crop_pct',
                'interpolation', 'top1_diff', 'top5_diff', 'rank_diff')


def csv_lines(model: Mapping[str, Any]) -> Iterator[Dict[str, Any]]:
    """Yield a line for each task of a model, and one for each mean, whose severity or name is ``mean``.

    The mean of corruptions has mCE as CE, the mean of perturbations mFR and mT5D as ratios.
    """
    shift = model['shift'] or dict(clean=None, corruptions={})
    corruptions = {name: {**entry['severities'], 'mean': dict(
        top1_error=entry['mean_error'], ce=entry['ce'], relative_ce=entry['relative_ce'])}
        for name, entry in model['corruptions'].items()}
    if corruptions:
        corruptions['mean'] = {'mean': dict(top1_error=model['mean_error'], ece=model['mean_ece'], ce=model['mce'],
                                            relative_ce=model['relative_mce'])}
    perturbations = {name: {'': metrics} for name, metrics in model['perturbations'].items()}
    if perturbations:
        perturbations['mean'] = {'': dict(
            flip_rate=model['mean_flip_rate'], flip_ratio=model['mfr'], top5_distance=model['mean_top5_distance'],
            top5_ratio=model['mt5d'])}
    groups = dict(
        clean=dict(clean={'': model['clean']}), corruption=corruptions, perturbation=perturbations,
        shift=dict(clean={'': shift['clean']}, **shift['corruptions']),
        test_set={name: {'': entry} for name, entry in {**model['test_sets'], **model['references']}.items()})
    for group, names in groups.items():
        for name, severities in names.items():
            for severity, metrics in severities.items():
                if metrics:
                    yield dict(metrics, model=model['label'], group=group, name=name, severity=severity,
                               items=metrics.get('images', metrics.get('sequences')))


def _signed(value: Optional[float], form: str) -> str:
    return '' if value is None else format(value, f'+{form}')


def _ranked(models: Sequence[Mapping[str, Any]], errors: Sequence[Mapping[str, Any]]) -> List[str]:
    order = sorted(zip(models, errors), key=lambda m: (m[1]['top1_error'], m[1]['top5_error'], m[0]['label']))
    return [model['label'] for model, _ in order]


def timm_tables(values: Mapping[str, Any]) -> Dict[str, str]:
    """Return the name and the CSV of each set of images, in the columns of timm's results, best models first.

    Differences are to the clean images that the results name as the set's reference.
    """
    models, protocol = values['models'], values['protocol']
    own = 'imagenet' if all(model['num_classes'] in (1000, 1001) for model in models) else 'clean'
    sets = {own: [model['clean'] for model in models]} if models[0]['clean'] else {}
    for group in ('references', 'test_sets'):
        sets.update({name: [model[group][name] for model in models] for name in models[0][group]})
    tables = {}
    for name, errors in sets.items():
        reference = errors[0].get('reference')
        ranked = _ranked(models, errors)
        before = _ranked(models, sets[own if reference == 'clean' else reference]) if reference else []
        lines = {}
        for model, entry in zip(models, errors):
            rank = ranked.index(model['label'])
            moved = before.index(model['label']) - rank if before else None
            lines[rank] = dict(
                model=model['label'], top1=f'{100 - entry["top1_error"]:.3f}', top1_err=f'{entry["top1_error"]:.3f}',
                top5=f'{100 - entry["top5_error"]:.3f}', top5_err=f'{entry["top5_error"]:.3f}',
                param_count='' if model['parameters'] is None else f'{model["parameters"] / 1e6:,.2f}',
                img_size=protocol['input_size'], crop_pct=f'{protocol["crop_pct"]:.3f}', interpolation='bilinear',
                top1_diff=_signed(entry.get('top1_diff'), '.3f'), top5_diff=_signed(entry.get('top5_diff'), '.3f'),
                rank_diff='0' if moved == 0 else _signed(moved, 'd'))
        columns = TIMM_COLUMNS if reference else TIMM_COLUMNS[:-3]
        tables[f'results-{name}.csv'] = to_csv([lines[rank] for rank in sorted(lines)], columns)
    return tables


def robustbench_entry(model: Mapping[str, Any], values: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """Return a model's corruptions in RobustBench's names, None without ImageNet-C's 15 or without images of its own.

    ``corruptions_acc`` and ``corruptions_mce`` are percents with two digits, as texts; what only the authors know is
    null.
    """
    protocol = values['protocol']
    names = {'imagenet-c': '', 'imagenet-3dcc': '_3d'}
    if protocol['images'] != 'published' or protocol['name'] not in names or model['mean_error'] is None:
        return None
    suffix = names[protocol['name']]
    return dict(
        link=None, name=model['label'], authors=None, additional_data=None, number_forward_passes=1,
        dataset='imagenet', venue=None, architecture=model['architecture'], eps=None,
        clean_acc=f'{100 - model["clean"]["top1_error"]:.2f}' if model['clean'] else None, reported=None,
        **{f'corruptions_acc{suffix}': f'{100 - model["mean_error"]:.2f}',
           f'corruptions_mce{suffix}': None if model['mce'] is None else f'{model["mce"]:.2f}'}, footnote=None)
