"""Bind the DropBlock schedule and a stored teacher into timm's unmodified train.py.

The script looks up functions in its own module when it calls them, so they are replaced there and nowhere else, and
only if its arguments ask for it.
"""
import functools
import logging
from argparse import Namespace
from types import SimpleNamespace
from typing import Any, Callable

from timm.utils import unwrap_model

from ..data.samples import use_image_extensions
from ..errors import UserError
from ..recipes import check_keys, read_config
from ..training import drop_block_schedule
from . import HOOK
from .check import check_batch_size, check_data, check_model
from .official_views import bind_official
from .stored_teacher import bind_stored_teacher, mix_nothing, one_line

__all__ = ['NEEDED', 'START_RATE', 'bind', 'is_train_script']

_logger = logging.getLogger('train')

# Names of train.py that are called or replaced. TokenDistillationTask is neither: it identifies timm 1.0.25 and newer,
# whose distillation task creates the teacher from its name.
NEEDED = (
    '_parse_args', 'parser', 'config_parser', 'create_model', 'create_loader', 'Mixup', 'FastCollateMixup',
    'LogitDistillationTask', 'TokenDistillationTask', 'train_one_epoch',
)
START_RATE = 'drop_block_start_rate'


def _scheduled(train_one_epoch: Callable, start: float, end: float) -> Callable:
    """Wrap ``train_one_epoch`` so that the DropBlock rate goes from ``start`` to ``end`` over all updates.

    The rate at the epoch's end is among its metrics, which the script writes to summary.csv.
    """
    warn_once = functools.lru_cache(_logger.warning)

    def train_one_scheduled_epoch(
            epoch: int, model: Any, loader: Any, optimizer: Any, args: Namespace, *,
            num_updates_total: int, lr_scheduler: Any = None, **kwargs: Any,
    ) -> Any:
        student: Any = unwrap_model(model)
        scheduler, rate = lr_scheduler, end
        if hasattr(student, 'set_drop_block_rate'):
            def step_update(num_updates: int, metric: Any = None) -> None:
                if lr_scheduler is not None:
                    lr_scheduler.step_update(num_updates=num_updates, metric=metric)
                set_rate(num_updates)

            def set_rate(step: int) -> None:
                nonlocal rate
                rate = drop_block_schedule(step, num_updates_total, start, end)
                student.set_drop_block_rate(rate)

            set_rate(epoch * -(-len(loader) // args.grad_accum_steps))  # as the script counts updates
            scheduler = SimpleNamespace(step_update=step_update)  # all that the script uses in an epoch
        else:
            warn_once(f'drop_block has no schedule: {type(student).__name__} has no set_drop_block_rate, so the rate '
                      f'{end} is constant')
        metrics = train_one_epoch(epoch, model, loader, optimizer, args, num_updates_total=num_updates_total,
                                  lr_scheduler=scheduler, **kwargs)
        return {**metrics, 'drop_block_rate': rate}

    return train_one_scheduled_epoch


def _bind_drop_block(script: Any, args: Namespace) -> None:
    start = (args.model_kwargs or {}).get(START_RATE)
    if start is not None:
        if isinstance(start, bool) or not isinstance(start, (int, float)) or not 0.0 <= start <= 1.0:
            raise UserError(f'model_kwargs {START_RATE} must be from 0 to 1, got {start!r}')
        if not args.drop_block:
            raise UserError(f'model_kwargs {START_RATE}={start} needs `drop_block`, the final rate')
        create_model = script.create_model

        def create_without_start_rate(*model_args: Any, **kwargs: Any) -> Any:
            kwargs.pop(START_RATE, None)
            return create_model(*model_args, **kwargs)

        script.create_model = create_without_start_rate
    if args.drop_block:
        script.train_one_epoch = _scheduled(script.train_one_epoch, float(start or 0.0), float(args.drop_block))


def is_train_script(module: Any) -> bool:
    """Return whether a module is timm's train.py, of any version."""
    return hasattr(module, '_parse_args') and hasattr(module, 'config_parser')


@one_line
def bind(script: Any) -> None:
    """Bind what the script's arguments ask for.

    Args:
        script: Module of timm's train.py, before it creates the model, the data and the task.

    Raises:
        SystemExit: With status 2 after a one-line message, if the script lacks a name or an argument is wrong.
    """
    missing = [name for name in NEEDED if not hasattr(script, name)]
    if missing:
        raise UserError(f'script must be the train.py of timm 1.0.25 or newer, got '
                         f'{getattr(script, "__file__", script.__name__)} without {", ".join(missing)}')
    use_image_extensions()
    file = script.config_parser.parse_known_args()[0].config
    if file:  # argparse accepts defaults for arguments that do not exist
        check_keys(read_config(file), [action.dest for action in script.parser._actions], file)
    args, _ = script._parse_args()
    if args.device_modules and args.device_modules[-1] == HOOK:  # a later module may register the model
        check_model(args.model, {k: v for k, v in (args.model_kwargs or {}).items() if k != START_RATE}, args)
    check_data(args.dataset, args.data_dir or args.data)
    _bind_drop_block(script, args)
    bind_official(script, args)
    bind_stored_teacher(script, args)
    if script.FastCollateMixup is not mix_nothing:
        check_batch_size(args)
