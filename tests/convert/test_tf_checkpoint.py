"""Reading of checkpoints: paths and types, and the command on real TensorFlow 1 checkpoints, good and broken."""
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch

from timm_assemble.__main__ import main
from timm_assemble.convert import convert, find_checkpoint, state_dict_from_tf
from timm_assemble.convert.tf_names import tf_shapes
from timm_assemble.errors import UserError

from .._official import make_variable, make_variables
from .._tensorflow import (
    fake_checkpoint, import_tensorflow, with_slots, write_checkpoint, write_checkpoint_by_saver,
)

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec('tensorflow') is None, reason='TensorFlow is not installed')


def test_a_checkpoint_is_found_by_folder_prefix_and_file(tmp_path):
    folder = tmp_path / 'training'
    folder.mkdir()
    for step in (1, 20):
        (folder / f'model.ckpt-{step}.index').touch()
        (folder / f'model.ckpt-{step}.data-00000-of-00001').touch()
    with pytest.raises(ValueError, match=r"^checkpoint must be .* 'checkpoint', .* with model.ckpt-1, model.ckpt-20$"):
        find_checkpoint(folder)
    windows = r'C:\\runs\\model.ckpt-20'
    for written in ('model.ckpt-20', '/moved/since/model.ckpt-20', windows, folder / 'model.ckpt-20'):
        (folder / 'checkpoint').write_text(
            f'model_checkpoint_path: "{written}"\nall_model_checkpoint_paths: "model.ckpt-1"\n')
        assert find_checkpoint(folder) == folder / 'model.ckpt-20'
    for name in ('model.ckpt-1', 'model.ckpt-1.index', 'model.ckpt-1.meta', 'model.ckpt-1.data-00000-of-00001'):
        assert find_checkpoint(folder / name) == folder / 'model.ckpt-1'
    (folder / 'checkpoint').write_text('nothing')
    with pytest.raises(ValueError, match=r'^checkpoint must have a line model_checkpoint_path'):
        find_checkpoint(folder)
    with pytest.raises(ValueError, match=r'model\.ckpt-7\.index does not exist$'):
        find_checkpoint(folder / 'model.ckpt-7')


def test_half_precision_is_widened_and_reported_and_integers_are_rejected():
    variables = make_variables('tiny_assemble50')
    variables['resnet_model/dense/bias'] = variables['resnet_model/dense/bias'].astype(np.float16)
    done = convert(fake_checkpoint(variables))
    assert done.model.fc.bias.dtype == torch.float32
    assert done.report['variables'][-1]['dtype'] == 'float16'
    variables['resnet_model/dense/bias'] = np.zeros(11, np.int32)
    with pytest.raises(ValueError, match='dense/bias must have floating point values, got int32'):
        convert(fake_checkpoint(variables))


def test_moving_averages_are_taken_where_asked_for():
    """TensorFlow's, of trainable variables; statistics may have none."""
    weights = make_variables('tiny_assemble50')
    averages = {f'{name}/ExponentialMovingAverage': 2 * v for name, v in weights.items() if '/moving_' not in name}
    taken = convert(fake_checkpoint({**weights, **averages}, moving_averages=True))
    assert torch.equal(taken.model.fc.bias, 2 * convert(fake_checkpoint({**weights, **averages})).model.fc.bias)
    assert taken.report['skipped'] == {'values beside their moving averages': len(averages)}
    statistics = {name: v for name, v in weights.items() if '/moving_' in name}
    assert taken.report['variables'][-1]['stored'] == 'resnet_model/dense/bias/ExponentialMovingAverage'
    alone = convert(fake_checkpoint({**statistics, **averages}, moving_averages=True))
    assert torch.equal(alone.model.fc.bias, taken.model.fc.bias)
    with pytest.raises(UserError, match=r'^moving_averages must be given, because 306 variables have nothing else'):
        fake_checkpoint({**statistics, **averages})
    with pytest.raises(UserError, match=r'^moving_averages must not be given: the checkpoint has none'):
        fake_checkpoint(weights, moving_averages=True)


@pytest.mark.parametrize('name', ['resnet_model/a\nb', 'resnet_model/\x1b[31mred'])
def test_control_characters_in_names_do_not_reach_the_terminal(name):
    with pytest.raises(UserError, match=r'^checkpoint must be without control characters') as caught:
        fake_checkpoint({**make_variables('tiny_r50d_sk'), name: np.ones(3, np.float32)})
    assert str(caught.value).isprintable()


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """Prefix of the formula's tiny_assemble50 as the official training saves it, by its saver."""
    return write_checkpoint_by_saver(tmp_path_factory.mktemp('tiny'), with_slots(make_variables('tiny_assemble50')))


@pytest.fixture
def command(monkeypatch, capfd):
    """``convert`` in this process; returns status, output and errors, TensorFlow's too."""
    import_tensorflow()
    monkeypatch.setattr('signal.signal', lambda *args: None)

    def run(*args):
        capfd.readouterr()
        status = main(['convert', *map(str, args)])
        return status, *capfd.readouterr()
    return run


@needs_tensorflow
def test_the_command_in_its_own_process_prints_nothing_of_tensorflows(tiny, tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'timm_assemble', 'convert', os.path.dirname(tiny), str(tmp_path / 'made'),
         '--keep-classes'], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stderr == ''
    assert [line.split(':')[0] for line in done.stdout.splitlines()] == [
        'inferred', 'model', 'not in the checkpoint', 'variables used', 'written']


@needs_tensorflow
@pytest.mark.parametrize('name, args', [
    ('assemble_resnet50', {}),
    ('assemble_resnet152', {}),
    ('assemble_resnet50_d_sk', {}),
    ('assemble_resnet50_d_se', {}),
    ('assemble_resnet50', dict(embedding_size=24)),
])
def test_every_entry_passes_through_a_real_checkpoint_bit_by_bit(name, args, command, tmp_path):
    """At width 8, of 1001 classes: the folder's model equals the one filled directly, without "background"."""
    args = dict(width=8, **args)
    shapes = tf_shapes(timm.create_model(name, num_classes=1001, **args))
    variables = {variable: make_variable(variable, shape, False) for variable, shape in shapes.items()}
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


DATA = 'x.data-00000-of-00001'


def cut(file, size):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def flip(folder):
    """One bit of a weight, which TensorFlow's checksum detects."""
    data = bytearray((folder / DATA).read_bytes())
    data[data.find(make_variables('tiny_assemble50')['resnet_model/dense/bias'].tobytes())] ^= 1
    (folder / DATA).write_bytes(data)


def write_objects(folder):
    tf = import_tensorflow()
    tf.train.Checkpoint(kernel=tf.Variable(np.ones((3, 3), np.float32))).write(str(folder / 'x'))


@needs_tensorflow
@pytest.mark.parametrize('damage, message', [
    (cut(DATA, 2_000_000), 'is cut off: 2000000 bytes of 5'),
    (cut(DATA, -1), 'is cut off'),
    (cut('x.index', 9000), 'x.index cannot be read'),
    (lambda folder: (folder / 'x.index').write_bytes(bytes(range(256)) * 100), 'x.index cannot be read'),
    (flip, 'resnet_model/dense/bias cannot be read from x'),
    (write_objects, 'CHECKPOINT must be a TensorFlow 1 checkpoint, got the TensorFlow 2 object checkpoint'),
])
def test_a_broken_checkpoint_is_one_line_and_nothing_is_written(damage, message, tiny, command, tmp_path):
    (tmp_path / 'training').mkdir()
    for end in ('.index', '.data-00000-of-00001'):
        shutil.copy(tiny + end, tmp_path / 'training' / f'x{end}')
    damage(tmp_path / 'training')
    status, out, err = command(tmp_path / 'training' / 'x', tmp_path / 'made')
    assert status == 2 and message in err and err.count('\n') == 1 and not out, err
    assert [f.name for f in tmp_path.iterdir()] == ['training']
