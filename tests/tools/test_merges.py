"""Both forms of every measured merge are one function, and the benchmark fails where they are not."""
import pytest
import torch

from benchmarks import merges


@pytest.mark.parametrize('title', merges.MERGES)
def test_both_forms_compute_the_same(title):
    torch.manual_seed(0)
    merge = merges.MERGES[title]()
    x = torch.randn(2, merge.chs, merge.side, merge.side)
    with torch.no_grad():
        present, merged = merge.present.double()(x.double()), merge.merged.double()(x.double())
    torch.testing.assert_close(merged, present, rtol=0, atol=1e-6)
    assert present.std() > 0.01


def test_another_function_is_rejected(monkeypatch):
    title = "SK's two logits as their difference"
    other = merges.gate_difference(8, 4)._replace(merged=torch.nn.Conv2d(8, 8, 1))
    monkeypatch.setitem(merges.MERGES, title, lambda: other)
    with pytest.raises(RuntimeError, match=f'{title}: the two forms differ by'):
        merges.merge_rows(title, torch.float32, 'cpu', lambda cases: {})
