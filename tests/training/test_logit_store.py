"""The store of teacher logits: rows in half precision, resuming, and what is rejected."""
import json
import os
import pickle

import numpy as np
import pytest
import torch

from timm_assemble.training import SampleFingerprint, StoreInfo, TeacherLogits, StoreWriter
from timm_assemble.training.store import shrink

from .. import _oracles as oracle

CLASSES = 7
SAMPLES = SampleFingerprint(10, 'a' * 64, 'b' * 64, CLASSES)


def logits_of(rows, classes=CLASSES, scale=4.0):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((rows, classes)) * scale)


def info_of(top_k=0, classes=CLASSES, count=10):
    samples = dict(SAMPLES.as_dict(), count=count)
    return StoreInfo({'name': 't'}, {'input_size': [3, 8, 8]}, samples, classes, top_k, chunk_size=4)


def write(folder, info, logits, chunks=None):
    writer = StoreWriter(folder, info)
    writer.prepare()
    for chunk in writer.missing() if chunks is None else chunks:
        rows = info.chunk(chunk)
        part = logits[rows.start:rows.stop]
        writer.write(chunk, info.pack(chunk, part, torch.zeros(len(part)), torch.arange(len(part))))
    return writer


@pytest.fixture
def store(tmp_path):
    write(tmp_path / 'store', info_of(), logits_of(10)).finish()
    return tmp_path / 'store'


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_rows_are_those_written(store, temperature):
    rows, logits = TeacherLogits(store), logits_of(10)
    assert (len(rows), rows.num_classes) == (10, CLASSES)
    for i in range(10):
        assert rows.logits(i).max() == 0
        torch.testing.assert_close(rows.logits(i).double(), logits[i] - logits[i].max(), rtol=2 ** -11, atol=1e-7)
        torch.testing.assert_close(
            rows.probabilities(i, temperature).double(), (logits[i] / temperature).softmax(0), rtol=8e-3, atol=1e-7)


@pytest.mark.parametrize('top_k, classes, index_type', [
    (1, CLASSES, np.uint16), (3, CLASSES, np.uint16), (CLASSES - 1, CLASSES, np.uint16), (3, 70_000, np.uint32)])
def test_top_k_store_spreads_the_rest_evenly(tmp_path, top_k, classes, index_type):
    logits = logits_of(5, classes)
    write(tmp_path / 's', info_of(top_k, classes, 5), logits).finish()
    assert sorted(p.name for p in (tmp_path / 's').iterdir()) == [
        'checksum.npy', 'indices.npy', 'rest.npy', 'store.json', 'values.npy']
    assert np.load(tmp_path / 's' / 'indices.npy').dtype == index_type
    rows = TeacherLogits(tmp_path / 's')
    for i in range(5):
        np.testing.assert_allclose(
            rows.probabilities(i).double(), oracle.spread_evenly(logits[i].numpy(), top_k), rtol=2e-2, atol=1e-4)
        assert rows.logits(i).argmax() == logits[i].argmax()


def test_large_logits_keep_their_probabilities(tmp_path):
    """float16 near 1000 has steps of 0.5; with the maximum subtracted, probabilities are exact to 0.002."""
    logits = 1000 + logits_of(10, scale=1.0)
    write(tmp_path / 's', info_of(), logits).finish()
    torch.testing.assert_close(
        TeacherLogits(tmp_path / 's').probabilities(3).double(), logits[3].softmax(0), rtol=2e-3, atol=0)
    assert np.isfinite(shrink(torch.tensor([[0.0, -1e9, 5.0]]))['logits']).all()


def test_resumed_store_has_the_same_bytes(tmp_path):
    """Chunks in any order, from several writers."""
    logits = logits_of(10)
    write(tmp_path / 'whole', info_of(), logits).finish()
    write(tmp_path / 'parts', info_of(), logits, [2])
    with pytest.raises(ValueError, match=r'path must be a complete store, got .*parts with 1 of 3 chunks'):
        TeacherLogits(tmp_path / 'parts')
    writer = StoreWriter(tmp_path / 'parts', info_of())
    with pytest.raises(ValueError, match=r'output must have all chunks .* without 2 of 3'):
        writer.finish()
    assert writer.missing() == [0, 1]
    write(tmp_path / 'parts', info_of(), logits, [1])
    write(tmp_path / 'parts', info_of(), logits).finish()
    for name in ('logits.npy', 'store.json'):
        assert (tmp_path / 'parts' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


@pytest.mark.parametrize('other, entry', [
    (dict(teacher={'name': 'u'}), 'teacher: `name` t instead of u'), (dict(preprocessing={}), 'preprocessing: `'),
    (dict(num_classes=8), '`num_classes` '), (dict(top_k=2), '`top_k` '), (dict(chunk_size=5), '`chunk_size` ')])
def test_store_of_another_run_is_rejected(store, other, entry):
    info = StoreInfo(**{**info_of().__dict__, **other})
    with pytest.raises(ValueError, match=f'output must be a new folder or .* with {entry}'):
        StoreWriter(store, info).prepare()


def test_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / 'thesis.txt').write_text('precious')
    with pytest.raises(ValueError, match=r'output must be a new or empty folder or a store, .* with other files'):
        StoreWriter(tmp_path, info_of()).prepare()
    with pytest.raises(ValueError, match='output must be a folder, got the file'):
        StoreWriter(tmp_path / 'thesis.txt', info_of()).prepare()
    assert (tmp_path / 'thesis.txt').read_text() == 'precious'


def test_check_rejects_other_samples_and_classes(store):
    rows, other = TeacherLogits(store), SampleFingerprint(10, 'c', 'b' * 64, CLASSES)
    rows.check(SAMPLES, CLASSES)
    for samples, classes, message in (
            (SAMPLES, 8, 'num_classes must be 7, .* got 8'),
            (other, CLASSES, 'samples must be those of .*store, got the same images in another order or with other')):
        with pytest.raises(ValueError, match=message):
            rows.check(samples, classes)


DAMAGES = {
    'truncated': (lambda s: os.truncate(s / 'logits.npy', 200), 'logits.npy must be a complete .npy file'),
    'empty': (lambda s: (s / 'logits.npy').write_bytes(b''), 'logits.npy must be a complete .npy file'),
    'no array': (lambda s: (s / 'logits.npy').unlink(), 'logits.npy is missing'),
    'other shape': (lambda s: np.save(s / 'logits.npy', np.zeros((9, 7), np.float16)), r'must have shape \(10, 7\)'),
    'no store.json': (lambda s: (s / 'store.json').unlink(), 'path must be a store .* which has no store.json'),
    'no JSON': (lambda s: (s / 'store.json').write_text('{'), 'store.json must be JSON'),
    'other JSON': (lambda s: (s / 'store.json').write_text(json.dumps({'a': 1})), "must have the format .*, got None$"),
    'no list': (lambda s: (s / 'store.json').write_text('[]'), 'store.json must have the format'),
    'entries': (lambda s: (s / 'store.json').write_text(json.dumps({'format': StoreInfo.FORMAT})),
                'store.json must have teacher, .* and complete$')}


def set_values(name, index, value):
    def change(store):
        array = np.load(store / f'{name}.npy', mmap_mode='r+')
        array[index] = value
        array.flush()
    return change


@pytest.mark.parametrize('top_k, damage, message', [
    (0, set_values('logits', (6, 2), np.nan), 's must have finite values in every row, got others in row 6'),
    (0, set_values('logits', 3, 0), 's must have values other than zeros in every row, got others in row 3'),
    (2, set_values('values', (4, 1), np.inf), 's must have finite values in every row, got others in row 4'),
    (2, set_values('indices', (9, 0), 999), 's must have different indices below 7 in every row, got others in row 9'),
    (2, set_values('indices', 5, 0), 's must have different indices below 7 in every row, got others in row 5')])
def test_values_that_were_damaged_are_found_at_opening(tmp_path, top_k, damage, message):
    write(tmp_path / 's', info_of(top_k), logits_of(10)).finish()
    TeacherLogits(tmp_path / 's')
    damage(tmp_path / 's')
    with pytest.raises(ValueError, match=message):
        TeacherLogits(tmp_path / 's')


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_store_is_reported_in_one_line(store, damage):
    do_damage, message = DAMAGES[damage]
    do_damage(store)
    with pytest.raises(ValueError, match=message) as error:
        TeacherLogits(store)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_plain_array_is_read_and_its_shape_checked(tmp_path, dtype):
    logits = logits_of(10).numpy().astype(dtype)
    np.save(tmp_path / 'plain.npy', logits)
    rows = TeacherLogits(tmp_path / 'plain.npy')
    assert torch.equal(rows.logits(3), torch.from_numpy(logits[3].astype(np.float32)))
    rows.check(SampleFingerprint(10, 'c', 'c', 2), CLASSES)
    with pytest.raises(ValueError, match='9 samples instead of 10'):
        rows.check(SampleFingerprint(9, 'c', 'c', 2), CLASSES)
    with pytest.raises(ValueError, match=r'num_classes must be 7, .* got 3'):
        rows.check(SampleFingerprint(10, 'c', 'c', 2), 3)


def test_files_without_logits_are_rejected(tmp_path):
    np.save(tmp_path / 'labels.npy', np.arange(10))
    np.savez(tmp_path / 'many.npz', np.zeros((10, 7)))
    for path, message in (
            (tmp_path / 'labels.npy', r'must hold floats of shape \(N, C\), got int64 of shape \(10,\)'),
            (tmp_path / 'many.npz', 'must hold one array'), (tmp_path / 'missing', "missing', which does not exist"),
            ('', "got '', which is empty")):
        with pytest.raises(ValueError, match=message):
            TeacherLogits(path)


def test_pickle_has_no_rows(store):
    """A worker process maps them itself."""
    rows = TeacherLogits(store)
    pickled = pickle.dumps(rows)
    assert len(pickled) < 2000 and torch.equal(pickle.loads(pickled).probabilities(4), rows.probabilities(4))
