"""Checkpoints of timm's train.py, read back as the model that was trained."""
import argparse
import json
import shutil

import pytest
import timm
import torch
import yaml

from timm_assemble.models.loading import load_source
from timm_assemble.models.train_checkpoint import read_train_checkpoint

from .._published import FOLDER, FOUR_CHANNELS, WITH_EMA, logits, train_args, write_checkpoint, write_folder


def save(path, args, **content):
    torch.save(dict(content, args=argparse.Namespace(**args)), path)
    return path


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Return a run's checkpoint and its model, which nobody changes."""
    return write_checkpoint(tmp_path_factory.mktemp('written') / 'run', FOUR_CHANNELS)


@pytest.fixture
def run(written, tmp_path):
    """Return the checkpoint in a copy of the run, and its model."""
    path, model = written
    return shutil.copytree(path.parent, tmp_path / 'run') / path.name, model


@pytest.fixture
def args_file(run):
    """Return args.yaml beside a checkpoint that has no arguments within."""
    path, _ = run
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['args']
    torch.save(checkpoint, path)
    return path.with_name('args.yaml')


def test_ema_weights_are_preferred(tmp_path):
    path, model = write_checkpoint(tmp_path / 'run', WITH_EMA)
    read = read_train_checkpoint(path)
    assert torch.equal(logits(read.model), logits(model)) and not read.model.training
    assert read.weights.startswith('the exponential moving average') and read.epoch == 3 and read.metric == 61.25
    plain = torch.load(path, weights_only=False)
    del plain['state_dict_ema']
    torch.save(plain, path)
    read = read_train_checkpoint(path)
    assert not torch.equal(logits(read.model), logits(model)) and 'no EMA' in read.weights


@pytest.mark.parametrize('content', [None, 'gp: gem\nmodel: assemble_resnet50', '['])
def test_arguments_in_the_checkpoint_replace_args_yaml(run, content):
    """Without it, or where it is another run's."""
    path, model = run
    (path.parent / 'args.yaml').unlink()
    if content:
        (path.parent / 'args.yaml').write_text(content)
    assert torch.equal(logits(read_train_checkpoint(path).model), logits(model))


@pytest.mark.parametrize('mean, expected', [(None, 114.8067 / 255), ([0.25], 0.25)])
def test_one_channel_has_the_average_mean_or_the_given_one(tmp_path, mean, expected):
    args = dict(train_args(FOLDER), num_classes=3, in_chans=1, mean=mean, img_size=None, crop_pct=0.9)
    model = timm.create_model(
        'test_assemble_resnet', num_classes=3, in_chans=1, global_pool=args['gp'], **args['model_kwargs'])
    state = {f'module.{k}': v for k, v in model.state_dict().items()}
    read = read_train_checkpoint(save(tmp_path / 'last.pth.tar', args, state_dict=state))
    assert torch.equal(logits(read.model), logits(model)) and (read.epoch, read.metric) == (None, None)
    cfg = read.model.pretrained_cfg
    assert cfg['input_size'] == (1, 160, 160) and cfg['crop_pct'] == 0.9
    assert cfg['mean'] == pytest.approx((expected,), abs=1e-4) and len(cfg['std']) == 1
    assert read.model_args['in_chans'] == 1 and 'drop_rate' not in read.model_args


@pytest.mark.parametrize('with_file', [True, False])
def test_arguments_of_training_only_build_no_model(run, with_file):
    """DropBlock's schedule and lists are among the arguments, in args.yaml or in the checkpoint."""
    path, model = run
    checkpoint = torch.load(path, weights_only=False)
    args = vars(checkpoint['args'])
    args['model_kwargs'] = {**args['model_kwargs'], 'drop_block_rate': 0.2, 'drop_block_start_rate': 0.1}
    args.update(device_modules=['a.module'])
    (path.parent / 'args.yaml').write_text(yaml.safe_dump(args))
    if with_file:
        del checkpoint['args']
    torch.save(checkpoint, path)
    read = read_train_checkpoint(path)
    assert torch.equal(logits(read.model), logits(model)) and not [k for k in read.model_args if 'drop' in k]


def test_fine_tuned_model_keeps_arguments_and_input_of_its_base_but_not_its_labels(tmp_path):
    write_folder(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    config['pretrained_cfg']['crop_pct'] = 0.5
    (tmp_path / 'config.json').write_text(json.dumps({**config, 'label_names': [*'abcdefg']}))
    model = timm.create_model(f'local-dir:{tmp_path}', num_classes=3)
    args = dict(train_args(FOLDER), model=f'local-dir:{tmp_path}', num_classes=3, img_size=None, model_kwargs={})
    read = read_train_checkpoint(save(tmp_path / 'last.pth.tar', args, state_dict=model.state_dict()))
    assert torch.equal(logits(read.model), logits(model)) and read.model_args['aa_size'] == 5
    assert read.model.pretrained_cfg['crop_pct'] == 0.5 and not read.model.pretrained_cfg.get('label_names')
    (tmp_path / 'config.json').write_text('[]')
    with pytest.raises(ValueError, match=r'last.pth.tar: model local-dir:.* must be a JSON object, got \[\]'):
        read_train_checkpoint(tmp_path / 'last.pth.tar')


def class_names(path, args, state, **more):
    read = load_source(f'assemble_resnet50={save(path, {**args, **more}, state_dict=state)}')
    return read.class_map.names and [*read.class_map.names]


@pytest.mark.parametrize('where', ['.', 'data', 'data/train'])
def test_classes_have_the_names_of_the_class_map(where, run, tmp_path, monkeypatch):
    """Its path is absolute, or relative to the working directory, the data or their split."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/train').mkdir(parents=True)
    file = tmp_path / where / 'map.txt'
    file.write_text('dog\ncat\nbee\n')
    path, model = run
    args, state = dict(train_args(FOUR_CHANNELS), data_dir='data'), model.state_dict()
    for class_map in ('map.txt', str(file)):
        assert class_names(path, args, state, class_map=class_map) == ['dog', 'cat', 'bee']
    for class_map in ('gone.txt', str(tmp_path / 'four.txt')):
        (tmp_path / 'four.txt').write_text('a\nb\nc\nd\n')
        with pytest.warns(UserWarning, match=f'the names of the 3 classes are unknown: class_map .*{class_map} '):
            assert class_names(path, args, state, class_map=class_map) is None


def test_classes_have_the_names_of_the_folders_that_still_exist(run, tmp_path):
    path, model = run
    args, state = dict(train_args(FOUR_CHANNELS), dataset='', data_dir=str(tmp_path / 'data')), model.state_dict()
    assert class_names(path, args, state) is None
    for name in ('c10', 'c9', 'b'):
        (tmp_path / 'data/training' / name).mkdir(parents=True)
    assert class_names(path, args, state) == ['b', 'c9', 'c10']
    assert class_names(path, args, state, dataset='torch/cifar10') is None
    (tmp_path / 'data/training/d').mkdir()
    assert class_names(path, args, state) is None


def test_line_breaks_in_args_yaml_are_folded(run, args_file):
    args = yaml.safe_load(args_file.read_text())
    args_file.write_text(yaml.safe_dump({**args, 'opt': 'sgd\n\n# Title\u2028', 'val_split': 'a  b'}))
    read = read_train_checkpoint(run[0])
    assert read.args['opt'] == 'sgd # Title' and read.args['val_split'] == 'a  b'


@pytest.mark.timeout(20)
@pytest.mark.parametrize('content, message', [
    (b'null', 'must be the arguments of train.py with a model, got None'),
    (b'- 1', r'must be the arguments of train.py with a model, got \[1\]'),
    (b'model: \xff\xfe', 'must be YAML as train.py writes it'),
    (b'a: [', 'must be YAML as train.py writes it'),
    (b'[' * 1_200, 'must be YAML as train.py writes it'),
    (dict(model=None), 'must be the arguments of train.py with a model'),
    (dict(model=5), 'must be the arguments of train.py with a model'),
    (dict(model='resnet5000'), 'model resnet5000: timm knows no such model'),
    (dict(num_classes='x'), "num_classes must be of type int, got 'x'"),
    (dict(input_size=3), 'input_size must be channels, height and width.*, got 3'),
    (dict(img_size=-1), 'input_size must be channels, height and width, each from 1 to 65536, got'),
    (dict(std=[0.2, 0, 0.2]), r'std must be a list of positive numbers, got'),
    (dict(model_kwargs=[1]), 'cannot convert'),
    (dict(model_kwargs=dict(widht=8)), "unexpected keyword argument 'widht'"),
    (dict(model_kwargs=dict(width=12)), 'width must be a positive multiple of 8, got 12'),
])
def test_bad_args_yaml_is_one_line_that_names_file_key_and_value(run, args_file, content, message):
    path, _ = run
    if isinstance(content, dict):
        content = yaml.safe_dump({**yaml.safe_load(args_file.read_text()), **content}).encode()
    args_file.write_bytes(content)
    for read in (lambda: read_train_checkpoint(path), lambda: load_source(f'assemble_resnet50={path}')):
        with pytest.raises(ValueError, match=f'args.yaml.*{message}') as error:
            read()
        assert '\n' not in str(error.value)


ARGS = argparse.Namespace(**train_args(FOLDER))


@pytest.mark.parametrize('content, message', [
    (b'not one', "path must be a checkpoint of timm's train.py; .* cannot be read"),
    (dict(weights=1), "has no 'state_dict'"),
    (dict(state_dict=[1]), "has no 'state_dict'"),
    (dict(state_dict={}), 'path must be a checkpoint with its arguments'),
    (dict(state_dict={}, code=pytest.raises), 'cannot be read'),
    (dict(state_dict={}, args=ARGS), 'must be those of test_assemble_resnet'),
    (dict(state_dict={5: 'x'}, args=ARGS), 'must be those of test_assemble_resnet'),
])
def test_other_files_are_rejected_in_one_line(tmp_path, content, message):
    path = tmp_path / 'last.pth.tar'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        read_train_checkpoint(path)
    assert '\n' not in str(caught.value)
