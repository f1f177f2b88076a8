"""The training step's benchmark: arithmetic and memory. Nothing here is timed."""
from argparse import Namespace
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from benchmarks.training_step import CHECKPOINTED, MAIN, REFERENCE, make_trained, peak_bytes, saved_bytes, step_rows

FLOAT = 4  # bytes


def test_saved_bytes_count_each_storage_once_and_no_weights():
    """Two products save the input once; a view counts with its whole storage; weights do not count."""
    weight, x = nn.Parameter(torch.rand(8)), torch.rand(100, 8)
    bias = nn.Parameter(torch.rand(100, 8))
    assert saved_bytes(lambda: (x * weight + x * bias).sum(), exclude=[weight, bias]) == 800 * FLOAT
    assert saved_bytes(lambda: (x[:10] * weight).sum(), exclude=[weight]) == 800 * FLOAT
    assert saved_bytes(lambda: (x + bias).sum()) == 0
    assert saved_bytes(lambda: bias.exp().exp().sum()) == 2 * 800 * FLOAT  # exp saves its result


def test_peak_is_the_most_allocated_at_once():
    held = []

    def step():
        for size in (1000, 2000, 500):  # one after the other, each gone before the next
            held.append(torch.empty(size))
            held.clear()
        held.append(torch.empty(700))
        held.append(torch.empty(800) + torch.empty(800))  # three of 800 for a moment, beside the 700
        held.clear()

    assert peak_bytes(step, 'cpu') == (700 + 3 * 800) * FLOAT


def small(**kwargs):
    return make_trained('test_assemble_resnet', 'cpu', size=32, layers=(2, 2, 2, 1), num_classes=10, **kwargs)


def test_rows_compare_seconds_per_gmac():
    ours = small(drop_block_rate=0.1)
    trained = {REFERENCE: small(attn='')._replace(gmacs=0.5), MAIN: ours._replace(gmacs=1.0)}
    trained[CHECKPOINTED] = trained[MAIN]
    weights = [p.clone() for p in ours.network.parameters()]

    def measure(cases):
        for case in cases.values():
            case()
        return {REFERENCE: [1.0, 1.0], MAIN: [1.8, 1.8], CHECKPOINTED: [2.7, 2.7]}

    reference, main, checkpointed = step_rows(
        'float32, eager', trained, nullcontext, Namespace(measure=measure), batch_size=2, size=32)
    assert any(not torch.equal(p, before) for p, before in zip(ours.network.parameters(), weights))  # it was updated
    assert reference['comparison'] is None and reference['median_s'] == 1.0
    assert main['comparison']['ratio'] == pytest.approx(0.9) and main['comparison']['passed']
    assert checkpointed['comparison']['reference'] == MAIN and checkpointed['comparison']['bound'] is None
    assert checkpointed['comparison']['ratio'] == pytest.approx(1.5)
    assert main['details']['step (ms)'] == pytest.approx(1800) and main['details']['GMACs'] == 1.0
    assert checkpointed['details']['saved (MiB per image)'] < main['details']['saved (MiB per image)']


def test_gmacs_are_those_of_one_image():
    network = small()
    shapes = []
    for m in network.network.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            m.register_forward_hook(lambda m, args, y: shapes.append((m.weight[0].numel(), y[0].numel())))
    network.network.eval()(torch.zeros(1, 3, 32, 32))
    counted = sum(a * b for a, b in shapes)
    assert counted <= 1e9 * network.gmacs < 1.02 * counted  # the blurs, which have no layer of their own, come on top
