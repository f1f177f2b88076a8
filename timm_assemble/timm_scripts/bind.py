"""Bind the DropBlock schedule and stored teacher logits into timm's unmodified train.py.

The script looks up functions in its own module when it calls them, so they are replaced there and nowhere else, and
only if its arguments ask for it.
"""
import functools
import logging
import sys
from argparse import Namespace
from types import ModuleType
from typing import Any, Callable, List, Optional

from timm.data.loader import fast_collate
from timm.utils import unwrap_model
from torch.utils.data import default_collate

from ..recipes import check_keys, read_config
from ..training import (
    StoredLogitsDistillationTask, TeacherCollate, TeacherCollateMixup, TeacherDataset, TeacherLogits, TeacherMixup,
    drop_block_schedule, fingerprint,
)
from . import HOOK
from .check import check_data, check_model

__all__ = ['NEEDED', 'START_RATE', 'bind']

_logger = logging.getLogger('train')

# Names of train.py that are called or replaced. TokenDistillationTask is neither: it identifies timm 1.0.25 and newer,
# whose distillation task creates the teacher from its name.
NEEDED = (
    '_parse_args', 'parser', 'config_parser', 'create_model', 'create_loader', 'Mixup', 'FastCollateMixup',
    'LogitDistillationTask', 'TokenDistillationTask', 'train_one_epoch',
)
STORED = 'logits:'
START_RATE = 'drop_block_start_rate'


def _one_line(function: Callable) -> Callable:
    """Report a ValueError in one line and exit with status 2, as argparse does."""
    @functools.wraps(function)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as e:
            print(f'timm_assemble: {e}', file=sys.stderr, flush=True)
            raise SystemExit(2) from e
    return reporting


class _ScheduledUpdates:
    """Wraps the learning rate scheduler and sets the DropBlock rate of the next update."""

    def __init__(self, scheduler: Any, set_rate: Callable[[int], None]) -> None:
        self._scheduler = scheduler
        self._set_rate = set_rate

    def step_update(self, num_updates: int, metric: Any = None) -> None:
        if self._scheduler is not None:
            self._scheduler.step_update(num_updates=num_updates, metric=metric)
        self._set_rate(num_updates)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)


class _ScheduledEpochs:
    """Wraps ``train_one_epoch`` so that the DropBlock rate goes from ``start`` to ``end`` over all updates."""

    def __init__(self, train_one_epoch: Callable, start: float, end: float) -> None:
        self._train_one_epoch = train_one_epoch
        self._start = start
        self._end = end
        self._warned = False

    def __call__(
            self, epoch: int, model: Any, loader: Any, optimizer: Any, args: Namespace, *,
            num_updates_total: int, lr_scheduler: Any = None, **kwargs: Any,
    ) -> Any:
        student: Any = unwrap_model(model)
        if hasattr(student, 'set_drop_block_rate'):
            def set_rate(step: int) -> None:
                student.set_drop_block_rate(drop_block_schedule(step, num_updates_total, self._start, self._end))

            set_rate(epoch * -(-len(loader) // args.grad_accum_steps))  # as the script counts updates
            lr_scheduler = _ScheduledUpdates(lr_scheduler, set_rate)
        elif not self._warned:
            self._warned = True
            _logger.warning(f'drop_block has no schedule: {type(student).__name__} has no set_drop_block_rate, so the '
                            f'rate {self._end} is constant')
        return self._train_one_epoch(
            epoch, model, loader, optimizer, args, num_updates_total=num_updates_total, lr_scheduler=lr_scheduler,
            **kwargs)


def _bind_drop_block(script: Any, args: Namespace) -> None:
    start = (args.model_kwargs or {}).get(START_RATE)
    if start is not None:
        if isinstance(start, bool) or not isinstance(start, (int, float)) or not 0.0 <= start <= 1.0:
            raise ValueError(f'model_kwargs {START_RATE} must be from 0 to 1, got {start!r}')
        if not args.drop_block:
            raise ValueError(f'model_kwargs {START_RATE}={start} needs `drop_block`, the final rate')
        create_model = script.create_model

        def create_without_start_rate(*model_args: Any, **kwargs: Any) -> Any:
            kwargs.pop(START_RATE, None)
            return create_model(*model_args, **kwargs)

        script.create_model = create_without_start_rate
    if args.drop_block:
        script.train_one_epoch = _ScheduledEpochs(script.train_one_epoch, float(start or 0.0), float(args.drop_block))


def _innermost(dataset: Any) -> Any:
    """Return the data set inside wrappers such as timm's AugMixDataset."""
    while not hasattr(dataset, 'reader') and not hasattr(dataset, 'samples') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return dataset


def _bind_stored_logits(script: Any, args: Namespace) -> None:
    if args.kd_distill_type != 'logit':
        raise ValueError(f'kd_distill_type must be logit with stored logits, got {args.kd_distill_type}')
    if getattr(args, 'naflex_loader', False):
        raise ValueError('naflex_loader must be off with stored logits: it splits images into patches')
    if not args.kd_temperature > 0:
        raise ValueError(f'kd_temperature must be positive, got {args.kd_temperature}')
    try:
        store = TeacherLogits(args.kd_model_name[len(STORED):])
    except ValueError as e:
        raise ValueError(f'kd_model_name must name stored logits: {e}') from e
    create_model, create_loader = script.create_model, script.create_loader
    num_classes: List[int] = []

    def create_and_note(*model_args: Any, **kwargs: Any) -> Any:
        model = create_model(*model_args, **kwargs)
        num_classes.append(args.num_classes or model.num_classes)
        return model

    def create_with_rows(dataset: Any, *loader_args: Any, is_training: bool = False, collate_fn: Any = None,
                         use_prefetcher: bool = True, **kwargs: Any) -> Any:
        if is_training:
            store.check(fingerprint(_innermost(dataset)), num_classes[0])
            dataset = TeacherDataset(dataset, store, args.kd_temperature)
            if collate_fn is None:
                collate_fn = TeacherCollate(fast_collate if use_prefetcher else default_collate)
        return create_loader(dataset, *loader_args, is_training=is_training, collate_fn=collate_fn,
                             use_prefetcher=use_prefetcher, **kwargs)

    def create_task(
            student_model: Any, teacher_model: str, criterion: Any = None, loss_type: str = 'kl',
            distill_loss_weight: Optional[float] = None, task_loss_weight: Optional[float] = None,
            temperature: float = 1.0, **kwargs: Any,
    ) -> StoredLogitsDistillationTask:
        return StoredLogitsDistillationTask(
            student_model, criterion, task_loss_weight, distill_loss_weight, temperature, **kwargs)

    script.create_model = create_and_note
    script.create_loader = _one_line(create_with_rows)
    script.Mixup = TeacherMixup
    script.FastCollateMixup = TeacherCollateMixup
    script.LogitDistillationTask = create_task


@_one_line
def bind(script: ModuleType) -> None:
    """Bind what the script's arguments ask for.

    Args:
        script: Module of timm's train.py, before it creates the model, the data and the task.

    Raises:
        SystemExit: With status 2 after a one-line message, if the script lacks a name or an argument is wrong.
    """
    missing = [name for name in NEEDED if not hasattr(script, name)]
    if missing:
        raise ValueError(f'script must be the train.py of timm 1.0.25 or newer, got '
                         f'{getattr(script, "__file__", script.__name__)} without {", ".join(missing)}')
    module: Any = script
    file = module.config_parser.parse_known_args()[0].config
    if file:  # argparse accepts defaults for arguments that do not exist
        check_keys(read_config(file), [action.dest for action in module.parser._actions], file)
    args, _ = module._parse_args()
    if args.device_modules and args.device_modules[-1] == HOOK:  # a later module may register the model
        check_model(args.model, {k: v for k, v in (args.model_kwargs or {}).items() if k != START_RATE})
    check_data(args.dataset, args.data_dir or args.data)
    _bind_drop_block(module, args)
    if (args.kd_model_name or '').startswith(STORED):
        _bind_stored_logits(module, args)
