"""Which part of the optimized form an operation is counted to, and that a call is accounted for."""
import pytest
import torch
from torch import nn

from benchmarks.profiles.inference import PARTS, REST, profile_call
from benchmarks.profiles.shares import part_of, shares_table


@pytest.mark.parametrize('name, part', [
    ('mkldnn::_convolution_pointwise', 'convolutions'), ('aten::bmm', "Winograd's products"),
    ('graph_1_cpp_fused_relu_split_stack_sum_unbind_view_6', "Winograd's sums and what is fused into them"),
    ('graph_1_cpp_fused_avg_pool2d_17', 'other generated code: resizing, pools, sums, casts'),
    ('mkldnn::_linear_pointwise', 'linear layers'), ('aten::empty', REST), ('TorchDynamo Cache Lookup', REST)])
def test_part_of(name, part):
    assert part_of(name, PARTS, REST) == part


def test_a_call_is_accounted_for():
    parts = profile_call(nn.Conv2d(16, 64, 3), torch.randn(2, 16, 64, 64))
    assert parts['convolutions'] > 0.5 * sum(parts.values())


def test_shares_are_of_the_columns_sum():
    columns = {'a': {'x': 3., 'y': 1.}, 'b': {'x': 1., 'y': 0.}}
    assert shares_table('call', columns, digits=1).splitlines() == [
        '| share of a call (%) | a | b |', '|---|--:|--:|', '| x | 75.0 | 100.0 |', '| y | 25.0 | 0.0 |']
