"""Which part of the optimized form an operation is counted to, and that a call is accounted for."""
import pytest
import torch
from torch import nn

from benchmarks.inference_profile import REST, part_of, profile_call


@pytest.mark.parametrize('name, part', [
    ('mkldnn::_convolution_pointwise', 'convolutions'), ('aten::bmm', "Winograd's products"),
    ('graph_1_cpp_fused_relu_split_stack_sum_unbind_view_6', "Winograd's sums and what is fused into them"),
    ('graph_1_cpp_fused_avg_pool2d_17', 'other generated code: resizing, pools, sums, casts'),
    ('mkldnn::_linear_pointwise', 'linear layers'), ('aten::empty', REST), ('TorchDynamo Cache Lookup', REST)])
def test_part_of(name, part):
    assert part_of(name) == part


def test_a_call_is_accounted_for():
    parts = profile_call(nn.Conv2d(16, 64, 3), torch.randn(2, 16, 64, 64))
    assert parts['convolutions'] > 0.5 * sum(parts.values())
