"""Checkpoints with random mutations of their variables or bytes, through TensorFlow's own reader.

A mutation gives the right network or a sentence. ``python -m tests.convert.test_mutated_checkpoints SEED COUNT``
prints every failure.
"""
import importlib.util
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from timm_assemble.convert import convert, find_checkpoint, open_checkpoint, state_dict_from_tf
from timm_assemble.convert.tf_names import tf_shapes
from timm_assemble.errors import UserError

from .._official import make_variable
from .._tensorflow import with_slots, write_checkpoint

NETWORK = 'assemble_resnet50_d_sk', dict(layers=(1, 1, 1, 1), width=8, num_classes=11)
NAMES = ['resnet_model/conv2d_99/kernel', 'x', '/', 'resnet_model/', 'resnet_model/a\nb', 'resnet_model/\x1b[31m',
         'resnet_model/stage1/big1/conv2d/kernel', 'resnet_model/sk_block_9/sk_fc_1/kernel', 'Momentum', 'é' * 300]
VALUES = [np.float32('nan'), np.float32('inf'), np.float32(-1e30)]
DTYPES = [np.float16, np.float64, np.int32, np.int64, np.bool_, np.complex64]
SHAPES = [(), (0,), (1,), (3, 3), (0, 0, 0, 0), (7, 7, 0, 8), (3, 3, 3, 0), (1, 1, 1, 1, 1), (2 ** 20,)]


def original():
    shapes = tf_shapes(timm.create_model(NETWORK[0], device='meta', **NETWORK[1]))
    return {name: make_variable(name, shape, False) for name, shape in shapes.items()}


def mutate_variables(rng, variables):
    """Change one to three variables; return what was done."""
    done = []
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(variables))
        value = variables[name]
        kind = rng.choice(('drop', 'rename', 'copy', 'shape', 'cut', 'dtype', 'value', 'average', 'averages'))
        done.append(f'{kind} {name}')
        if kind in ('drop', 'rename'):
            del variables[name]
        if kind in ('rename', 'copy'):
            variables[rng.choice(NAMES)] = value
        elif kind == 'shape':
            variables[name] = np.zeros(rng.choice(SHAPES), np.float32)
        elif kind == 'cut':
            variables[name] = value[:rng.randint(0, 2)] if value.ndim else value
        elif kind == 'dtype':
            variables[name] = value.astype(rng.choice(DTYPES))
        elif kind == 'value' and value.size:
            variables[name] = np.where(np.arange(value.size).reshape(value.shape) == 0, rng.choice(VALUES), value)
        elif kind == 'average':
            variables[f'{name}/ExponentialMovingAverage'] = value
        elif kind == 'averages':
            variables.update({f'{n}/ExponentialMovingAverage': v for n, v in [*variables.items()]})
        if not variables:
            variables['x'] = value
    return ', '.join(done)


def mutate_bytes(rng, folder):
    """Change a file; return what was done."""
    path = rng.choice([f for f in folder.iterdir()])
    data = bytearray(path.read_bytes())
    kind = rng.choice(('flip', 'flip', 'cut', 'append', 'zeros', 'noise', 'delete', 'folder', 'swap'))
    at = rng.randrange(len(data))
    if kind == 'flip':
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 'cut':
        data = data[:at]
    elif kind == 'append':
        data += rng.randbytes(rng.randint(1, 200))
    elif kind == 'zeros':
        data[at:at + 200] = bytes(len(data[at:at + 200]))
    elif kind == 'noise':
        data[at:at + 200] = rng.randbytes(len(data[at:at + 200]))
    elif kind == 'swap':
        data = bytearray(rng.choice([f for f in folder.iterdir()]).read_bytes())
    path.unlink()
    if kind == 'folder':
        path.mkdir()
    elif kind != 'delete':
        path.write_bytes(data)
    return f'{kind} {path.name} at {at}'


def check(rng, folder):
    """Mutate a checkpoint and convert it; return what was done and how it ended."""
    variables = original()
    moving_averages = rng.random() < 0.2
    what = mutate_variables(rng, variables) if rng.random() < 0.5 else ''
    write_checkpoint(folder, with_slots(variables))
    what = what or mutate_bytes(rng, folder)
    try:
        made = convert(open_checkpoint(find_checkpoint(folder), moving_averages))
    except UserError as e:
        assert str(e).isprintable() and len(str(e)) < 2000, what
        return what, str(e)
    weights = {name: value for name, value in variables.items() if 'Average' not in name}
    if moving_averages:
        weights.update({name.rpartition('/')[0]: value for name, value in variables.items() if 'Average' in name})
    expected = state_dict_from_tf(weights, made.model)
    assert all(torch.equal(value, expected[name].float()) for name, value in made.model.state_dict().items()
               if value.is_floating_point()), what
    return what, 'the right network'


def run(seed, count):
    rng, ends, failures = random.Random(seed), Counter(), []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            try:
                what, end = check(rng, Path(folder))
            except Exception as e:
                failures.append(f'{type(e).__name__}: {e}')
                continue
        ends['the right network' if end == 'the right network' else 'a sentence'] += 1
        print(f'{what[:100]} -> {end[:300]}', file=sys.stderr)
    return ends, failures


@pytest.mark.skipif(importlib.util.find_spec('tensorflow') is None, reason='TensorFlow is not installed')
def test_a_mutated_checkpoint_gives_a_sentence_or_the_right_network():
    ends, failures = run(0, 25)
    assert not failures
    assert ends['the right network'] and ends['a sentence']


if __name__ == '__main__':
    ends, failures = run(*map(int, sys.argv[1:3]))
    print(dict(ends), f'{len(failures)} failed', *failures, sep='\n')
