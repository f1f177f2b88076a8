"""Recipes: what the paper says of each row, what train.py makes of them, and configurations with a mistake in them."""
import os
import re
import runpy
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

from docs import recipe_table
from timm_assemble.recipes import FOLDER, check_keys, read_config, read_recipe, recipe_names, recipe_path

from .. import _official

# name, then the paper's table: row, model, epochs, top-1, mCE, images/s, test size, and of what its training consists
LS, MIXUP, DROP_BLOCK, KD, AA = 'label smoothing', 'mixup', 'DropBlock', 'distillation', 'AutoAugment'
E5 = {LS, MIXUP, DROP_BLOCK}
PAPER = {
    'e00_resnet50': ('E0', 'assemble_resnet50_base', 120, '76.87', '75.55', '536', '224', set()),
    'e01_resnet50_d': ('E1', 'assemble_resnet50_d', 120, '77.37', '75.73', '493', '224', set()),
    'e02_resnet50_d_smoothing': ('E2', 'assemble_resnet50_d', 120, '78.35', '74.27', '493', '224', {LS}),
    'e03_resnet50_d_mixup': ('E3', 'assemble_resnet50_d', 200, '79.10', '68.19', '493', '224', {LS, MIXUP}),
    'e04_resnet50_d_se': ('E4', 'assemble_resnet50_d_se', 200, '79.71', '64.48', '420', '224', {LS, MIXUP}),
    'e05_resnet50_d_se_dropblock': ('E5', 'assemble_resnet50_d_se', 270, '80.40', '62.64', '420', '224', E5),
    'e06_resnet50_d_sk': ('E6', 'assemble_resnet50_d_sk', 270, '81.40', '58.34', '359', '224', E5),
    'e07_resnet50_d_sk_kd': ('E7', 'assemble_resnet50_d_sk', 270, '81.69', '57.08', '359', '224', E5 | {KD}),
    'e08_resnet50_d_sk_kd_600': ('E8', 'assemble_resnet50_d_sk', 600, '82.10', '56.48', '359', '224', E5 | {KD}),
    'e09_resnet50_bl_sk': ('E9', 'assemble_resnet50_bl_sk', 600, '82.44', '55.20', '359', '256', E5 | {KD}),
    'e10_assemble_resnet50': ('E10', 'assemble_resnet50', 600, '82.69', '54.12', '312', '256', E5 | {KD}),
    'assemble_resnet50': ('E11', 'assemble_resnet50', 600, '82.78', '48.89', '312', '256', E5 | {KD, AA}),
    'assemble_resnet152': ('E12', 'assemble_resnet152', 600, '84.19', '43.27', '143', '256', E5 | {KD, AA}),
    'assemble_resnet50_food101': ('Food-101', 'assemble_resnet50', 100, '92.5', '', '', '', E5),
}
ROWS = list(PAPER)[:-1]
FOOD = 'assemble_resnet50_food101'
with_scripts = pytest.mark.skipif(not os.environ.get('TIMM_SCRIPTS'), reason="needs timm's train.py: set TIMM_SCRIPTS")


def test_every_row_of_the_paper_has_its_recipe():
    assert recipe_names() == list(PAPER)
    assert {f.stem for f in FOLDER.iterdir() if f.suffix == '.yaml'} == set(PAPER)
    for name, (row, model, epochs, top1, mce, images_per_s, test_size, _) in PAPER.items():
        assert read_recipe(name) == (name, row, model, epochs, top1, mce, images_per_s, test_size)


@pytest.mark.parametrize('name', PAPER)
def test_training_is_that_of_the_row(name):
    config, parts = read_config(recipe_path(name)), PAPER[name][-1]
    assert config['smoothing'] == (0.1 if LS in parts else 0)
    assert (config.get('mixup'), config.get('mixup_mode')) == ((0.2, 'elem') if MIXUP in parts else (None, None))
    assert config.get('drop_block') == (None if DROP_BLOCK not in parts else 0.3 if name == FOOD else 0.1)
    assert (config.get('kd_model_name'), config.get('kd_temperature')) == (
        ('logits:teacher', 1) if KD in parts else (None, None))
    assert config.get('aa') == ('original' if AA in parts else None)
    assert config['device_modules'] == ['timm_assemble.train_hook']
    assert config['opt'] == 'momentum' and config['momentum'] == 0.9
    assert config['scale'] == [0.05, 1] and config['ratio'] == [0.75, 1.33] and config['hflip'] == 0.5
    assert config['train_interpolation'] == 'bilinear' and config['color_jitter'] == 0
    assert (8 * config['batch_size'], _peak(config), config['weight_decay'], config['bn_momentum']) == (
        (256, 0.01, 0.001, 0.034) if name == FOOD else (1024, 0.4, 0.0001, 0.003))
    head = recipe_path(name).read_text().split('\nmodel:')[0]
    assert f'-c {name} ' in head and ('teacher-logits' in head) == (KD in parts)
    assert ('timm-assemble run validate.py' in head) == (PAPER[name][6] == '256')


def _peak(config):
    """As train.py makes the rate of lr_base, on the 8 GPUs that the recipes are for."""
    assert 'lr' not in config and config['lr_base_scale'] == 'linear'
    return config['lr_base'] * 8 * config['batch_size'] * config['grad_accum_steps'] / config['lr_base_size']


def test_plain_momentum_is_not_nesterov():
    args = Namespace(lr=0.4, **read_config(recipe_path('assemble_resnet50')))
    optimizer = create_optimizer_v2([torch.nn.Parameter(torch.zeros(1))], **optimizer_kwargs(args))
    assert type(optimizer) is torch.optim.SGD and not optimizer.defaults['nesterov']
    assert optimizer.defaults['momentum'] == 0.9


def _scheduler(name, updates_per_epoch):
    args = Namespace(**read_config(recipe_path(name)))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=_peak(vars(args)))
    scheduler, epochs = create_scheduler_v2(
        optimizer, **scheduler_kwargs(args), updates_per_epoch=updates_per_epoch)
    return scheduler, optimizer.param_groups[0], epochs


def test_learning_rate_is_the_official_one():
    """At the same part of the rest after the warm-up: 600 epochs are 750,683 official steps and 600 x 1251 here."""
    golden = _official.TRAINING['lr_cosine_b1024_lr0.4_w5_e600']
    scheduler, group, epochs = _scheduler('assemble_resnet50', 1251)
    assert epochs == 600
    assert group['lr'] == golden['0']
    warm_up, end = 6255, 750683
    for step, rate in golden.items():
        step = int(step)
        if step > warm_up:
            step = warm_up + (step - warm_up) / (end - warm_up) * (600 * 1251 - warm_up)
        scheduler.step_update(step)
        assert group['lr'] == pytest.approx(rate, rel=1e-6, abs=1e-8), step


@pytest.mark.parametrize('name', PAPER)
def test_learning_rate_of_every_recipe(name):
    scheduler, group, epochs = _scheduler(name, 10)
    assert epochs == PAPER[name][2] and group['lr'] == 0
    peak = _peak(read_config(recipe_path(name)))
    for step, rate in ((25, peak / 2), (50, peak), (5 * (5 + epochs), peak / 2), (10 * epochs, 0)):
        scheduler.step_update(step)
        assert group['lr'] == pytest.approx(rate, abs=1e-9)


def test_models_can_be_made():
    """As train.py makes them; where the rate of DropBlock starts is the hook's, which takes it out."""
    configs = [read_config(recipe_path(name)) for name in PAPER]
    made = set()
    for config in configs:
        assert timm.is_model(config['model'])
        kwargs = dict(num_classes=config.get('num_classes'), drop_block_rate=config.get('drop_block'),
                      bn_momentum=config['bn_momentum'], **config.get('model_kwargs', {}))
        start = kwargs.pop('drop_block_start_rate', 0.0)
        assert 0 <= start <= (config.get('drop_block') or 0)
        key = (config['model'], *kwargs.items())
        if key not in made:
            made.add(key)
            model = timm.create_model(config['model'], device='meta', **kwargs)
            assert model.num_classes == config.get('num_classes', 1000)


def test_weights_for_fine_tuning_may_have_other_classes(tmp_path):
    """What the header says of --pretrained --pretrained-path, with what train.py makes of them."""
    trained = timm.create_model('test_assemble_resnet', num_classes=5)
    torch.save(dict(state_dict=trained.state_dict(), arch='test_assemble_resnet'), tmp_path / 'model_best.pth.tar')
    model = timm.create_model(
        'test_assemble_resnet', pretrained=True, num_classes=101,
        pretrained_cfg_overlay=dict(file=str(tmp_path / 'model_best.pth.tar'), num_classes=-1))
    assert torch.equal(model.stem[0].conv.weight, trained.stem[0].conv.weight)
    assert model.get_classifier().weight.shape[0] == 101
    with pytest.raises(RuntimeError, match='size mismatch'):
        timm.create_model('test_assemble_resnet', num_classes=101, checkpoint_path=str(tmp_path / 'model_best.pth.tar'))


@with_scripts
@pytest.mark.parametrize('name', PAPER)
def test_train_py_takes_every_key_and_value(name):
    parser = runpy.run_path(str(Path(os.environ['TIMM_SCRIPTS']) / 'train.py'), run_name='train')['parser']
    actions = {action.dest: action for action in parser._actions}
    config = read_config(recipe_path(name))
    check_keys(config, actions, name)
    for key, value in config.items():
        action = actions[key]
        for item in value if action.nargs == '+' else [value]:
            assert action.type is None or (action.type(str(item)) == item and type(item) is action.type), key
            assert action.choices is None or item in action.choices, key
        if action.const is True:
            assert value is True, key
    parser.set_defaults(**config)
    args = parser.parse_args([])
    assert {key: getattr(args, key) for key in config} == config


KNOWN = ('batch_size', 'lr', 'lr_base', 'opt', 'sched', 'epochs', 'warmup_lr', 'warmup_epochs', 'weight_decay',
         'aa', 'smoothing', 'mixup', 'mixup_off_epoch', 'mixup_prob', 'model', 'model_ema', 'decay_rate',
         'drop', 'drop_block')


@pytest.mark.parametrize('key, meant', [
    ('learning_rate', 'lr'), ('batch-size', 'batch_size'), ('--lr', 'lr'), ('LR', 'lr'), ('smoothign', 'smoothing'),
    ('mixup_alpha', 'mixup'), ('label_smoothing', 'smoothing'), ('num_epochs', 'epochs'), ('ema', 'model_ema'),
    ('optimizer', 'opt'), ('scheduler', 'sched'), ('dropblock', 'drop_block'), ('wd', 'weight_decay'),
    ('auto_augment', 'aa'), ('bs', 'batch_size'), ('drop_block_rate', 'drop_block'), ('epoch', 'epochs'),
])
def test_wrong_key_names_the_nearest_right_one(key, meant):
    with pytest.raises(ValueError) as e:
        check_keys(['mixup', key], KNOWN, 'mine.yaml')
    assert str(e.value) == f'mine.yaml: {key!r} is no argument of the script; did you mean {meant!r}?'


@pytest.mark.parametrize('key', ['zzz', True, 1, ''])
def test_wrong_key_that_is_near_to_nothing(key):
    with pytest.raises(ValueError, match=f'mine.yaml: {key!r} is no argument of the script$'):
        check_keys([key], KNOWN, 'mine.yaml')


def test_right_keys_pass():
    check_keys(KNOWN, iter(KNOWN), 'mine.yaml')
    check_keys([], (), 'mine.yaml')


@pytest.mark.parametrize('text, message', [
    (None, 'cannot be read: No such file or directory'),
    ('', 'must be a mapping of argument names to values, got an empty file'),
    ('- lr\n- 0.1\n', 'must be a mapping of argument names to values, got list'),
    ('lr: [0.1\n', 'must be YAML: while parsing a flow sequence'),
    ('lr: !!python/object:os.system x\n', 'must be YAML: could not determine a constructor'),
    (b'\xff\xfe\x00', 'must be YAML: '),
])
def test_configuration_that_is_none(tmp_path, text, message):
    path = tmp_path / 'mine.yaml'
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f'configuration {re.escape(str(path))} {message}') as e:
        read_config(path)
    assert '\n' not in str(e.value)


def test_recipe_path():
    for name in ('assemble_resnet50', 'assemble_resnet50.yaml'):
        assert recipe_path(name) == FOLDER / 'assemble_resnet50.yaml'
    with pytest.raises(ValueError, match="no recipe has the name 'asemble_resnet50'; did you mean assemble_resnet50,"):
        recipe_path('asemble_resnet50')
    with pytest.raises(ValueError, match='`timm-assemble recipes` lists them'):
        recipe_path('../../secret')


def test_recipes_are_packaged():
    assert '[tool.setuptools.package-data]\ntimm_assemble = ["recipes/*.yaml"]\n' in Path('pyproject.toml').read_text()


def test_page_has_the_table():
    same = recipe_table.page() == recipe_table.PAGE.read_text(encoding='utf-8')
    assert same, 'the table in docs/recipes.md is not that of the recipes now: run `python -m docs.recipe_table`.'
    rows = [[cell.strip(' `') for cell in line.split('|')[1:-1]] for line in recipe_table.table().splitlines()[2:]]
    assert [row[0] for row in rows] == list(PAPER)
    for name, row, model, adds, *numbers in rows:
        assert (row, model) == PAPER[name][:2] and numbers == [str(n) or '-' for n in PAPER[name][2:7]] and adds
