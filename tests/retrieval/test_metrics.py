"""Rankings, recall@k, mAP and MAP@R, beside a loop over all pairs and pytorch-metric-learning; their intervals."""
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests import _oracles
from timm_assemble.data.images import make_file_list
from timm_assemble.evaluation.engine import image_bar
from timm_assemble.evaluation.intervals import student, wilson
from timm_assemble.retrieval import search
from timm_assemble.retrieval.datasets import SearchSet
from timm_assemble.retrieval.embeddings import Embedded
from timm_assemble.retrieval.evaluation import _search
from timm_assemble.retrieval.metrics import Scores, retrieval_metrics
from timm_assemble.retrieval.search import block_rows
from timm_assemble.runtime.ranks import Ranks

RECALL_AT = (1, 2, 4)


def find(embeddings, labels, gallery=None, gallery_labels=(), own=None):
    """Search as an evaluation does, without files: all among all others, or queries in a gallery."""
    classes = [f'{i:03d}' for i in range(1 + max([*labels, *gallery_labels]))]
    files = [(f'g{i}', label) for i, label in enumerate(labels if gallery is None else gallery_labels)]
    data = SearchSet('gallery', make_file_list(Path('/none'), classes, files))
    inside = embedded = Embedded(np.array(embeddings), np.arange(len(labels)), 0.0)
    if gallery is not None:
        names = [f'q{i}' if number is None else f'g{number}' for i, number in enumerate(own or [None] * len(labels))]
        data = SearchSet('gallery', data.gallery, make_file_list(Path('/none'), classes, [*zip(names, labels)]))
        inside = Embedded(np.array(gallery), np.arange(len(gallery)), 0.0)
    found = _search(data, embedded, inside, torch.device('cpu'), Ranks(), image_bar(disable=True))
    return found, retrieval_metrics(found.scores, found.relevant > 0, RECALL_AT)['metrics']


PATTERNS = ((1, 1, 1, 1), (1, 1, 1, -1), (1, -1, 1, -1), (2, 0, 0, 0), (0, 0, 0, 0))


@st.composite
def tied(draw):
    """Draw embeddings whose similarities are exact in float32, with many equal ones, and classes of any sizes."""
    images = draw(st.integers(5, 14))
    signs, labels = (draw(st.lists(values, min_size=images, max_size=images))
                     for values in (st.sampled_from(PATTERNS), st.integers(0, 3)))
    return np.array(signs, np.float32), [0, 0, *labels[2:]], draw(st.sampled_from([1, 3, 40]))


@settings(max_examples=60, deadline=None)
@given(tied())
def test_metrics_are_those_of_a_loop_with_ties_and_classes_of_one_image(sample):
    embeddings, labels, rows = sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, 'SIMILARITIES', rows * len(labels))
        found, got = find(embeddings.copy(), labels)
    for i, numbers in enumerate(found.neighbours[:, :4].tolist()):
        assert numbers == _oracles.neighbours(embeddings[i], embeddings, i)[:4]
    assert (np.diff(found.similarities, axis=1) <= 0).all()
    expected = _oracles.all_among_others(embeddings, labels, RECALL_AT)
    assert got == pytest.approx(expected) and [*got] == ['recall@1', 'recall@2', 'recall@4', 'map', 'map@r']


@settings(max_examples=60, deadline=None)
@given(tied(), tied(), st.data())
def test_queries_in_a_gallery_are_those_of_a_loop_with_distractors_and_queries_that_lie_in_it(queries, inside, data):
    """The gallery has images of no class, and some queries are among its images."""
    (embeddings, labels, _), (gallery, gallery_labels, rows) = queries, inside
    gallery_labels = [0, 0, *(data.draw(st.sampled_from([-1, label])) for label in gallery_labels[2:])]
    places = [i for i, label in enumerate(gallery_labels) if label >= 0]
    own = [None, *(data.draw(st.sampled_from([None, *places])) for _ in labels[1:])]
    own = [number if number not in own[:i] else None for i, number in enumerate(own)]
    for i, number in enumerate(own):
        if number is not None:
            embeddings[i], labels[i] = gallery[number], gallery_labels[number]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, 'SIMILARITIES', rows * len(gallery))
        _, got = find(embeddings.copy(), labels, gallery.copy(), gallery_labels, own)
    assert got == pytest.approx(_oracles.retrieval(embeddings, labels, gallery, gallery_labels, own, RECALL_AT))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2 ** 32 - 1), st.booleans())
def test_metrics_are_those_of_pytorch_metric_learning(seed, split):
    """Of all images among the others, and of queries in a gallery with distractors and without some of their classes.
    """
    accuracy_calculator = pytest.importorskip('pytorch_metric_learning.utils.accuracy_calculator')
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN

    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(12, 8))
    labels, inside = np.append(rng.integers(0, 9, 30), 0), np.append(rng.integers(2, 12, 50), 0)
    # float64, in which no rounding swaps two images
    embeddings, gallery = (centers[numbers] + rng.normal(size=(len(numbers), 8)) for numbers in (labels, inside))
    calculator = accuracy_calculator.AccuracyCalculator(
        include=('precision_at_1', 'mean_average_precision', 'mean_average_precision_at_r'), k=None,
        device=torch.device('cpu'), knn_func=CustomKNN(CosineSimilarity()))
    theirs = calculator.get_accuracy(*map(torch.from_numpy, (
        (embeddings, labels, gallery, inside) if split else (embeddings, labels))))
    none = np.where(inside < 9, inside, -1)  # no query is of these classes: they are as good as none
    _, ours = find(embeddings, labels.tolist(), *((gallery, none.tolist()) if split else ()))
    for name, theirs_name in (('recall@1', 'precision_at_1'), ('map', 'mean_average_precision'),
                              ('map@r', 'mean_average_precision_at_r')):
        assert ours[name] == pytest.approx(100 * theirs[theirs_name], abs=1e-6)


def test_all_images_alike_are_not_all_found():
    """A model whose embeddings are all equal finds the first images of the list, not the query itself."""
    _, got = find(np.ones((20, 3)), np.arange(5).repeat(4).tolist())
    assert got['recall@1'] == pytest.approx(100 * 4 / 20) == got['recall@2']


def test_classes_of_one_image_alone_have_no_metrics():
    with pytest.raises(ValueError, match='gallery must have two images of one class that can be read'):
        find(np.eye(6), [*range(6)])
    scores = Scores(np.array([0, 2, 1]), np.array([0.0, 0.6, 1.0]), np.array([0.0, 0.5, 1.0]))
    got = retrieval_metrics(scores, np.array([False, True, True]), [1, 2])
    assert got['metrics'] == {'recall@1': 50, 'recall@2': 100, 'map': 80, 'map@r': 75}
    assert got['intervals']['recall@1'] == wilson(50, 2) and got['intervals']['map'] == student(np.array([60.0, 100.0]))
    assert retrieval_metrics(scores, np.array([False, False, True]), [1])['intervals']['map'] is None


def test_intervals_cover_what_many_queries_have():
    """Fresh queries of a fixed gallery, 100 at a time, beside all of them."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5, 4))
    gallery, labels = np.arange(60) % 5, rng.integers(0, 5, 40_000)
    found, _ = find(centers[labels] + rng.normal(size=(len(labels), 4)), labels.tolist(),
                    centers[gallery] + rng.normal(size=(60, 4)), gallery.tolist())
    truth = retrieval_metrics(found.scores, found.relevant > 0, [1])['metrics']
    covered = dict.fromkeys(truth, 0)
    for some in np.arange(len(labels)).reshape(-1, 100):
        scores = Scores(*(values[some] for values in found.scores))
        for name, (low, high) in retrieval_metrics(scores, np.ones(100, bool), [1])['intervals'].items():
            covered[name] += low <= truth[name] <= high
    assert 20 < truth['map@r'] < truth['recall@1'] < 80
    for count in covered.values():
        assert 368 <= count <= 392  # of 400; 380 are expected, with a standard deviation of 4.4


def test_memory_of_a_block_does_not_grow_with_the_number_of_images():
    assert block_rows(10) == 1024 and block_rows(60_502) * 60_502 <= 2 ** 23 and block_rows(2 ** 30) == 1
