"""Checkpoints of timm's train.py, and what must be known before anything is published; nothing here asks a server."""
import argparse
import json

import pytest
import timm
import torch
import yaml

from timm_assemble.hub.prepare import prepare
from timm_assemble.models.train_checkpoint import read_train_checkpoint

from .._published import FOLDER, FOUR_CHANNELS, WITH_EMA, logits, train_args, write_checkpoint, write_folder


def test_ema_weights_where_there_are_any(tmp_path):
    path, model = write_checkpoint(tmp_path / 'run', WITH_EMA)
    read = read_train_checkpoint(path)
    assert torch.equal(logits(read.model), logits(model)) and not read.model.training
    assert read.weights.startswith('the exponential moving average') and read.epoch == 3 and read.metric == 61.25
    plain = torch.load(path, weights_only=False)
    del plain['state_dict_ema']
    torch.save(plain, path)
    read = read_train_checkpoint(path)
    assert not torch.equal(logits(read.model), logits(model)) and 'no EMA' in read.weights


def test_arguments_within_do_without_args_yaml(tmp_path):
    path, model = write_checkpoint(tmp_path / 'run', WITH_EMA)
    (path.parent / 'args.yaml').unlink()
    assert torch.equal(logits(read_train_checkpoint(path).model), logits(model))


@pytest.mark.parametrize('mean, expected', [(None, 114.8067 / 255), ([0.25], 0.25)])
def test_input_of_one_channel(tmp_path, mean, expected):
    """One mean a channel, the average of the registered three as timm's loaders take it, or the one that was given."""
    args = dict(train_args(FOLDER), num_classes=3, in_chans=1, mean=mean, img_size=None, crop_pct=0.9)
    model = timm.create_model(
        'test_assemble_resnet', num_classes=3, in_chans=1, global_pool=args['gp'], **args['model_kwargs'])
    path = tmp_path / 'last.pth.tar'
    torch.save(dict(state_dict={f'module.{k}': v for k, v in model.state_dict().items()},
                    args=argparse.Namespace(**args)), path)
    read = read_train_checkpoint(path)
    assert torch.equal(logits(read.model), logits(model)) and (read.epoch, read.metric) == (None, None)
    cfg = read.model.pretrained_cfg
    assert cfg['input_size'] == (1, 160, 160) and cfg['crop_pct'] == 0.9
    assert cfg['mean'] == pytest.approx((expected,), abs=1e-4) and len(cfg['std']) == 1
    assert read.model_args['in_chans'] == 1 and 'drop_rate' not in read.model_args


@pytest.mark.parametrize('with_file', [True, False])
def test_arguments_of_training_alone_build_no_model(tmp_path, with_file):
    """DropBlock's schedule and lists among the arguments, in args.yaml and within the checkpoint."""
    path, model = write_checkpoint(tmp_path / 'run', FOUR_CHANNELS)
    checkpoint = torch.load(path, weights_only=False)
    args = vars(checkpoint['args'])
    args['model_kwargs'] = {**args['model_kwargs'], 'drop_block_rate': 0.2, 'drop_block_start_rate': 0.1}
    args.update(device_modules=['a.module'], kd_model_name='logits:/somewhere/logits', dataset='hfds//somewhere')
    (path.parent / 'args.yaml').unlink()
    if with_file:  # written before the training took the rate out of the arguments
        (path.parent / 'args.yaml').write_text(yaml.safe_dump(args))
        args['model_kwargs'].pop('drop_block_start_rate')
    torch.save(checkpoint, path)
    publication = prepare(path, 'user/name', output=tmp_path / 'output')
    assert torch.equal(logits(timm.create_model(f'local-dir:{publication.folder}', pretrained=True)), logits(model))
    card = (publication.folder / 'README.md').read_text()
    assert 'stored logits of a teacher' in card and '/somewhere' not in card
    assert 'drop_block' not in (publication.folder / 'config.json').read_text()


def test_fine_tuned_from_a_folder(tmp_path):
    """Arguments and input of the model that training began from are kept, but for its classes' names."""
    write_folder(tmp_path / 'base')
    config = json.loads((tmp_path / 'base' / 'config.json').read_text())
    config['pretrained_cfg']['crop_pct'] = 0.5
    (tmp_path / 'base' / 'config.json').write_text(json.dumps({**config, 'label_names': [*'abcdefg']}))
    name = f'local-dir:{tmp_path / "base"}'
    model = timm.create_model(name, num_classes=3)
    args = dict(train_args(FOLDER), model=name, num_classes=3, img_size=None, model_kwargs={})
    torch.save(dict(state_dict=model.state_dict(), args=argparse.Namespace(**args)), tmp_path / 'last.pth.tar')
    publication = prepare(tmp_path / 'last.pth.tar', 'user/tuned', output=tmp_path / 'output')
    again = timm.create_model(f'local-dir:{publication.folder}', pretrained=True)
    assert torch.equal(logits(again), logits(model))
    assert again.pretrained_cfg['crop_pct'] == 0.5 and not again.pretrained_cfg.get('label_names')
    assert str(tmp_path) not in ''.join(
        (publication.folder / f).read_text() for f in publication.files if not f.endswith('.safetensors'))


def _checkpoint(tmp_path, **changes):
    path, _ = write_checkpoint(tmp_path / 'run', FOUR_CHANNELS)
    file = path.parent / 'args.yaml'
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))
    return path


@pytest.mark.parametrize('changes, message', [
    (dict(gp='gem'), r"args.yaml must be that of model_best.pth.tar: gp is 'gem' in the one and None in the other"),
    (dict(model_kwargs=dict(width=16)), r'model_kwargs is \{'),
    (dict(model=None), 'args.yaml must name a model'),
])
def test_args_of_another_run(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        prepare(_checkpoint(tmp_path, **changes), 'user/name')
    assert not (tmp_path / 'run' / 'name').exists()


@pytest.mark.parametrize('content, message', [
    (b'not one', "must be one of timm's train.py, readable as weights alone"),
    (dict(weights=1), "has no 'state_dict'"),
    (dict(state_dict={}), 'must hold its arguments or have args.yaml beside it'),
    (dict(state_dict={}, code=pytest.raises), 'readable as weights alone'),
    (dict(state_dict={}, args=argparse.Namespace(**train_args(FOLDER))), 'must be those of test_assemble_resnet'),
    (dict(state_dict={}, args=argparse.Namespace(model='nonesuch')), "timm knows, got 'nonesuch'"),
])
def test_no_such_checkpoint(tmp_path, content, message):
    path = tmp_path / 'last.pth.tar'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        prepare(path, 'user/name')
    assert '\n' not in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == ['last.pth.tar']
