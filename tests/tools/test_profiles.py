"""The profiles: which part an operation counts for, and the table of shares."""
import pytest
import torch
from torch import nn

from benchmarks.profiles import retrieval
from benchmarks.profiles.inference import PARTS, REST, profile_call
from benchmarks.profiles.shares import part_of, shares_table


@pytest.mark.parametrize('name, part', [
    ('mkldnn::_convolution_pointwise', 'convolutions'), ('aten::bmm', "Winograd's products"),
    ('timm_assemble::winograd_conv3x3', "Winograd's transforms"),
    ('graph_1_cpp_fused_avg_pool2d_17', 'other generated code: resizing, pools, sums, casts'),
    ('mkldnn::_linear_pointwise', 'linear layers'), ('aten::empty', REST), ('TorchDynamo Cache Lookup', REST)])
def test_operation_counts_for_its_part(name, part):
    assert part_of(name, PARTS, REST) == part


def test_profile_has_the_parts_of_the_call_and_no_other():
    parts = profile_call(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)), torch.randn(2, 3, 8, 8))
    assert {*parts} - {REST} == {'convolutions', 'linear layers'} and all(parts[part] > 0 for part in {*parts} - {REST})


def test_shares_are_percentages_of_their_column():
    columns = {'a': {'x': 3., 'y': 1.}, 'b': {'x': 1., 'y': 0.}}
    assert shares_table('call', columns, digits=1).splitlines() == [
        '| share of a call (%) | a | b |', '|---|--:|--:|', '| x | 75.0 | 100.0 |', '| y | 25.0 | 0.0 |']


def test_search_prints_its_seconds_and_peak_memory(capsys):
    assert retrieval.main(['--images', '100', '--dimensions', '8', '--neighbours', '99', '--threads', '1']) == 0
    assert 'recall@99 100.00 %' in capsys.readouterr().out
