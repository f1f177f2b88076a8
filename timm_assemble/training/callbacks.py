"""The DropBlock schedule as a callback of Lightning, transformers and fastai.

``LightningDropBlock``, ``TransformersDropBlock`` and ``FastaiDropBlock`` take the final rate ``end`` and the first one
``start``, 0 by default. Each is made from its library's ``Callback`` when it is first imported from here.
"""
import warnings
from importlib import import_module
from typing import Any, Type

from torch import nn

from ..layers import set_drop_block_rate
from .drop_block_schedule import drop_block_schedule

__all__ = ['LightningDropBlock', 'TransformersDropBlock', 'FastaiDropBlock']

LightningDropBlock: Type[Any]
TransformersDropBlock: Type[Any]
FastaiDropBlock: Type[Any]


class _Schedule:
    """Linear schedule of every DropBlock layer of a model, however the library wraps the model."""

    def __init__(self, end: float, start: float = 0.0) -> None:
        super().__init__()
        self.end, self.start = end, start
        self.rate_at(0, 1)  # rejects rates out of range before the training starts

    def rate_at(self, step: int, total: int) -> float:
        return drop_block_schedule(step, total, self.start, self.end)

    def set_rate(self, model: nn.Module, step: int, total: int) -> None:
        if not set_drop_block_rate(model, self.rate_at(step, total)):
            warnings.warn('the DropBlock schedule has no effect: the model was made with drop_block_rate=0.',
                          stacklevel=2)


class _Lightning(_Schedule):
    """Lightning's callback: ``Trainer(callbacks=[LightningDropBlock(0.1)])``."""

    def on_train_batch_start(self, trainer: Any, pl_module: nn.Module, *args: Any) -> None:
        self.set_rate(pl_module, trainer.global_step, trainer.estimated_stepping_batches)


class _Transformers(_Schedule):
    """transformers' callback: ``Trainer(callbacks=[TransformersDropBlock(0.1)])``."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.set_rate(kwargs['model'], state.global_step, state.max_steps)


class _Fastai(_Schedule):
    """fastai's callback: ``Learner(cbs=FastaiDropBlock(0.1))``; every ``fit`` goes from ``start`` to ``end``."""

    learn: Any
    run_valid = False

    def before_batch(self) -> None:
        self.set_rate(self.learn.model, self.learn.pct_train, 1)


_CALLBACKS = {
    'LightningDropBlock': (_Lightning, 'lightning.pytorch', 'Callback'),
    'TransformersDropBlock': (_Transformers, 'transformers', 'TrainerCallback'),
    'FastaiDropBlock': (_Fastai, 'fastai.callback.core', 'Callback'),
}


def __getattr__(name: str) -> Any:
    """Make the class of a callback, which is then found under its name by imports and by pickle."""
    if name not in _CALLBACKS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    schedule, module, base = _CALLBACKS[name]
    bases = (schedule, getattr(import_module(module), base))
    globals()[name] = type(name, bases, dict(__module__=__name__, __doc__=schedule.__doc__))
    return globals()[name]
