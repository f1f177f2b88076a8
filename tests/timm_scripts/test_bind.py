"""What is bound into train.py, with a stand-in of its names and calls; test_train_script runs the script itself."""
import functools
import json
import logging
import subprocess
import sys
import types
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.data import FastCollateMixup, Mixup, create_loader
from timm.data.distributed_sampler import RepeatAugSampler
from timm.loss import SoftTargetCrossEntropy
from torch._dynamo.testing import CompileCounterWithBackend
from torchvision.datasets import FakeData

from timm_assemble.layers import DropBlock2d
from timm_assemble.timm_scripts import HOOK
from timm_assemble.timm_scripts.bind import NEEDED, bind, is_train_script
from timm_assemble.training import (
    StoredLogitsDistillationTask, TeacherCollateMixup, TeacherMixup, ViewDataset, drop_block_schedule, pack_targets,
    store_teacher_views,
)

CLASSES = 5
STORED = 'logits:rows.npy'


def train_one_epoch(epoch, model, loader, optimizer, args, lr_scheduler=None, num_updates_total=None, device=None):
    """Count updates as the script does: one after ``grad_accum_steps`` batches and after the last batch."""
    rates, num_updates = [], epoch * -(-len(loader) // args.grad_accum_steps)
    for i in range(len(loader)):
        if i + 1 == len(loader) or (i + 1) % args.grad_accum_steps == 0:
            rates.append(next((m.last_rate for m in model.modules() if isinstance(m, DropBlock2d)), None))
            num_updates += 1
            if lr_scheduler is not None:
                lr_scheduler.step_update(num_updates=num_updates, metric=0.0)
    return dict(loss=0.0, rates=rates)


def script_of(config='', **args):
    script = types.ModuleType('train')
    values = dict(model='test_assemble_resnet', dataset='', data=None, data_dir='.', device_modules=[HOOK],
                   kd_model_name=None, kd_distill_type='logit', kd_temperature=1.0, kd_loss_type='kl', drop_block=None,
                   model_kwargs={}, num_classes=CLASSES, batch_size=8, grad_accum_steps=1, aug_splits=0, seed=42,
                   aa=None, train_crop_mode=None, interpolation='', in_chans=None, input_size=None, smoothing=0.1,
                   mixup=0.0, cutmix=0.0, cutmix_minmax=None, mixup_prob=1.0, mixup_switch_prob=0.5, mixup_mode='batch',
                   mixup_off_epoch=0)
    script._parse_args = lambda: (Namespace(**{**values, **args}), '')
    script.config_parser = types.SimpleNamespace(parse_known_args=lambda: (Namespace(config=config), []))
    script.parser = ArgumentParser()
    for name in values:
        script.parser.add_argument(f'--{name}')
    script.create_model, script.create_loader = timm.create_model, create_loader
    script.train_one_epoch = train_one_epoch
    script.Mixup, script.FastCollateMixup = Mixup, FastCollateMixup
    script.LogitDistillationTask = timm.task.LogitDistillationTask
    script.TokenDistillationTask = timm.task.TokenDistillationTask
    return script


def images(count=8):
    return FakeData(count, (3, 32, 32), CLASSES)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Stored logits, and a configuration with a mistake, in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).standard_normal((8, CLASSES)).astype(np.float16)
    np.save('rows.npy', rows)
    for name, row, value in (('nan', 5, np.nan), ('inf', 2, np.inf), ('lost', 7, 0)):
        bad = rows.copy()
        bad[row, 3 if value else slice(None)] = value
        np.save(f'{name}.npy', bad)
    (tmp_path / 'mine.yaml').write_text('drop_blok: 0.1\n')


def message_of(capsys, function, *args, **kwargs):
    with pytest.raises(SystemExit) as stopped:
        function(*args, **kwargs)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith('timm_assemble: ') and error.count('\n') == 1
    return error


@pytest.mark.parametrize('use', ['import timm_assemble.train_hook', '''
import pkgutil, timm_assemble
[*pkgutil.walk_packages(timm_assemble.__path__, 'timm_assemble.', onerror=print)]
import timm_assemble.train_hook'''])
def test_importing_the_hook_elsewhere_is_harmless(use):
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', f'{use}\nprint("still here")'], capture_output=True,
                          text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'still here\n', '')


def test_the_hook_binds_into_train_py_alone():
    assert is_train_script(script_of()) and not is_train_script(types.ModuleType('__main__'))


def test_nothing_is_bound_without_arguments_for_it():
    script = script_of(kd_model_name='resnet50')
    before = dict(vars(script))
    bind(script)
    assert vars(script) == before


@pytest.mark.parametrize('accumulated', [1, 2, 3])
@pytest.mark.parametrize('start', [None, 0.05])
def test_every_update_has_its_rate(accumulated, start):
    """In a resumed epoch as well."""
    script = script_of(drop_block=0.2, grad_accum_steps=accumulated,
                       model_kwargs={} if start is None else dict(drop_block_start_rate=start))
    bind(script)
    args, _ = script._parse_args()
    updates, per_epoch = [], -(-7 // accumulated)
    scheduler = types.SimpleNamespace(step_update=lambda num_updates, metric: updates.append(num_updates))

    def train(model, epoch, lr_scheduler):
        return script.train_one_epoch(epoch, model, range(7), None, args, lr_scheduler=lr_scheduler,
                                      num_updates_total=3 * per_epoch, device='cpu')

    model, again = (script.create_model('test_assemble_resnet', drop_block_rate=0.2, **args.model_kwargs)
                    for _ in range(2))
    metrics = [train(model, epoch, scheduler) for epoch in range(3)]
    rates = [rate for epoch in metrics for rate in epoch['rates']]
    assert rates == pytest.approx([drop_block_schedule(i, len(rates), start or 0.0, 0.2) for i in range(3 * per_epoch)])
    assert updates == list(range(1, 3 * per_epoch + 1))
    assert [epoch['drop_block_rate'] for epoch in metrics] == [rates[per_epoch], rates[2 * per_epoch], 0.2]
    assert train(again, 2, None) == {**metrics[2], 'rates': rates[2 * per_epoch:]}


def test_model_without_drop_block_warns_once(caplog):
    script = script_of(drop_block=0.2)
    bind(script)
    args, _ = script._parse_args()
    model = timm.create_model('test_resnet')
    with caplog.at_level(logging.WARNING, 'train'):
        for epoch in range(2):
            metrics = script.train_one_epoch(epoch, model, range(3), None, args, num_updates_total=6)
    assert metrics['drop_block_rate'] == 0.2
    assert len(caplog.messages) == 1 and 'drop_block has no schedule: ResNet has no set_drop_block_rate' in caplog.text


@pytest.mark.parametrize('args, message', [
    (dict(model='assemble_resnet5'), "model must be a model name that timm knows, got 'assemble_resnet5'; did you mean "
                                     "assemble_resnet50, "),
    (dict(model_kwargs=dict(colour=1)), "model_kwargs must be arguments of test_assemble_resnet, got 'colour'"),
    (dict(data_dir=None), 'data_dir must be the folder of the images, got none'),
    (dict(data_dir=None, data='nowhere'), 'data_dir must exist, got nowhere'),
    (dict(model_kwargs=dict(drop_block_start_rate=0.1)), 'model_kwargs drop_block_start_rate=0.1 needs `drop_block`'),
    (dict(model_kwargs=dict(drop_block_start_rate=1.5), drop_block=0.2), 'from 0 to 1, got 1.5'),
    (dict(model_kwargs=dict(drop_block_start_rate='x'), drop_block=0.2), "from 0 to 1, got 'x'"),
    (dict(kd_model_name='logits:'), "kd_model_name must name stored logits: path must be a store of teacher logits "
                                    "or an .npy file, got '', which is empty"),
    (dict(kd_model_name='logits:nowhere'), "got 'nowhere', which does not exist"),
    (dict(kd_model_name=STORED, kd_distill_type='token'), 'kd_distill_type must be logit'),
    (dict(kd_model_name=STORED, kd_loss_type='kd'), "kd_loss_type must be one of kl, ce, dist, dkd, kl+std, ce+std, "),
    (dict(kd_model_name=STORED, kd_temperature=0.0), 'kd_temperature must be positive, got 0.0'),
    (dict(kd_model_name=STORED, naflex_loader=True), 'naflex_loader must be off'),
    (dict(kd_model_name='logits:nan.npy'), 'nan.npy must have finite values in every row, got others in row 5'),
    (dict(kd_model_name='logits:inf.npy'), 'inf.npy must have finite values in every row, got others in row 2'),
    (dict(kd_model_name='logits:lost.npy'), 'lost.npy must have values other than zeros in every row'),
    (dict(kd_model_name=STORED, mixup=0.2, batch_size=7), 'batch_size must be even with `mixup`, got 7'),
    (dict(cutmix=1.0, batch_size=7), 'batch_size must be even with `cutmix`, got 7'),
    (dict(model_kwargs=dict(drop_path_rate=0.1), drop_path=0.1),
     'model_kwargs must not have drop_path_rate, which is `drop_path`, got 0.1'),
    (dict(model='test_vit', drop_block=0.1), 'drop_block must not be given: test_vit has no drop_block_rate'),
    (dict(kd_model_name='views:'), "kd_model_name must name stored views: path must be a store of teacher views, "
                                   "got '', which is empty"),
    (dict(kd_model_name='views:rows.npy'), 'path must be a store of teacher views, got rows.npy: Not a directory'),
    (dict(kd_model_name='views:v', aug_splits=2), 'aug_splits must be off with stored views: splits need'),
    (dict(kd_model_name='views:v', train_img_sizes=[32, 64]), 'train_img_sizes must be off with stored views'),
    (dict(kd_model_name='views:v', use_multi_epochs_loader=True), 'use_multi_epochs_loader must be off with stored'),
    (dict(aa='official-best'), "aa must be one of official, official-good, got 'official-best'"),
    (dict(aa='official', in_chans=1), 'in_chans must be 3 with the official data pipeline, got 1'),
    (dict(train_crop_mode='official', aug_splits=2), 'aug_splits must be off with the official data pipeline, got 2'),
    (dict(interpolation='official', naflex_loader=True), 'naflex_loader must be off with the official data'),
    (dict(config='mine.yaml'), "mine.yaml has the unknown argument 'drop_blok'; did you mean drop_block?")])
def test_bad_arguments_are_one_line(args, message, capsys):
    assert message in message_of(capsys, bind, script_of(**args))


@pytest.mark.parametrize('args', [
    dict(model='hf-hub:user/name', model_kwargs=dict(colour=1)), dict(model='local-dir:/nowhere'),
    dict(model='mine', device_modules=[HOOK, 'registers.mine']), dict(model='resnet18.a1_in1k'),
    dict(model_kwargs=dict(drop_block_start_rate=0.1, aa_size=0), drop_block=0.2),
    dict(dataset='torch/cifar10', data_dir='not/yet/downloaded'), dict(dataset='hfds/user/name', data_dir=None),
    dict(data_dir='', data='.'), dict(data_dir=__file__)])
def test_arguments_that_train_py_accepts_are_accepted(args):
    bind(script_of(**args))


@pytest.mark.parametrize('name', NEEDED)
def test_script_without_a_name_is_rejected(name, capsys):
    script = script_of()
    delattr(script, name)
    assert f'must be the train.py of timm 1.0.25 or newer, got train without {name}' in message_of(capsys, bind, script)


@pytest.mark.parametrize('mixed', [True, False])
@pytest.mark.parametrize('prefetcher', [True, False])
def test_stored_logits_reach_the_loss(mixed, prefetcher):
    """Through the script's calls."""
    script = script_of(kd_model_name=STORED)
    bind(script)
    model = script.create_model('test_assemble_resnet', num_classes=CLASSES)
    mixup_args = dict(mixup_alpha=0.4, mode='elem', label_smoothing=0.1, num_classes=CLASSES)
    mixup_fn = script.Mixup(**mixup_args) if mixed and not prefetcher else None
    loader = script.create_loader(
        images(), input_size=(3, 32, 32), batch_size=4, is_training=True, no_aug=True, num_workers=0,
        collate_fn=script.FastCollateMixup(**mixup_args) if mixed and prefetcher else None, use_prefetcher=prefetcher,
        device=torch.device('cpu'))
    task = script.LogitDistillationTask(
        student_model=model, teacher_model=STORED, loss_type='kl', distill_loss_weight=None, task_loss_weight=0.25,
        criterion=SoftTargetCrossEntropy() if mixed else torch.nn.CrossEntropyLoss(), temperature=1.0, verbose=False,
        device=torch.device('cpu'), dtype=None)
    assert isinstance(task, StoredLogitsDistillationTask) and task.distill_loss_weight == 0.75
    for x, target in loader:
        if mixup_fn is not None:
            x, target = mixup_fn(x, target)
        result = task(x, target)
        assert set(result) == {'loss', 'output', 'task_loss', 'kd_loss'} and result['loss'].isfinite()
        result['loss'].backward()
    validation = script.create_loader(images(), input_size=(3, 32, 32), batch_size=4, device=torch.device('cpu'))
    assert isinstance(validation.dataset, FakeData)
    assert (script.Mixup, script.FastCollateMixup) == (TeacherMixup, TeacherCollateMixup)


@pytest.mark.parametrize('classes, count, message', [
    (6, 8, 'num_classes must be 5, '), (None, 7, 'got 7 samples instead of 8')])
def test_other_training_data_is_rejected(classes, count, message, capsys):
    script = script_of(kd_model_name=STORED, num_classes=classes)
    bind(script)
    script.create_model('test_assemble_resnet', num_classes=CLASSES)
    assert message in message_of(capsys, script.create_loader, images(count), input_size=(3, 32, 32), batch_size=4,
                                 is_training=True)


def views_loader(script, dataset=None, **change):
    transform = dict(input_size=(3, 32, 32), scale=(0.3, 1.0), interpolation='bilinear', **change)
    script.create_model('test_assemble_resnet', num_classes=CLASSES)
    return script.create_loader(dataset or images(), batch_size=4, is_training=True, num_workers=0,
                                device=torch.device('cpu'), **transform)


@pytest.fixture
def views():
    store_teacher_views(timm.create_model('test_assemble_resnet', num_classes=CLASSES), 't', images(), 'views',
                        dict(input_size=(3, 32, 32), scale=(0.3, 1.0)), 3, workers=0, progress=False)


def test_stored_views_reach_the_loader(views):
    """The epoch is set as train.py sets it; every view comes once."""
    script = script_of(kd_model_name='views:views')
    bind(script)
    loader = views_loader(script)
    assert isinstance(loader.dataset, ViewDataset) and script.Mixup is TeacherMixup
    rows = []
    for epoch in range(3):
        loader.dataset.set_epoch(epoch)
        rows += [row for _, target in loader for row in target[:, 1:].tolist()]
    store = loader.dataset.store
    expected = [store.probabilities(i, view).tolist() for i in range(8) for view in range(3)]
    assert sorted(rows) == sorted(expected)


@pytest.mark.parametrize('teacher, described', [
    (dict(name='tf_efficientnet_b7.aa_in1k'), 'tf_efficientnet_b7.aa_in1k, 3 stored views'),
    (dict(name='local-dir:/home/me/b7'), 'a model from a folder, 3 stored views'),
    (dict(name='a + b', teachers=[dict(name='a', weight=2 / 3), dict(name='b', weight=1 / 3)]),
     '0.67 a + 0.33 b, 3 stored views')])
def test_checkpoints_name_the_teacher(views, teacher, described):
    info = json.loads(Path('views/store.json').read_text())
    Path('views/store.json').write_text(json.dumps({**info, 'teacher': teacher}))
    script = script_of(kd_model_name='views:views')
    bind(script)
    args, _ = script._parse_args()
    script.train_one_epoch(0, torch.nn.Identity(), [], None, args)
    assert args.kd_teacher == described


def test_repeated_augmentation_has_different_views(views, monkeypatch):
    monkeypatch.setattr('timm.data.loader.RepeatAugSampler', functools.partial(
        RepeatAugSampler, num_replicas=1, rank=0, selected_ratio=0.5))
    script = script_of(kd_model_name='views:views')
    bind(script)
    loader = views_loader(script, num_aug_repeats=2, distributed=True)
    for epoch in range(2):
        loader.dataset.set_epoch(epoch)
        rows = [tuple(row) for _, target in loader for row in target[:, 1:].tolist()]
        assert len(rows) == 16 == len({*rows})


@pytest.mark.parametrize('dataset, change, message', [
    (None, dict(hflip=0.2), 'transform must be that of views, `hflip` 0.5, got 0.2'),
    (None, dict(auto_augment='original', mean=(0.5,) * 3), '`auto_augment` None, got original'),
    (images(7), {}, 'got 7 samples instead of 8'),
    (FakeData(8, (3, 32, 32), CLASSES, random_offset=9), {}, 'dataset must give the pixels that the teacher saw')])
def test_views_of_another_training_are_rejected(views, dataset, change, message, capsys):
    script = script_of(kd_model_name='views:views')
    bind(script)
    assert message in message_of(capsys, views_loader, script, dataset, **change)


def test_images_that_changed_are_found_before_training(views, capsys, monkeypatch):
    """Here the pixels of every view, as by another version of an image library."""
    script = script_of(kd_model_name='views:views')
    bind(script)
    monkeypatch.setattr('timm_assemble.training.view_dataset.checksum', lambda image: 1)
    error = message_of(capsys, views_loader, script)
    assert 'dataset must give the pixels that the teacher saw, got others for 8 of 8 images, such as sample 0' in error


@pytest.fixture
def mixed_views():
    store_teacher_views(timm.create_model('test_assemble_resnet', num_classes=CLASSES), 't', images(), 'mixed',
                        dict(input_size=(3, 32, 32), scale=(0.3, 1.0)), 2, workers=0, progress=False,
                        mixing=dict(mixup=0.2))


def test_mixed_views_are_not_mixed_again(mixed_views):
    """train.py's mixup says only what the store must be of; labels are smoothed."""
    script = script_of(kd_model_name='views:mixed', mixup=0.2)
    bind(script)
    assert script.Mixup(mixup_alpha=0.2) is None and script.FastCollateMixup(mixup_alpha=0.2) is None
    loader = views_loader(script)
    loader.dataset.set_epoch(1)
    for images_, target in loader:
        assert images_.shape == (4, 3, 32, 32) and target.shape == (4, 2 * CLASSES)
        torch.testing.assert_close(target.view(4, 2, CLASSES).sum(2), torch.ones(4, 2))
        assert target[:, :CLASSES].min().item() == pytest.approx(0.1 / CLASSES)


@pytest.mark.parametrize('args, message', [
    ({}, 'transform must be that of mixed, `mixup` 0.2, got None'), (dict(mixup=0.3), '`mixup` 0.2, got 0.3'),
    (dict(mixup=0.2, mixup_off_epoch=3), 'mixup_off_epoch must be 0 with stored views of mixed images, got 3'),
    (dict(mixup=0.2, mixup_mode='half'), 'mixup_mode must be batch, pair or elem with stored views of mixed ')])
def test_mixed_views_of_another_training_are_rejected(mixed_views, args, message, capsys):
    script = script_of(kd_model_name='views:mixed', **args)

    def start():
        bind(script)
        views_loader(script)
    assert message in message_of(capsys, start)


def test_changing_rate_and_mixup_compile_one_graph_once():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('eager')
    model = timm.create_model(
        'test_assemble_resnet', num_classes=CLASSES, drop_block_rate=0.2, layers=(1, 1, 1, 1), big_little=(),
        shortcut='d')
    task = StoredLogitsDistillationTask(model, SoftTargetCrossEntropy(), verbose=False)
    task.compile(backend=counter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    mixup = TeacherMixup(mixup_alpha=0.4, mode='elem', num_classes=CLASSES)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(20):
            model.set_drop_block_rate(drop_block_schedule(step, 20, 0.0, 0.2))
            labels, probs = torch.randint(CLASSES, (4,)), torch.randn(4, CLASSES).softmax(1)
            result = task(*mixup(torch.randn(4, 3, 64, 64), pack_targets(labels, probs)))
            result['loss'].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert counter.frame_count == 1
