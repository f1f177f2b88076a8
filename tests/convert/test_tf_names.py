"""Conversion of checkpoints, without TensorFlow: the reader is a stand-in, files are made by hand."""
import hashlib
import json
import re
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from docs.variants import PUBLISHED
from timm_assemble.__main__ import main
from timm_assemble.convert import conversion, convert, find_checkpoint, write
from timm_assemble.convert.tf_checkpoint import CheckpointVariables
from timm_assemble.hub.model_card import Result
from timm_assemble.utils.accuracy import PUBLISHED_TOP1, measure_accuracy, read_class_map

from .._official import TOLERANCE, departure, make_variables, official_input, sizes
from .._tensorflow import FakeReader, with_slots

FILES = {'README.md', 'config.json', 'conversion.json', 'model.safetensors'}


@pytest.fixture
def checkpoint(tmp_path):
    """The formula's tiny_assemble50 with slots, behind the stand-in."""
    file = tmp_path / 'model.ckpt-12345.index'
    file.write_bytes(b'not read')
    reader = FakeReader(with_slots(make_variables('tiny_assemble50')))
    return CheckpointVariables(reader, [file], '2'), reader


def test_conversion_agrees_with_the_official_logits(checkpoint, tmp_path):
    variables, reader = checkpoint
    write(convert(variables, keep_classes=True), tmp_path / 'made')
    assert {f.name for f in (tmp_path / 'made').iterdir()} == FILES
    model = timm.create_model(f'local-dir:{tmp_path / "made"}', pretrained=True).eval()
    for size in sizes('tiny_assemble50'):
        with torch.inference_mode():
            assert departure('tiny_assemble50', model(official_input(*size)), *size) < TOLERANCE
    assert not any('Momentum' in name or 'step' in name for name in reader.asked)
    assert sorted(reader.asked) == sorted(make_variables('tiny_assemble50'))  # each once


def test_report(checkpoint, tmp_path):
    variables, reader = checkpoint
    done = convert(variables, model_args=dict(num_classes=10))
    write(done, tmp_path / 'made')
    report = json.loads((tmp_path / 'made' / 'conversion.json').read_text())
    assert report['source'] == [dict(
        file='model.ckpt-12345.index', bytes=8, sha256=hashlib.sha256(b'not read').hexdigest())]
    assert report['set_aside'] == {'Momentum': 306, 'global_step': 1}
    assert 'background' in report['dropped'] and report['versions']['tensorflow'] == '2'
    assert report['model']['name'] == 'assemble_resnet50'
    assert report['model']['not_in_the_checkpoint'] == dict(aa_size=3, global_pool='avg', last_stride=2)
    entries = load_file(tmp_path / 'made' / 'model.safetensors')
    assert {v['variable'] for v in report['variables']} == set(make_variables('tiny_assemble50'))
    for v in report['variables']:
        array, tensor = reader.variables[v['variable']], entries.pop(v['entry'])
        assert v['shape'] == [*array.shape] and v['entry_shape'] == [*tensor.shape] and v['dtype'] == 'float32'
        assert v['sha256'] == hashlib.sha256(array.tobytes()).hexdigest()
        assert v['entry_sha256'] == hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    assert entries and all(name.endswith('num_batches_tracked') for name in entries)
    assert '496 of 496; set aside: 306 Momentum, 1 global_step' in done.summary()


def test_config_has_input_test_size_and_crop(tmp_path, checkpoint):
    write(convert(checkpoint[0], model_args=dict(global_pool='gem', aa_size=5)), tmp_path / 'made')
    model = timm.create_model(f'local-dir:{tmp_path / "made"}', pretrained=True)
    assert model.head.global_pool.pool_type == 'gem' and model.stage4[0].aa.filt_size == 5
    config = timm.data.resolve_data_config({}, model=model, use_test_size=True)
    assert config['input_size'] == (3, 256, 256) and config['crop_pct'] == 0.875
    assert [*config['std']] == [1 / 255] * 3 and [*config['mean']] == [123.68 / 255, 116.78 / 255, 103.94 / 255]
    assert timm.data.resolve_data_config({}, model=model)['input_size'] == (3, 224, 224)


def test_card(tmp_path, checkpoint):
    write(convert(checkpoint[0]), tmp_path / 'made', results=[Result('top-1', 12.34, '8 pictures', 'a command')])
    card = (tmp_path / 'made' / 'README.md').read_text()
    assert card.startswith('---\n') and 'library_name: timm' in card and '- timm_assemble' in card
    for told in ('assemble_resnet50', 'width', '12.34', '8 pictures'):
        assert told in card


@pytest.mark.parametrize('channels', [1, 4])
def test_other_channels_than_three(tmp_path, monkeypatch, channels):
    """Configuration and card are of the model's channels, and the card's usage runs as it stands."""
    variables = make_variables('tiny_r50d_sk')
    stem = variables['resnet_model/conv2d/kernel']
    variables['resnet_model/conv2d/kernel'] = np.concatenate([stem, stem], axis=2)[:, :, :channels]
    write(convert(CheckpointVariables(FakeReader(variables), [], '2')), tmp_path / 'made')
    config = json.loads((tmp_path / 'made' / 'config.json').read_text())['pretrained_cfg']
    assert config['input_size'] == [channels, 224, 224] and len(config['mean']) == channels
    card = (tmp_path / 'made' / 'README.md').read_text()
    assert f'**Input**: {channels} x 224 x 224 in training' in card
    code, = re.findall(r'^```python\n(.*?)^```', card.split('## Usage\n')[1], flags=re.S | re.M)
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def test_half_precision_is_widened_and_said(tmp_path, checkpoint):
    variables, reader = checkpoint
    reader.variables['resnet_model/dense/bias'] = reader.variables['resnet_model/dense/bias'].astype(np.float16)
    done = convert(variables)
    assert done.model.head.fc.bias.dtype == torch.float32
    assert done.report['variables'][-1]['dtype'] == 'float16'
    reader.variables['resnet_model/dense/bias'] = np.zeros(11, np.int32)
    with pytest.raises(ValueError, match='dense/bias must have floating point values, got int32'):
        convert(variables)


def rename(v):
    v['resnet_model/stage4/conv2d_99/kernel'] = v.pop('resnet_model/stage4/conv2d_1/kernel')


@pytest.mark.parametrize('damage, message', [
    (rename, r'missing: resnet_model/stage4/conv2d_1/kernel \(.*; not used: resnet_model/stage4/conv2d_99/kernel'),
    (lambda v: v.pop('resnet_model/dense/bias'), 'missing: resnet_model/dense/bias'),
    (lambda v: v.pop('resnet_model/stage0/conv2d/kernel'), 'stage0/conv2d/kernel must be .* got no such variable'),
    (lambda v: v.update({'resnet_model/extra/kernel': np.ones(3, np.float32)}), 'not used: resnet_model/extra/kernel'),
    (lambda v: v.update({'extra': np.ones(3, np.float32)}), 'not used: extra'),
    (lambda v: v.update({'resnet_model/dense/bias': np.ones(7, np.float32)}), r'dense/bias is \(7,\) .*bias \(11'),
    (lambda v: v['resnet_model/dense/kernel'].__setitem__((3, 4), np.nan), 'dense/kernel has 1 of 2816 values NaN'),
    (lambda v: v['resnet_model/stage2/big2/batch_normalization/gamma'].fill(np.inf), 'has 64 of 64 values NaN or inf'),
    (lambda v: v.clear(), "names that start with 'resnet_model/'"),
    (lambda v: [v.pop(n) for n in [*v] if '/beta' in n], 'missing: .*; and 92 more$'),
])
def test_damaged_variables_are_one_line(damage, message, tmp_path):
    variables = make_variables('tiny_assemble50')
    damage(variables)
    with pytest.raises(ValueError, match=message) as error:
        convert(CheckpointVariables(FakeReader(with_slots(variables)), [tmp_path / 'x.index'], '2'))
    assert '\n' not in str(error.value)


def test_nothing_is_written_where_writing_fails(checkpoint, tmp_path, monkeypatch):
    done = convert(checkpoint[0])
    (tmp_path / 'out').mkdir()
    for error in (KeyboardInterrupt, OSError, SystemExit):
        def fail(*args, error=error):
            raise error
        monkeypatch.setattr(conversion, '_card', fail)
        with pytest.raises(error):
            write(done, tmp_path / 'out' / 'deep' / 'made')
        assert [f.name for f in (tmp_path / 'out').rglob('*')] == ['deep']


def test_find_checkpoint(tmp_path):
    folder = tmp_path / 'training'
    folder.mkdir()
    for step in (1, 20):
        (folder / f'model.ckpt-{step}.index').touch()
        (folder / f'model.ckpt-{step}.data-00000-of-00001').touch()
    with pytest.raises(ValueError, match=r"without a file named 'checkpoint'; give .*: model.ckpt-1, model.ckpt-20$"):
        find_checkpoint(folder)
    for written in ('model.ckpt-20', '/moved/since/model.ckpt-20', folder / 'model.ckpt-20'):
        (folder / 'checkpoint').write_text(
            f'model_checkpoint_path: "{written}"\nall_model_checkpoint_paths: "model.ckpt-1"\n')
        assert find_checkpoint(folder) == folder / 'model.ckpt-20'
    for name in ('model.ckpt-1', 'model.ckpt-1.index', 'model.ckpt-1.data-00000-of-00001'):
        assert find_checkpoint(folder / name) == folder / 'model.ckpt-1'
    (folder / 'checkpoint').write_text('nothing')
    with pytest.raises(ValueError, match='must have a line model_checkpoint_path'):
        find_checkpoint(folder)
    with pytest.raises(ValueError, match=r'there is no .*model\.ckpt-7\.index'):
        find_checkpoint(folder / 'model.ckpt-7')


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``convert`` in this process, behind which TensorFlow cannot be imported; gives status and what was printed."""
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    monkeypatch.setattr('signal.signal', lambda *args: None)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        status = main(['convert', *map(str, args)])
        return status, *capsys.readouterr()
    return run


def test_bad_use(command, tmp_path):
    (tmp_path / 'empty').mkdir()
    for args, message in [
            (('empty', 'out'), "is a folder without a file named 'checkpoint'"),
            (('nothing', 'out'), 'there is no nothing.index'),
            (('x.index', 'full'), 'OUTPUT must be a new or empty folder, or be given --force'),
            (('x', 'full', '--force'), '--force replaces folders of models alone'),
            (('x', 'x.index'), 'OUTPUT must be a folder, and x.index is a file'),
            (('x', '.', '--force'), 'OUTPUT must not be a folder that CHECKPOINT lies in, got .'),
            (('x', 'out'), 'x has 0 data files of 1'),
    ]:
        (tmp_path / 'full').mkdir(exist_ok=True)
        (tmp_path / 'full' / 'notes').touch()
        for name in ('x.index', 'config.json', 'model.safetensors'):
            (tmp_path / name).touch()
        status, out, err = command(*args)
        assert status == 2 and message in err and err.count('\n') == 1 and not out, (args, err)
        assert not (tmp_path / 'out').exists()


def test_without_tensorflow_one_sentence_says_what_to_install(command, tmp_path):
    (tmp_path / 'x.index').touch()
    (tmp_path / 'x.data-00000-of-00001').touch()
    status, out, err = command('x', 'out')
    assert status == 2 and "pip install 'timm-assemble[tensorflow]'" in err and err.count('\n') == 1 and not out
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('pair', ['aa_size', '=3', ''])
def test_model_kwargs_are_pairs(pair, command, capsys):
    with pytest.raises(SystemExit) as e:
        command('x', 'out', '--model-kwargs', pair)
    err = capsys.readouterr().err
    assert e.value.code == 2 and f'must be KEY=VALUE, got {pair!r}' in err and err.count('\n') == 1


def picture_folder(root, names, each=2):
    rng = np.random.RandomState(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.randint(0, 256, (300, 320, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f'{i}.png')
    return root


# timm leaves files open
@pytest.mark.filterwarnings('ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning')
def test_accuracy_counts_what_the_model_says(tmp_path):
    """A model that always answers class 2, then 1, 0, 3, 4, 5: one folder in six is right, five are among the first."""
    root = picture_folder(tmp_path / 'pictures', 'abcdef')
    model = timm.create_model('test_assemble_resnet', num_classes=6)
    torch.nn.init.zeros_(model.head.fc.weight)
    model.head.fc.bias.data = torch.tensor([3., 4, 5, 2, 1, 0])
    class_map = read_class_map(root, 6)
    assert class_map == dict(a=0, b=1, c=2, d=3, e=4, f=5)
    accuracy = measure_accuracy(model, root, class_map)
    assert accuracy.describe('assemble_resnet50') == (
        'top-1 16.67 %, top-5 83.33 % on 12 pictures at 160, crop 0.875')
    assert accuracy._replace(imagenet=True).describe('assemble_resnet50').endswith(
        "; published: top-1 82.69 - 82.78 % on the 50000 of ImageNet's validation")


def test_class_map_is_the_order_that_timm_trained_by(tmp_path):
    """Numbers by value and capitals as small letters, unlike names in plain order; hidden folders are none."""
    root = picture_folder(tmp_path / 'pictures', ['10', '9', 'Zebra', 'ant', 'Bee2', 'bee10'])
    (root / '.checkpoints').mkdir()
    names = ['9', '10', 'ant', 'Bee2', 'bee10', 'Zebra']
    assert read_class_map(root, 6) == {name: i for i, name in enumerate(names)}
    assert read_class_map(root, 6) == timm.data.create_dataset('', root=str(root)).reader.class_to_idx


def test_class_map_of_imagenet(tmp_path):
    """ImageNet's class of a folder is its synset's place; with "background" one more. Not every class is needed."""
    for name in ('n01440764', 'n15075141', 'n02123045'):  # tench, toilet paper, tabby
        (tmp_path / name).mkdir()
    assert read_class_map(tmp_path, 1000) == dict(n01440764=0, n15075141=999, n02123045=281)
    assert read_class_map(tmp_path, 1001) == dict(n01440764=1, n15075141=1000, n02123045=282)
    with pytest.raises(ValueError, match='each of the 10 classes, got 3 folders'):
        read_class_map(tmp_path, 10)
    (tmp_path / 'other').mkdir()
    with pytest.raises(ValueError, match='each of the 1000 classes or folders named by synsets, got 4 folders'):
        read_class_map(tmp_path, 1000)
    with pytest.raises(ValueError, match='must be a folder'):
        read_class_map(tmp_path / 'nowhere', 1000)


def test_published_numbers_are_those_of_the_readme():
    assert PUBLISHED_TOP1 == {name: row.top1 for name, row in PUBLISHED.items() if row.top1}
