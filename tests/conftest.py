"""For every test: models are registered, one thread a process, and no logging handler outlives the test."""
import gc
import logging

import pytest
import torch

import timm_assemble  # noqa: F401

torch.set_num_threads(1)


def pytest_collection_finish():
    """Spare the garbage collector the millions of objects that imports leave: 6 % of the time of tests that compile."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def restore_logging():
    """timm's scripts add a handler whose stream pytest closes; it then prints a traceback into a later test.

    Libraries that configure logging disable the loggers that exist, and setuptools and absl set the root's level, also
    in a module's fixture, which comes before this one.
    """
    root = logging.getLogger()
    logging.disable(logging.NOTSET)
    for logger in [logger for name, logger in root.manager.loggerDict.items()
                   if name.startswith('timm_assemble') and isinstance(logger, logging.Logger)]:
        logger.disabled, logger.propagate = False, True
        logger.setLevel(logging.NOTSET)
    root.setLevel(logging.WARNING)  # Python's default
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
