"""From the figures of cells to what is reported: errors, mCE, mFR, calibration, and what they are relative to.

Knows the arithmetic, cells and the plan, and of a model what it says of itself.
"""
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..metrics import (
    ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, ALEXNET_FLIP_RATE, SEVERITIES, corruption_error, mean_corruption_error,
    mean_flip_rate, relative_corruption_error, relative_mean_corruption_error,
)
from ..plan import Plan
from ..tasks.cache import Kept
from .schema import SCHEMA_VERSION

__all__ = ['ALEXNET', 'Measured', 'MeasuredModel', 'Normaliser', 'assemble', 'baseline', 'summarise']

Measured = Sequence[Kept]


class Normaliser(NamedTuple):
    """The model that errors are relative to, in percent: corruption to errors, clean error, perturbation to flips."""

    name: str
    errors: Mapping[str, Any]
    clean: Optional[float]
    flip_rates: Mapping[str, float]


ALEXNET = Normaliser('AlexNet', ALEXNET_ERROR, ALEXNET_CLEAN_ERROR, ALEXNET_FLIP_RATE)


def _mean(values: Sequence[float]) -> Optional[float]:
    return float(np.mean(values)) if values else None


def _percent(part: float, of: float) -> float:
    return 100 * part / of


def _errors(figures: Mapping[str, Any]) -> Dict[str, Any]:
    count = figures['pictures']
    return dict(pictures=count, top1_error=_percent(figures['wrong_top1'], count),
                top5_error=_percent(figures['wrong_top5'], count), ece=figures['ece'])


def _agreement(figures: Mapping[str, Any]) -> Dict[str, Any]:
    return dict(pictures=figures['pictures'], consistency=_percent(figures['same'], figures['pictures']))


def _tables(measured: Measured) -> Dict[str, Any]:
    """What was measured, in percent, without what it is relative to."""
    tables: Dict[str, Any] = dict(clean=None, corruptions={}, perturbations={}, shift=None)
    for cell, figures, _ in measured:
        if cell.group == 'clean':
            tables['clean'] = _errors(figures)
        elif cell.group == 'corruption':
            entry = tables['corruptions'].setdefault(cell.name, dict(severities={}))
            entry['severities'][str(cell.severity)] = _errors(figures)
        elif cell.group == 'perturbation':
            tables['perturbations'][cell.name] = dict(
                figures, flip_rate=_percent(figures['flips'], figures['pairs']))
        else:
            shift = tables['shift'] = tables['shift'] or dict(
                pixels=cell.identity['shift'], clean=None, corruptions={})
            if cell.severity:
                shift['corruptions'].setdefault(cell.name, {})[str(cell.severity)] = _agreement(figures)
            else:
                shift['clean'] = _agreement(figures)
    return tables


def _error_lists(tables: Mapping[str, Any]) -> Dict[str, List[float]]:
    return {name: [cell['top1_error'] for cell in entry['severities'].values()]
            for name, entry in tables['corruptions'].items()}


def _clean_error(tables: Mapping[str, Any]) -> Optional[float]:
    return tables['clean'] and tables['clean']['top1_error']


def baseline(name: str, measured: Measured) -> Normaliser:
    """A normaliser of a model that was measured itself, on the same pictures."""
    tables = _tables(measured)
    return Normaliser(
        name, _error_lists(tables), _clean_error(tables),
        {kind: entry['flip_rate'] for kind, entry in tables['perturbations'].items()})


def summarise(
        measured: Measured, normaliser: Optional[Normaliser], all_corruptions: bool = True,
) -> Tuple[Dict[str, Any], List[str]]:
    """The report of one model.

    Args:
        measured: Cells with their figures.
        normaliser: What errors are relative to; None where there is nothing that would make sense.
        all_corruptions: The corruptions are all of the protocol; a mean over some of them is no mCE.

    Returns:
        Figures in percent, None where there are none, and why those that are relative to 0 are not there, which is
        the normaliser's doing and so the same for all models.
    """
    tables = _tables(measured)
    notes: List[str] = []
    errors, clean = _error_lists(tables), _clean_error(tables)

    def relative(what: str, call: Callable[[Normaliser], float]) -> Optional[float]:
        if normaliser is None:
            return None
        try:
            return call(normaliser)
        except ValueError as e:
            notes.append(f'no {what}: {e}')
            return None

    with_clean = clean is not None and normaliser is not None and normaliser.clean is not None
    for name, entry in tables['corruptions'].items():
        values = errors[name]
        entry['mean_error'] = _mean(values)
        entry['ce'] = relative(f'CE of {name}', lambda n: corruption_error(values, n.errors[name]))  # noqa: B023
        entry['relative_ce'] = relative(
            f'relative CE of {name}',
            lambda n: relative_corruption_error(values, clean, n.errors[name], n.clean),  # type: ignore # noqa: B023
        ) if with_clean else None
    for name, entry in tables['perturbations'].items():
        entry['flip_ratio'] = relative(
            f'flip ratio of {name}',
            lambda n: mean_flip_rate({name: entry['flip_rate']}, n.flip_rates))  # noqa: B023
    rates = {name: entry['flip_rate'] for name, entry in tables['perturbations'].items()}
    cells = [cell for entry in tables['corruptions'].values() for cell in entry['severities'].values()]
    claimed = bool(errors) and all_corruptions
    return dict(
        tables,
        mean_error=_mean([entry['mean_error'] for entry in tables['corruptions'].values()]),
        mean_ece=_mean([cell['ece'] for cell in cells]),
        mce=relative('mCE', lambda n: mean_corruption_error(errors, n.errors)) if claimed else None,
        relative_mce=relative(
            'relative mCE', lambda n: relative_mean_corruption_error(errors, clean, n.errors, n.clean)  # type: ignore
        ) if claimed and with_clean else None,
        mean_flip_rate=_mean([*rates.values()]),
        mfr=relative('mFR', lambda n: mean_flip_rate(rates, n.flip_rates)) if rates else None,
    ), notes


class MeasuredModel(NamedTuple):
    """A model, which says of itself what the results have (``label``, ``source`` and so on), and its cells."""

    model: Any
    cells: Measured


OF_MODEL = ('label', 'source', 'architecture', 'checksum', 'num_classes', 'own_size', 'mean', 'std')


def assemble(
        plan: Plan, models: Sequence[MeasuredModel], baseline_label: Optional[str], imagenet: bool, precision: str,
        versions: Dict[str, str], run: Dict[str, Any],
) -> Dict[str, Any]:
    """All results, in the form of :data:`timm_assemble.robustness.results.schema.SCHEMA`.

    Args:
        plan: What was measured.
        models: On what.
        baseline_label: The model that errors are relative to; None for AlexNet, if it makes sense.
        imagenet: Whether the pictures are of ImageNet's 1000 classes, so that AlexNet's errors are of the same kind.
        precision: Of the models' arithmetic.
        versions: Package to version.
        run: What differs between two runs of the same; the cells' seconds are added to it.
    """
    normaliser = ALEXNET if imagenet else None
    if baseline_label is not None:
        normaliser = baseline(baseline_label, next(m.cells for m in models if m.model.label == baseline_label))
    groups = {cell.group for cell in plan.cells}
    notes = [f'{model.label} is made for pictures of {model.own_size}, and was measured at {plan.size}'
             for model, _ in models if model.own_size != plan.size]
    sizes = [next((cell.items for cell in plan.cells if cell.group == group), 0) for group in ('clean', 'corruption')]
    if all(sizes) and sizes[0] != sizes[1]:
        notes.append(f'there are {sizes[0]} clean pictures and {sizes[1]} of each corruption: relative CE and relative '
                     f'mCE compare errors on different pictures')
    if 'corruption' in groups and not plan.complete:
        notes.append(f'no mCE: not the {len(plan.protocol.corruptions)} corruptions of {plan.protocol.name}')
    if groups & {'corruption', 'perturbation'} and normaliser is None:
        notes.append("no mCE and no mFR: AlexNet's are of ImageNet's 1000 classes; --baseline names another normaliser")
    entries = []
    for model, cells in models:
        summary, remarks = summarise(cells, normaliser, plan.complete)
        notes += remarks
        said = {key: getattr(model, key) for key in OF_MODEL}
        entries.append({**said, 'mean': [*model.mean], 'std': [*model.std], **summary})
    seconds = {model.label: {f'{kept.cell.group} {kept.cell.title}': kept.seconds for kept in cells}
               for model, cells in models}
    return dict(
        schema_version=SCHEMA_VERSION, versions=versions,
        protocol=dict(
            name=plan.protocol.name, text=plan.text,
            pictures='generated' if plan.libraries else 'published' if 'corruption' in groups else 'none',
            corruptions=[*plan.corruptions] if 'corruption' in groups else [],
            perturbations=[cell.name for cell in plan.cells if cell.group == 'perturbation'],
            severities=[*SEVERITIES], input_size=plan.size, seed=plan.seed, precision=precision,
            normaliser=normaliser and normaliser.name),
        data=plan.data, models=entries, notes=[*dict.fromkeys(notes)], run=dict(run, seconds=seconds))
