"""Callbacks in stand-ins of their libraries' training loops; tests/ecosystem runs them in the libraries."""
import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest
import timm
import torch

from timm_assemble.training import callbacks, drop_block_schedule

EPOCHS, BATCHES, ACCUMULATED = 2, 4, 2
UPDATES = EPOCHS * BATCHES // ACCUMULATED
START, END = 0.05, 0.1


class Base:
    """The libraries' base classes, which take no arguments."""


def lightning(callback, module):
    trainer = SimpleNamespace(estimated_stepping_batches=UPDATES)
    for batch in range(EPOCHS * BATCHES):
        trainer.global_step = batch // ACCUMULATED
        callback.on_train_batch_start(trainer, module, 'batch', batch % BATCHES)
        yield trainer.global_step / UPDATES


def transformers(callback, module):
    state = SimpleNamespace(global_step=0, max_steps=UPDATES)
    while state.global_step < UPDATES:
        callback.on_step_begin('args', state, 'control', model=module, optimizer='optimizer')
        yield state.global_step / UPDATES
        state.global_step += 1


def fastai(callback, module):
    assert not callback.run_valid  # fastai then calls it for training batches alone
    callback.learn = SimpleNamespace(model=module, pct_train=0.0)
    for _ in range(EPOCHS * BATCHES):
        callback.before_batch()
        yield callback.learn.pct_train
        callback.learn.pct_train += 1 / (EPOCHS * BATCHES)


LIBRARIES = {
    'LightningDropBlock': (lightning, 'lightning.pytorch', 'Callback'),
    'TransformersDropBlock': (transformers, 'transformers', 'TrainerCallback'),
    'FastaiDropBlock': (fastai, 'fastai.callback.core', 'Callback'),
}


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """Return the callback's class, made from a stand-in of its library, and the library's training loop."""
    loop, module, base = LIBRARIES[request.param]
    names = module.split('.')
    for i in range(len(names)):
        monkeypatch.setitem(sys.modules, '.'.join(names[:i + 1]), ModuleType(names[i]))
    setattr(sys.modules[module], base, Base)
    yield getattr(callbacks, request.param), loop
    vars(callbacks).pop(request.param)


def wrapped(**kwargs):
    """A model as libraries hold it, inside a module and without its head, and a DropBlock layer of it."""
    model = timm.create_model('test_assemble_resnet', **kwargs)
    return torch.nn.ModuleDict(dict(model=torch.nn.Sequential(*list(model.children())[:-1]))), model.stages[3][0].drop2


def test_every_update_has_its_rate(library):
    callback_class, loop = library
    module, layer = wrapped(drop_block_rate=0.3)
    callback = callback_class(end=END, start=START)
    assert isinstance(callback, Base)
    for i, done in enumerate(loop(callback, module)):
        assert layer.last_rate == pytest.approx(drop_block_schedule(round(1000 * done), 1000, START, END)), i
    assert i + 1 >= UPDATES


def test_start_is_0_and_copies_keep_the_rates(library):
    callback = pickle.loads(pickle.dumps(library[0](END)))
    assert (type(callback), callback.start, callback.end) == (library[0], 0.0, END)


def test_rates_out_of_range_are_rejected_before_training(library):
    for kwargs, name in ((dict(end=1.5), 'end'), (dict(end=0.1, start=-1), 'start')):
        with pytest.raises(ValueError, match=f'^{name} must be a DropBlock rate from 0 to 1'):
            library[0](**kwargs)


def test_model_without_drop_block_warns(library):
    callback_class, loop = library
    with pytest.warns(UserWarning, match='the DropBlock schedule has no effect: .* drop_block_rate=0'):
        next(loop(callback_class(END), wrapped()[0]))


def test_missing_library_and_unknown_name_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'fastai', None)
    with pytest.raises(ModuleNotFoundError, match='fastai'):
        callbacks.FastaiDropBlock  # noqa: B018
    with pytest.raises(AttributeError, match='KerasDropBlock'):
        callbacks.KerasDropBlock  # noqa: B018
