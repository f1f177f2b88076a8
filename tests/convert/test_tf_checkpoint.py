"""Conversion of real TensorFlow 1 checkpoints by the command, good ones and broken ones. Skipped without TensorFlow."""
import importlib.util
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import timm
import torch

from timm_assemble.__main__ import main
from timm_assemble.convert import state_dict_from_tf, tf_names

from .._official import TOLERANCE, departure, make_variable, make_variables, official_input, sizes
from .._tensorflow import import_tensorflow, with_slots, write_checkpoint, write_checkpoint_by_saver

pytestmark = pytest.mark.skipif(importlib.util.find_spec('tensorflow') is None, reason='TensorFlow is not installed')
TINY = ('tiny_assemble50', 'tiny_assemble152', 'tiny_r50d_sk')


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """The formula's tiny_assemble50 as the official training leaves it, by its saver; gives the prefix."""
    return write_checkpoint_by_saver(tmp_path_factory.mktemp('tiny'), with_slots(make_variables('tiny_assemble50')))


@pytest.fixture
def command(monkeypatch, capfd):
    """``convert`` in this process; gives status and what was printed, by TensorFlow too."""
    import_tensorflow()
    monkeypatch.setattr('signal.signal', lambda *args: None)

    def run(*args):
        capfd.readouterr()
        status = main(['convert', *map(str, args)])
        return status, *capfd.readouterr()
    return run


def test_the_command_in_a_process_of_its_own(tiny, tmp_path):
    """By folder; nothing but what is meant is printed, TensorFlow's own words included."""
    folder = os.path.dirname(tiny)
    done = subprocess.run(
        [sys.executable, '-m', 'timm_assemble', 'convert', folder, str(tmp_path / 'made'), '--keep-classes'],
        capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stderr == ''
    lines = done.stdout.splitlines()
    assert [line.split(':')[0] for line in lines] == [
        'seen', 'model', 'not in the checkpoint, by the model or as given', 'variables used', 'written']
    assert "create_model('assemble_resnet50', width=8, num_classes=11)" in lines[1]
    assert lines[3] == 'variables used: 496 of 496; set aside: 306 Momentum, 1 global_step'


@pytest.mark.parametrize('network', TINY)
def test_official_logits_through_a_checkpoint(network, command, tmp_path):
    prefix = write_checkpoint(tmp_path, with_slots(make_variables(network)))
    status, _, err = command(prefix, tmp_path / 'made', '--keep-classes')
    assert status == 0 and not err
    model = timm.create_model(f'local-dir:{tmp_path / "made"}', pretrained=True).eval()
    for size in sizes(network):
        with torch.inference_mode():
            assert departure(network, model(official_input(*size)), *size) < TOLERANCE


@pytest.mark.parametrize('name, args', [
    ('assemble_resnet50', {}),
    ('assemble_resnet152', {}),
    ('assemble_resnet50_d_sk', {}),
    ('assemble_resnet50_d_se', {}),
    ('assemble_resnet50', dict(embedding_size=24)),
])
def test_every_entry_through_a_checkpoint(name, args, command, tmp_path):
    """At width 8, of 1001 classes: the folder's model is the one filled directly, less "background", bit by bit."""
    args = dict(width=8, **args)
    model = timm.create_model(name, num_classes=1001, **args)
    state = model.state_dict()
    variables = {}
    for entry, variable in tf_names(model).items():
        shape = tuple(state[entry].shape)
        shape = (*shape[2:], shape[1], shape[0]) if len(shape) == 4 else shape[::-1]
        variables[variable] = make_variable(variable, shape, False)
    prefix = write_checkpoint(tmp_path, with_slots(variables))
    status, out, err = command(f'{prefix}.index', tmp_path / 'made')
    assert status == 0 and not err and 'dropped: class 0 ("background")' in out
    report = json.loads((tmp_path / 'made' / 'conversion.json').read_text())
    assert (report['model']['name'], report['model']['model_args']) == (name, args)
    made = timm.create_model(f'local-dir:{tmp_path / "made"}', pretrained=True)
    expected = state_dict_from_tf(variables, timm.create_model(name, **args))
    assert made.num_classes == 1000 and made.state_dict().keys() == expected.keys()
    for entry, value in made.state_dict().items():
        assert torch.equal(value, expected[entry]), entry


def changed(change):
    def write(folder, tiny):
        variables = make_variables('tiny_assemble50')
        change(variables)
        return write_checkpoint(folder, with_slots(variables))
    return write


def cut(leaf, size):
    """A copy of the good checkpoint, one of its files cut off."""
    def write(folder, tiny):
        for end in ('.index', '.data-00000-of-00001'):
            with open(tiny + end, 'rb') as f:
                (folder / f'x{end}').write_bytes(f.read()[:size if leaf in end else None])
        return folder / 'x'
    return write


def lost_data(folder, tiny):
    prefix = cut('nothing', 0)(folder, tiny)
    (folder / 'x.data-00000-of-00001').unlink()
    return prefix


def noise(folder, tiny):
    prefix = cut('nothing', 0)(folder, tiny)
    (folder / 'x.index').write_bytes(bytes(range(256)) * 100)
    return prefix


def flipped(folder, tiny):
    """One bit of a weight: TensorFlow's checksum sees it."""
    prefix = cut('nothing', 0)(folder, tiny)
    data = bytearray((folder / 'x.data-00000-of-00001').read_bytes())
    place = data.find(make_variables('tiny_assemble50')['resnet_model/dense/bias'].tobytes())
    data[place] ^= 1
    (folder / 'x.data-00000-of-00001').write_bytes(data)
    return prefix


def objects(folder, tiny):
    tf = import_tensorflow()
    return tf.train.Checkpoint(kernel=tf.Variable(np.ones((3, 3), np.float32))).save(str(folder / 'ckpt'))


def not_a_network(folder, tiny):
    return write_checkpoint(folder, {'layer1/kernel': np.ones((3, 3), np.float32)})


KERNEL = 'resnet_model/stage4/conv2d_1/kernel'


@pytest.mark.parametrize('make, message', [
    (changed(lambda v: v.update({'resnet_model/stage4/conv2d_99/kernel': v.pop(KERNEL)})), f'missing: {KERNEL} '),
    (changed(lambda v: v.pop(KERNEL)), f'missing: {KERNEL} '),
    (changed(lambda v: v.update({'resnet_model/extra/kernel': v[KERNEL]})), 'not used: resnet_model/extra/kernel'),
    (changed(lambda v: v.update({KERNEL: v[KERNEL][..., :-1]})), f'shape: {KERNEL} is (63, 128, 1, 1)'),
    (changed(lambda v: v[KERNEL].__setitem__((0, 0, 1, 1), np.nan)), f'{KERNEL} has 1 of 8192 values NaN'),
    (cut('data', 2_000_000), 'is cut off: 2000000 bytes of the 5'),
    (cut('data', -1), 'is cut off'),
    (cut('index', 9000), 'x.index cannot be read'),
    (lost_data, 'x has 0 data files of 1'),
    (noise, 'x.index cannot be read'),
    (flipped, 'resnet_model/dense/bias cannot be read from x'),
    (objects, 'is a TensorFlow 2 object checkpoint'),
    (not_a_network, "names that start with 'resnet_model/', got ['layer1/kernel']"),
    (lambda folder, tiny: folder, "is a folder without a file named 'checkpoint'"),
])
def test_broken_checkpoints(make, message, tiny, command, tmp_path):
    (tmp_path / 'checkpoint_folder').mkdir()
    checkpoint = make(tmp_path / 'checkpoint_folder', tiny)
    status, out, err = command(checkpoint, tmp_path / 'made')
    assert status == 2 and message in err and err.count('\n') == 1 and not out, err
    assert [f.name for f in tmp_path.iterdir()] == ['checkpoint_folder']


def test_force_and_verify(tiny, command, tmp_path):
    from .test_tf_names import picture_folder

    assert command(tiny, tmp_path / 'made')[0] == 0
    (tmp_path / 'made' / 'left').touch()
    assert command(tiny, tmp_path / 'made')[0] == 2 and (tmp_path / 'made' / 'left').exists()
    pictures = picture_folder(tmp_path / 'pictures', 'abc', 1)
    status, _, err = command(tiny, tmp_path / 'made', '--force', '--verify', pictures)
    assert status == 2 and '--verify must have a folder for each of the 11 classes, got 3' in err
    assert (tmp_path / 'made' / 'left').exists()
    picture_folder(pictures, 'defghijk', 1)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # timm leaves files open
        status, out, _ = command(
            tiny, tmp_path / 'made', '--force', '--verify', pictures, '--model-kwargs', 'aa_size=0')
    assert status == 0 and 'on 11 pictures at 256, crop 0.875\n' in out and 'aa_size=0' in out
    assert not (tmp_path / 'made' / 'left').exists()
    assert '| 11 pictures at 256, crop 0.875 |' in (tmp_path / 'made' / 'README.md').read_text()
