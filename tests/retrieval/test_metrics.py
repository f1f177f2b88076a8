"""Neighbours, recall@k and MAP@R, beside a loop over all pairs and pytorch-metric-learning."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests import _oracles
from timm_assemble.retrieval import search
from timm_assemble.retrieval.metrics import Scores, retrieval_metrics, score_neighbours
from timm_assemble.retrieval.search import block_rows, nearest_neighbours, normalize

RECALL_AT = (1, 2, 4)


def neighbours(embeddings, k):
    """Return (N, K) neighbours of all, block by block."""
    starts = range(0, len(embeddings), block_rows(len(embeddings)))
    blocks = [nearest_neighbours(embeddings, k, start) for start in starts]
    assert [block.start for block in blocks] == [*starts]
    return torch.cat([block.indices for block in blocks]), torch.cat([block.similarities for block in blocks])


def measure(embeddings, labels, recall_at=RECALL_AT):
    relevant = torch.bincount(labels)[labels] - 1
    k = min(len(labels) - 1, max(*recall_at, int(relevant.max())))
    indices, _ = neighbours(normalize(embeddings.clone()), k)
    scores = score_neighbours(labels[indices] == labels[:, None], relevant)
    return retrieval_metrics(scores, relevant.numpy(), recall_at)


@st.composite
def tied(draw):
    """Draw embeddings whose similarities are exact in float32, with many equal ones, and classes of any sizes."""
    images, blocks = draw(st.integers(5, 14)), draw(st.sampled_from([1, 3, 40]))
    signs = draw(st.lists(st.sampled_from([(1, 1, 1, 1), (1, 1, 1, -1), (1, -1, 1, -1), (2, 0, 0, 0), (0, 0, 0, 0)]),
                          min_size=images, max_size=images))
    labels = draw(st.lists(st.integers(0, 3), min_size=images, max_size=images))
    return torch.tensor(signs, dtype=torch.float32), [0, 0, *labels[2:]], blocks


@settings(max_examples=60, deadline=None)
@given(tied())
def test_metrics_are_those_of_a_loop_with_ties_and_classes_of_one_image(sample):
    embeddings, labels, rows = sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, 'SIMILARITIES', rows * len(labels))
        indices, similarities = neighbours(normalize(embeddings.clone()), 4)
        got = measure(embeddings, torch.tensor(labels))
    assert indices.tolist() == [_oracles.neighbours(embeddings.tolist(), i)[:4] for i in range(len(labels))]
    assert (similarities.diff(dim=1) <= 0).all()
    expected = _oracles.retrieval(embeddings.tolist(), labels, RECALL_AT)
    assert got == pytest.approx(expected) and [*got] == ['recall@1', 'recall@2', 'recall@4', 'map@r']


def test_metrics_are_those_of_pytorch_metric_learning():
    accuracy_calculator = pytest.importorskip('pytorch_metric_learning.utils.accuracy_calculator')
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN

    torch.manual_seed(0)
    labels = torch.cat([torch.arange(12).repeat_interleave(torch.arange(1, 13)), torch.tensor([12])])  # two alone
    embeddings = torch.randn(13, 24)[labels] + 1.5 * torch.randn(len(labels), 24)
    calculator = accuracy_calculator.AccuracyCalculator(
        include=('precision_at_1', 'mean_average_precision_at_r'), k='max_bin_count', device=torch.device('cpu'),
        knn_func=CustomKNN(CosineSimilarity()))
    theirs = calculator.get_accuracy(embeddings, labels)
    ours = measure(embeddings, labels)
    assert ours['recall@1'] == pytest.approx(100 * theirs['precision_at_1'])
    assert ours['map@r'] == pytest.approx(100 * theirs['mean_average_precision_at_r'])
    assert 20 < ours['map@r'] < ours['recall@1'] < ours['recall@4'] < 100


def test_all_images_alike_are_not_all_found():
    """A model whose embeddings are all equal finds the first images of the list, not the query itself."""
    labels = torch.arange(5).repeat_interleave(4)
    got = measure(torch.ones(20, 3), labels)
    assert got['recall@1'] == pytest.approx(100 * 4 / 20) == got['recall@2']


def test_classes_of_one_image_alone_have_no_metrics():
    with pytest.raises(ValueError, match='classes must have two images or more, at least one of them'):
        measure(torch.eye(6), torch.arange(6))
    first = Scores(np.array([0, 2, 1]), np.array([0.0, 0.5, 1.0]))
    assert retrieval_metrics(first, np.array([0, 1, 2]), [1, 2]) == {'recall@1': 50, 'recall@2': 100, 'map@r': 75}


def test_memory_of_a_block_does_not_grow_with_the_number_of_images():
    assert block_rows(10) == 1024 and block_rows(60_502) * 60_502 <= 2 ** 25 and block_rows(2 ** 30) == 1
