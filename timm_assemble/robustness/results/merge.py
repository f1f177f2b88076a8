"""Several finished runs of one protocol and data as one."""
import hashlib
from pathlib import Path
from typing import Any, Dict, List, Sequence, Union

from ...errors import UserError
from .report import Results

__all__ = ['merge']

SAME = ('protocol', 'data', 'unreadable')


def _differing(first: Dict[str, Any], second: Dict[str, Any], prefix: str = '') -> List[str]:
    """Return the paths of what differs between two parts of results, without the folders' paths."""
    paths: List[str] = []
    for key in [*first, *(key for key in second if key not in first)]:
        if key == 'folder':
            continue
        a, b = first.get(key), second.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            paths += _differing(a, b, f'{prefix}{key}.')
        elif a != b:
            paths.append(f'{prefix}{key}')
    return paths


def merge(folders: Sequence[Union[str, Path]], command: str = 'timm_assemble.robustness.merge') -> Results:
    """Return the results of several folders as one: their models side by side.

    A model that several runs have under one label, such as their baseline, must have the same results in all and counts
    once. Models of different runs are not compared image by image.

    Args:
        folders: Outputs of finished runs.
        command: What results.json says was called.

    Raises:
        UserError: A folder has no results, or the runs differ in protocol, data, unreadable files, or in the results
            of one label.
    """
    if len(folders) < 2:
        raise UserError(f'merge needs two folders or more, got {len(folders)}')
    first, *others = [Results.load(folder).to_dict() for folder in folders]
    models = {model['label']: model for model in first['models']}
    notes, comparisons = [*first['notes']], [*first['comparisons']]
    seconds = {**first['run']['seconds']}
    for folder, other in zip(folders[1:], others):
        differing = _differing({key: first[key] for key in SAME}, {key: other[key] for key in SAME})
        if differing:
            raise UserError(f'merge needs runs of one protocol, data and files, {folders[0]} and {folder} differ in '
                             f'{", ".join(differing)}')
        for model in other['models']:
            known = models.setdefault(model['label'], model)
            differing = _differing(known, model)
            if known is not model and any(not path.startswith('statistics') for path in differing):
                raise UserError(f'merge needs one label for each model, {model["label"]} of {folder} is another one: '
                                 f'{", ".join(differing[:5])} differ')
            known['statistics'] = known['statistics'] or model['statistics']
        notes += other['notes']
        known_pairs = [entry['models'] for entry in comparisons]
        comparisons += [entry for entry in other['comparisons'] if entry['models'] not in known_pairs]
        seconds.update(other['run']['seconds'])
        differing = _differing(first['versions'], other['versions'])
        if differing:
            notes.append(f'{folder} was measured with ' + ', '.join(
                f'{name} {other["versions"].get(name, "unknown")}' for name in differing))
    measurement = hashlib.sha256(' '.join(run['measurement'] for run in (first, *others)).encode()).hexdigest()
    return Results(dict(
        first, models=[*models.values()], notes=[*dict.fromkeys(notes)], comparisons=comparisons,
        measurement=measurement, run=dict(first['run'], command=command, seconds=seconds)))
