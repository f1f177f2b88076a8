"""The written folder, and the command without TensorFlow: its reader is a stand-in."""
import hashlib
import json
import re
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from timm_assemble.__main__ import main
from timm_assemble.cli.convert import _published
from timm_assemble.convert import conversion, convert, write
from timm_assemble.convert.variants import Variant
from timm_assemble.data.accuracy import Accuracy
from timm_assemble.data.preprocessing import Preprocessing

from .._official import TOLERANCE, departure, make_variables, official_input, sizes
from .._tensorflow import fake_checkpoint, with_slots
from ..runtime.test_accuracy import image_folder

FILES = {'README.md', 'config.json', 'conversion.json', 'model.safetensors'}


@pytest.fixture
def checkpoint(tmp_path):
    """The formula's tiny_assemble50 with slots."""
    file = tmp_path / 'model.ckpt-12345.index'
    file.write_bytes(b'not read')
    return fake_checkpoint(with_slots(make_variables('tiny_assemble50')), file)


def test_the_written_model_has_the_official_logits_and_each_variable_is_read_once(checkpoint, tmp_path):
    write(convert(checkpoint, keep_classes=True), tmp_path / 'made')
    assert {f.name for f in (tmp_path / 'made').iterdir()} == FILES
    model = timm.create_model(f'local-dir:{tmp_path / "made"}', pretrained=True).eval()
    for size in sizes('tiny_assemble50'):
        with torch.inference_mode():
            assert departure('tiny_assemble50', model(official_input(*size)), *size) < TOLERANCE
    assert sorted(checkpoint._reader.asked) == sorted(make_variables('tiny_assemble50'))


def test_report_has_source_and_checksums_of_every_entry(checkpoint, tmp_path):
    done = convert(checkpoint, model_args=dict(num_classes=10))
    write(done, tmp_path / 'made')
    report = json.loads((tmp_path / 'made' / 'conversion.json').read_text())
    assert report['source'] == [dict(
        file='model.ckpt-12345.index', bytes=8, sha256=hashlib.sha256(b'not read').hexdigest())]
    assert report['skipped'] == {'Momentum': 306, 'global_step': 1}
    assert 'background' in report['dropped'] and report['versions']['tensorflow'] == '2'
    assert report['model']['name'] == 'assemble_resnet50' and report['model']['inferred']['width'] == 8
    assert report['model']['not_in_the_checkpoint'] == dict(aa_size=3, global_pool='avg', last_stride=2)
    variables, entries = checkpoint._reader.variables, load_file(tmp_path / 'made' / 'model.safetensors')
    assert {v['variable'] for v in report['variables']} == set(make_variables('tiny_assemble50'))
    for v in report['variables']:
        array = variables[v['variable']]
        entries.pop(v['entry'])
        assert v['shape'] == [*array.shape] and v['dtype'] == 'float32'
        assert v['sha256'] == hashlib.sha256(array.tobytes()).hexdigest()
    assert entries and all(name.endswith('num_batches_tracked') for name in entries)
    assert done.summary().splitlines()[3:] == [
        'variables used: 496 of 496; skipped: 306 Momentum, 1 global_step', f'dropped: {report["dropped"]}']


def test_config_has_given_arguments_input_test_size_and_crop(checkpoint, tmp_path):
    write(convert(checkpoint, model_args=dict(global_pool='gem', aa_size=5)), tmp_path / 'made')
    model = timm.create_model(f'local-dir:{tmp_path / "made"}', pretrained=True)
    assert model.global_pool.pool_type == 'gem' and model.stages[3][1].aa.filt_size == 5
    config = timm.data.resolve_data_config({}, model=model, use_test_size=True)
    assert config['input_size'] == (3, 256, 256) and config['crop_pct'] == 0.875
    assert [*config['std']] == [1 / 255] * 3 and [*config['mean']] == [123.68 / 255, 116.78 / 255, 103.94 / 255]
    assert timm.data.resolve_data_config({}, model=model)['input_size'] == (3, 224, 224)


@pytest.mark.parametrize('channels', [1, 4])
def test_config_and_card_have_the_models_channels_and_the_cards_code_runs(channels, tmp_path, monkeypatch):
    variables = make_variables('tiny_r50d_sk')
    stem = variables['resnet_model/conv2d/kernel']
    variables['resnet_model/conv2d/kernel'] = np.concatenate([stem, stem], axis=2)[:, :, :channels]
    write(convert(fake_checkpoint(variables)), tmp_path / 'made')
    whole = json.loads((tmp_path / 'made' / 'config.json').read_text())
    assert 'num_classes' in whole and 'num_classes' not in whole['model_args']  # transformers rejects a second one
    config = whole['pretrained_cfg']
    assert config['input_size'] == [channels, 224, 224] and len(config['mean']) == channels
    card = (tmp_path / 'made' / 'README.md').read_text()
    assert f'**Input**: {channels} x 224 x 224 in training' in card
    code, = re.findall(r'^```python\n(.*?)^```', card.split('## Usage\n')[1], flags=re.S | re.M)
    monkeypatch.chdir(tmp_path)
    exec(code, {})


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError, SystemExit])
def test_an_error_or_interrupt_while_writing_leaves_no_folder(error, checkpoint, tmp_path, monkeypatch):
    def fail(*args):
        raise error
    monkeypatch.setattr(conversion, '_card', fail)
    (tmp_path / 'out').mkdir()
    with pytest.raises(error):
        write(convert(checkpoint), tmp_path / 'out' / 'deep' / 'made')
    assert [f.name for f in (tmp_path / 'out').rglob('*')] == ['deep']


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """``convert`` in this process and in ``tmp_path``, without TensorFlow; returns status, output and errors."""
    monkeypatch.setitem(sys.modules, 'tensorflow', None)
    monkeypatch.setattr('signal.signal', lambda *args: None)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        status = main(['convert', *map(str, args)])
        return status, *capsys.readouterr()
    return run


@pytest.fixture
def opened(checkpoint, monkeypatch):
    """``checkpoint`` for the command, whatever the prefix."""
    monkeypatch.setattr('timm_assemble.convert.open_checkpoint', lambda prefix, moving_averages: checkpoint)


@pytest.mark.parametrize('args, message', [
    (('empty', 'out'), "CHECKPOINT must be a prefix or a folder with a file named 'checkpoint', got the folder empty"),
    (('nothing', 'out'), 'CHECKPOINT must be a TensorFlow 1 checkpoint, and nothing.index does not exist'),
    (('full/x.index', 'full'), "OUTPUT must be a new or empty folder without --force, got 'full'"),
    (('full/x', 'notes', '--force'), 'OUTPUT must be a folder with config.json and model.safetensors for --force'),
    (('full/x', 'full', '--force'), 'OUTPUT must not be a folder that contains CHECKPOINT, got full'),
    (('full/x', "a'b"), 'OUTPUT must have a name without quotes'),
    (('full/x', 'out'), 'CHECKPOINT must have all data files, got 0 of 1 for full/x'),
    (('full/y', 'out'), "reading a checkpoint needs TensorFlow: pip install '.[tensorflow]'"),
])
def test_bad_use_is_one_line_that_names_the_argument(args, message, command, tmp_path):
    for name in ('empty/', 'full/x.index', 'full/y.index', 'full/y.data-00000-of-00001', 'full/config.json',
                 'full/model.safetensors', 'notes/x'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith('/') else (tmp_path / name).touch()
    status, out, err = command(*args)
    assert status == 2 and err.startswith(f'timm-assemble: {message}') and err.count('\n') == 1 and not out, err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('pair', ['aa_size', '=3', ''])
def test_model_kwargs_must_be_pairs(pair, command, capsys):
    with pytest.raises(SystemExit) as e:
        command('x', 'out', '--model-kwargs', pair)
    err = capsys.readouterr().err
    assert e.value.code == 2 and f'must be KEY=VALUE, got {pair!r}' in err and err.count('\n') == 1


@pytest.mark.parametrize('option, value, message', [
    ('--model-kwargs', 'global_pool=', "--model-kwargs must be arguments of assemble_resnet50, got {'width': 8, "),
    ('--model-kwargs', 'norm_layer=groupnorm1', '--model-kwargs must be arguments of assemble_resnet50, got {'),
    ('--model', 'resnet50', '--model must be one of ['),
])
def test_a_model_or_argument_that_does_not_fit_is_one_line(option, value, message, command, opened, tmp_path):
    status, out, err = command('model.ckpt-12345', 'out', option, value)
    assert status == 2 and err.startswith(f'timm-assemble: {message}') and err.count('\n') == 1 and not out, err
    assert not (tmp_path / 'out').exists()


# timm leaves files open
@pytest.mark.filterwarnings('ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning')
def test_force_replaces_the_folder_only_after_a_successful_verify(command, opened, tmp_path):
    made, convert_it = tmp_path / 'made', ('model.ckpt-12345', 'made')
    status, out, _ = command(*convert_it)
    assert status == 0 and out.splitlines() == [
        'inferred: 7x7 stem, width 8, (3, 4, 6, 3) blocks, Big-Little with alpha 2 and little branches of (1, 1, 1) '
        'blocks, attention sk, no embedding, 11 classes',
        "model: create_model('assemble_resnet50', width=8, num_classes=11)",
        "not in the checkpoint: aa_size=3, global_pool='avg', last_stride=2",
        'variables used: 496 of 496; skipped: 306 Momentum, 1 global_step',
        "written: made; load it with create_model('local-dir:made', pretrained=True)"]
    (made / 'old').touch()
    image_folder(tmp_path / 'images', 'abc', 1)
    status, _, err = command(*convert_it, '--force', '--verify', 'images')
    assert status == 2 and err.startswith('timm-assemble: --verify must have one folder for each of the 11 classes')
    assert (made / 'old').exists()
    image_folder(tmp_path / 'images', 'defghijk', 1)
    status, out, _ = command(*convert_it, '--force', '--verify', 'images', '--model-kwargs', 'aa_size=0')
    assert status == 0 and 'aa_size=0' in out
    assert {f.name for f in made.iterdir()} == FILES
    card = (made / 'README.md').read_text()
    assert '`assemble_resnet50` with `width=8' in card
    for transform in ('the official', "timm's"):
        protocol = f'11 images at 256 x 256, crop 0.875, bilinear, {transform} transform, '
        assert f' % on {protocol}' in out and f'| {protocol}' in card


@pytest.mark.parametrize('name, args, imagenet, published', [
    ('assemble_resnet50', dict(num_classes=1001), True, '82.69 - 82.78'),
    ('assemble_resnet152', {}, True, '84.19'),
    ('assemble_resnet101', {}, True, None),
    ('assemble_resnet50', dict(width=8), True, None),
    ('assemble_resnet50', {}, False, None),
])
def test_published_top1_is_printed_for_the_papers_networks_on_imagenet(name, args, imagenet, published):
    text = _published(Variant(name, args, None), Accuracy(82.7, 96, 50000, Preprocessing((3, 256, 256)), '', imagenet))
    expected = f"; published, by this transform: top-1 {published} % on the 50000 of ImageNet's validation"
    assert text == (expected if published else '')
