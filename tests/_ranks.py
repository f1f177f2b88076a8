"""Ranks that are forks of this process: they need no imports, which take torchrun's processes ten seconds."""
import os
import socket
from contextlib import redirect_stderr, redirect_stdout

import torch


def _rank(rank, function, environment, folder):
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    with (folder / f'{rank}.txt').open('w') as file, redirect_stdout(file), redirect_stderr(file):
        status = function()
    assert status == 0, (folder / f'{rank}.txt').read_text()


def run_ranks(function, folder):
    """Call a command in two processes with torchrun's variables; return what each of them printed."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2')
    torch.multiprocessing.start_processes(_rank, (function, environment, folder), nprocs=2, start_method='fork')
    return [(folder / f'{rank}.txt').read_text() for rank in range(2)]
