"""Finished results of equal protocol side by side."""
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from ..data.images import printable
from ..errors import UserError, check
from ..evaluation.cache import DAMAGED
from ..evaluation.engine import CachedResult
from ..evaluation.options import PathLike
from ..evaluation.results import file_names
from .corruptions import PACKAGES
from .protocols import PROTOCOLS, Steps
from .report import ALEXNET, Relative, compare
from .results import SCHEMA_VERSION, Results
from .tasks import CleanTask, CorruptionTask, FlipTask, ForeignTask, OtherSetTask, ShiftTask

__all__ = ['make_table']

KINDS = {kind.group: kind for kind in (CleanTask, CorruptionTask, FlipTask, ForeignTask, OtherSetTask, ShiftTask)}


def _weights(model: Dict[str, Any]) -> str:
    return model['checksum'] or model['source']  # a callable's source is its identity


def _protocol(values: Dict[str, Any]) -> Dict[str, Any]:
    """Return all that must be equal, by path."""
    protocol = values['protocol']
    baseline = [_weights(model) for model in values['models'] if model['label'] == protocol['baseline']]
    return dict(
        **{f'protocol.{key}': value for key, value in protocol.items() if key != 'text'},
        **{f'data.{name}.fingerprint': data['fingerprint'] for name, data in values['data'].items()},
        **{f'versions.{name}': values['versions'].get(name) for name in (*PACKAGES, 'opencv')
           if protocol['images'] == 'generated'}, baseline=baseline)


def _predictions(folder: Path, label: str) -> Optional[List[CachedResult]]:
    """Return a model's records with tasks that know their metrics; None if predictions were not kept."""
    path = folder / 'predictions' / f'{file_names([label], "table")[label]}.npz'
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        names = {name: hashlib.sha256('\n'.join(values).encode()).hexdigest() for name, values in arrays.items()
                 if name.startswith('files/')}
        found = []
        for key in [name.removesuffix('/list') for name in arrays if name.endswith('/list')]:
            group, name, *severity = key.split('/')
            records = {other.removeprefix(f'{key}/'): values for other, values in arrays.items()
                       if other.startswith(f'{key}/') and other != f'{key}/list'}
            records['item'] = records.pop('file')
            task = KINDS[group](
                name, folder, len(records['item']), '', names[str(arrays[f'{key}/list'])], (), Steps(0, 0, (0, 0)),
                *((0, 0) if group == 'shift' else ()), parameter='table', severity=int(*severity))
            found.append(CachedResult(task, records, 0.0, {}, ()))
        return found
    except (*DAMAGED, IndexError) as e:
        raise UserError(f'table must have predictions of finished runs, {printable(path)} is damaged: {e}') from e


def make_table(paths: Sequence[PathLike]) -> Results:
    """Return the models of several finished results, with comparisons of those whose predictions were kept.

    Args:
        paths: ``results.json`` of each run, or its folder. A model that two of them have counts once.

    Raises:
        UserError: Results are missing, or the protocols differ.
    """
    check(bool(paths), 'table', [*paths], 'at least one results.json')
    folders = [Path(path).parent if Path(path).name == 'results.json' else Path(path) for path in paths]
    runs = [Results.load(folder, 'table').to_dict() for folder in folders]
    values, expected = runs[0], _protocol(runs[0])
    models: Dict[str, Dict[str, Any]] = {}
    measured: Dict[str, Any] = {}
    for folder, run in zip(folders, runs):
        check(run['schema_version'] == SCHEMA_VERSION, 'table', printable(folder), 'results of this version')
        found = _protocol(run)
        differ = [f'{key} ({expected.get(key)!s:.60} and {found.get(key)!s:.60})' for key in {**expected, **found}
                  if expected.get(key) != found.get(key)]
        if differ:
            raise UserError(f'table must have results of one protocol, {printable(folders[0])} and {printable(folder)} '
                            f'differ in {", ".join(differ)}')
        for model in run['models']:
            label, known = model['label'], models.get(model['label'])
            if known == model:
                continue
            label = f'{folder.name}: {label}' if known else label
            check(label not in models, 'table', label, 'of models with distinct labels, or folders with distinct names')
            models[label], predictions = dict(model, label=label), _predictions(folder, model['label'])
            if predictions:
                measured[label] = SimpleNamespace(label=label), predictions
    protocol, notes = values['protocol'], [note for run in runs for note in run['notes']]
    own = protocol['baseline'] if protocol['baseline'] in models else None
    relative = Relative(own, ALEXNET if protocol['baseline'] and not own else None,
                        tuple(protocol['corruptions']) == PROTOCOLS[protocol['name']].corruptions)
    images = {json.dumps([(result.task.key, result.task.names, result.records['item'].tolist()) for result in results])
              for _, results in measured.values()}
    if len({json.dumps(run['unreadable'], sort_keys=True) for run in runs}) > 1:
        notes.append('the runs left out different files that could not be read')
    if len(images) > 1:
        notes.append('no comparisons: some files could not be read by all runs')
    comparable = len(images) == 1 and len(measured) > 1 and own in (None, *measured)
    digest = hashlib.sha256(' '.join(run['measurement'] for run in runs).encode()).hexdigest()
    return Results(dict(
        values, models=[*models.values()], measurement=digest, notes=[*dict.fromkeys(notes)],
        unreadable=[file for run in runs for file in run['unreadable']],
        comparisons=compare([*measured.values()], relative, protocol['seed']) if comparable else []))
