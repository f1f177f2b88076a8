"""Recipes: the techniques of each row, what train.py makes of them, and configurations with mistakes."""
import ast
import os
import re
import runpy
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from timm.data.loader import ScheduledBatchSampler
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs

from timm_assemble.recipes import FOLDER, check_keys, read_config, read_recipe, recipe_names, recipe_path
from timm_assemble.recipes.budget import estimate
from timm_assemble.recipes.paper import FINE_TUNING_TOP1, NEAREST, ROWS, UNPUBLISHED
from timm_assemble.training import ViewInfo

from .. import _official

# name of the recipe, its row and the techniques of its training
LS, MIXUP, DROP_BLOCK, KD, AA = 'label smoothing', 'mixup', 'DropBlock', 'distillation', 'AutoAugment'
E5 = {LS, MIXUP, DROP_BLOCK}
RECIPES = {
    'e00_resnet50': ('E0', set()), 'e01_resnet50_d': ('E1', set()), 'e02_resnet50_d_smoothing': ('E2', {LS}),
    'e03_resnet50_d_mixup': ('E3', {LS, MIXUP}), 'e04_resnet50_d_se': ('E4', {LS, MIXUP}),
    'e05_resnet50_d_se_dropblock': ('E5', E5), 'e06_resnet50_d_sk': ('E6', E5),
    'e07_resnet50_d_sk_kd': ('E7', E5 | {KD}), 'e08_resnet50_d_sk_kd_600': ('E8', E5 | {KD}),
    'e09_resnet50_bl_sk': ('E9', E5 | {KD}), 'e10_assemble_resnet50': ('E10', E5 | {KD}),
    'assemble_resnet50': ('E11', E5 | {KD, AA}), 'assemble_resnet152': ('E12', E5 | {KD, AA}),
    'm0_mobilenet': ('M0', set()), 'm1_mobilenet_se16': ('M1', set()), 'm2_mobilenet_smoothing': ('M2', {LS}),
    'm3_mobilenet_mixup': ('M3', {LS, MIXUP}), 'm4_mobilenet_kd': ('M4', {LS, MIXUP, KD}),
    'm5_mobilenet_kd_360': ('M5', {LS, MIXUP, KD}), 'm6_mobilenet_se16_kd': ('M6', {LS, MIXUP, KD}),
    'm7_mobilenet_se2_kd': ('M7', {LS, MIXUP, KD}), 'assemble_mobilenet_se2': ('M8', E5 | {KD}),
    'assemble_resnet50_views': ('E11 with views', E5 | {KD, AA}),
    'assemble_resnet152_views': ('E12 with views', E5 | {KD, AA}),
    'assemble_resnet50_food101': ('Food-101', E5), 'assemble_resnet50_cars': ('Stanford Cars', E5),
    'assemble_resnet50_flowers': ('Oxford-Flowers', E5), 'assemble_resnet50_aircraft': ('FGVC Aircraft', E5),
    'assemble_resnet50_pets': ('Oxford-IIIT Pets', E5),
}
# not the paper's: row, and what their sources name
MODERN = {  # images per update, epochs, peak learning rate, weight decay, RandAugment
    'a1': ('A1', (2048, 600, 0.005, 0.01, 'rand-m7-mstd0.5-inc1')),
    'a2': ('A2', (2048, 300, 0.005, 0.02, 'rand-m7-mstd0.5-inc1')),
    'a3': ('A3', (2048, 100, 0.008, 0.02, 'rand-m6-mstd0.5-inc1')),
    'ra4': ('RA4', (4096, 3600, 0.002, 0.01, 'rand-m9-n2-p0.5-inc1')),
    'one_gpu_16': ('One GPU, 16', (1024, 16, 0.4, 0.0001, None)),
    'one_gpu_100': ('One GPU, 100', (2048, 100, 0.008, 0.02, 'rand-m6-mstd0.5-inc1')),
    'fixres': ('FixRes', (512, 4, 0.001, 0.0001, None)),
}
NAMES = [name for name in RECIPES if RECIPES[name][0] not in FINE_TUNING_TOP1]
NAMES += [*MODERN, *(name for name in RECIPES if name not in NAMES)]  # in the order of the list
FOOD = 'assemble_resnet50_food101'
FINE_TUNINGS = [name for name, (row, _) in RECIPES.items() if row in FINE_TUNING_TOP1]
KD_NAME = ('logits:teacher', 'views:views')
with_scripts = pytest.mark.skipif(not os.environ.get('TIMM_SCRIPTS'), reason="needs timm's train.py: set TIMM_SCRIPTS")


def test_every_row_of_the_paper_has_its_recipe():
    assert recipe_names() == NAMES
    recipes = [read_recipe(name) for name in NAMES]
    assert [recipe.row for recipe in recipes] == [(RECIPES | MODERN)[name][0] for name in NAMES]
    assert [recipe.row for recipe in recipes] == [*ROWS, *UNPUBLISHED, *NEAREST, *FINE_TUNING_TOP1]
    for recipe, row in zip(recipes, ROWS.values()):
        assert (recipe.model, recipe.epochs) == (row.model, row.epochs)


def test_recipe_has_the_papers_numbers_as_text():
    assert read_recipe('e03_resnet50_d_mixup')[5:] == ('79.10', '68.19', '493', '224', None)
    assert read_recipe('assemble_mobilenet_se2')[4:] == (900, '77.30', '68.12', '', '224', None)
    assert read_recipe(FOOD) == (FOOD, 'Food-101', 'Fine-tuning of Assemble-ResNet-50, without distillation',
                                 'assemble_resnet50', 100, '92.5', '', '', '', None)
    assert read_recipe('a1')[5:] == ('', '', '', '', NEAREST['A1'])


@pytest.mark.parametrize('name', RECIPES)
def test_training_has_the_techniques_of_its_row(name):
    config, (row, techniques) = read_config(recipe_path(name)), RECIPES[name]
    assert config['smoothing'] == (0.1 if LS in techniques else 0)
    assert (config.get('mixup'), config.get('mixup_mode')) == ((0.2, 'elem') if MIXUP in techniques else (None, None))
    assert config.get('drop_block') == (None if DROP_BLOCK not in techniques else 0.3 if name in FINE_TUNINGS else 0.1)
    assert (config.get('kd_model_name'), config.get('kd_temperature')) == (
        (KD_NAME[row in UNPUBLISHED], 1) if KD in techniques else (None, None))
    assert config.get('aa') == ('official-good' if name in FINE_TUNINGS else 'official' if AA in techniques else None)
    assert config['device_modules'] == ['timm_assemble.train_hook']
    assert config['opt'] == 'momentum' and config['momentum'] == 0.9
    if row.startswith('M'):  # no code of the MobileNets was published
        assert config['scale'] == [0.05, 1] and config['ratio'] == [0.75, 1.33]
        assert config['train_interpolation'] == 'bilinear'
    else:
        assert config['train_crop_mode'] == config['interpolation'] == 'official'
    assert config['hflip'] == 0.5 and config['color_jitter'] == 0
    assert (8 * config['batch_size'], _peak(config), config['weight_decay'], config['bn_momentum']) == (
        (256, 0.01, 0.001, 0.034) if name in FINE_TUNINGS else (1024, 0.4, 0.0001, 0.003))
    head = recipe_path(name).read_text().split('\nmodel:')[0]
    assert f'-c {name} ' in head and ('teacher-logits' in head) == (KD in techniques)
    assert ('timm-assemble run validate.py' in head) == (ROWS.get(row.split()[0], ROWS['E0']).test_size == 256)


def _peak(config, gpus=8):
    """Learning rate that train.py computes from lr_base."""
    assert 'lr' not in config
    ratio = gpus * config['batch_size'] * config['grad_accum_steps'] / config['lr_base_size']
    return config['lr_base'] * {'linear': ratio, 'sqrt': ratio ** 0.5}[config['lr_base_scale']]


@pytest.mark.parametrize('name', MODERN)
def test_modern_training_is_its_sources(name):
    config, (row, (batch, epochs, rate, decay, augment)) = read_config(recipe_path(name)), MODERN[name]
    text = recipe_path(name).read_text()
    head = text.split('\nmodel:')[0].replace('\n# ', ' ')
    gpus = 8 if 'torchrun --nproc-per-node 8' in head else 1
    assert gpus * config['batch_size'] * config['grad_accum_steps'] == batch and f'# {batch} images per update' in text
    assert (config['epochs'], config['weight_decay'], config.get('aa')) == (epochs, decay, augment)
    assert _peak(config, gpus) == pytest.approx(rate)
    assert (config.get('bce_loss'), config.get('bce_target_thresh'), config['opt']) == (
        (True, 0.2, 'lamb') if rate in (0.005, 0.008) else (None, None, 'adamw' if name == 'ra4' else 'momentum'))
    assert config.get('cutmix') == (1 if config.get('mixup') else None)
    hours = estimate(name).gpu_hours
    assert f'Cost: {hours:.{0 if hours >= 10 else 1}f} hours of an H200, estimated' in head
    assert 'No one has measured it on ImageNet with this network.' in head and f'-c {name} ' in head
    assert 'Source: ' in head and f'{NEAREST[row].top1} %' in head and 'With a teacher: ' in head


def test_growing_sizes_are_of_a_schedule_that_train_py_has():
    """A third of the epochs at each size, and repeated augmentation only where the command has several processes."""
    for name in MODERN:
        config, head = read_config(recipe_path(name)), recipe_path(name).read_text().split('\nmodel:')[0]
        assert ('torchrun' in head) == (not name.startswith(('one_gpu', 'fixres')))
        assert not config.get('aug_repeats') or 'torchrun' in head
        if 'train_img_sizes' in config:
            choices, epochs = config['train_img_sizes'], config['epochs']
            sampler = ScheduledBatchSampler(
                range(1024), [config['batch_size']] * len(choices), num_batches=4, schedule_epochs=epochs,
                choice_schedule=config['train_size_schedule'], schedule_spread=config['train_size_schedule_spread'],
                schedule_random_mix=config['train_size_random_mix'])
            sizes = []
            for epoch in range(epochs):
                sampler.set_epoch(epoch)
                [size] = {choices[choice] for choice, _ in sampler.schedule}
                sizes.append(size)
            assert sizes == sorted(sizes)
            assert all(abs(3 * sizes.count(size) - epochs) <= epochs / 2 for size in choices)


def test_fixres_trains_the_classifier_alone():
    args = Namespace(lr=0.1, **read_config(recipe_path('fixres')))
    model = timm.create_model('test_assemble_resnet', num_classes=3)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(args))
    trained = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert trained == {id(p) for p in model.get_classifier().parameters()}
    assert all(p.requires_grad == (id(p) in trained) for p in model.parameters())
    assert {group['lr_scale'] for group in optimizer.param_groups} == {1}


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
    """At the same fraction of the steps after warm-up: 600 epochs are 750,683 official steps and 600 x 1251 here."""
    golden = _official.TRAINING['lr_cosine_b1024_lr0.4_w5_e600']
    scheduler, group, epochs = _scheduler('assemble_resnet50', 1251)
    assert epochs == 600 and group['lr'] == golden['0']
    warm_up, end = 6255, 750683
    for step, rate in golden.items():
        step = int(step)
        if step > warm_up:
            step = warm_up + (step - warm_up) / (end - warm_up) * (600 * 1251 - warm_up)
        scheduler.step_update(step)
        assert group['lr'] == pytest.approx(rate, rel=1e-6, abs=1e-8), step


def test_recipe_with_views_says_what_their_store_takes():
    info = ViewInfo({}, {}, dict(count=1_281_167), 1000, 10, views=50)
    record = info.arrays()['view-0000'][1].itemsize
    head = recipe_path('assemble_resnet152_views').read_text().split('\nmodel:')[0]
    assert f'writes {50 * record * info.count / 1e9:.1f} GB' in head.replace('\n# ', ' ')
    assert f'50 views of {info.count:,} images at {record} bytes' in head


@pytest.mark.parametrize('name', RECIPES)
def test_learning_rate_rises_linearly_and_falls_as_a_cosine(name):
    scheduler, group, epochs = _scheduler(name, 10)
    assert epochs == read_recipe(name).epochs and group['lr'] == 0
    peak = _peak(read_config(recipe_path(name)))
    for step, rate in ((25, peak / 2), (50, peak), (5 * (5 + epochs), peak / 2), (10 * epochs, 0)):
        scheduler.step_update(step)
        assert group['lr'] == pytest.approx(rate, abs=1e-9)


def test_models_are_created_with_the_recipes_arguments():
    """As in train.py; the hook removes ``drop_block_start_rate``."""
    for config in (read_config(recipe_path(name)) for name in NAMES):
        kwargs = dict(num_classes=config.get('num_classes'), drop_block_rate=config.get('drop_block'),
                      drop_path_rate=config.get('drop_path'), bn_momentum=config.get('bn_momentum'),
                      **config.get('model_kwargs', {}))
        start = kwargs.pop('drop_block_start_rate', 0.0)
        assert 0 <= start <= (config.get('drop_block') or 0)
        model = timm.create_model(config['model'], device='meta', **kwargs)
        assert model.num_classes == config.get('num_classes', 1000)


@with_scripts
@pytest.mark.parametrize('name', NAMES)
def test_train_py_accepts_every_key_and_value(name):
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


KNOWN = ('batch_size', 'lr', 'opt', 'sched', 'epochs', 'warmup_lr', 'warmup_epochs', 'smoothing', 'mixup',
         'mixup_off_epoch', 'model', 'model_ema', 'drop_block')


@pytest.mark.parametrize('key, meant', [
    ('batch-size', '; did you mean batch_size?'), ('smoothign', '; did you mean smoothing?'),
    ('num_epochs', '; did you mean epochs?'), ('dropblock', '; did you mean drop_block?'),
    ('mixup_off_epochs', '; did you mean mixup_off_epoch?'), ('zzz', ''), ('', '')])
def test_unknown_key_names_the_nearest(key, meant):
    with pytest.raises(ValueError) as e:
        check_keys([*KNOWN, key], iter(KNOWN), 'mine.yaml')
    assert str(e.value) == f'config mine.yaml has the unknown argument {key!r}{meant}'


@pytest.mark.parametrize('text, message', [
    (None, 'cannot be read: No such file or directory'),
    ('', 'must map argument names to values, got an empty file'),
    ('- lr\n- 0.1\n', 'must map argument names to values, got list'),
    ('on: 0.1\n', 'must map argument names to values, got the name True'),
    ('lr: [0.1\n', 'must be YAML: while parsing a flow sequence'),
    ('lr: !!python/object:os.system x\n', 'must be YAML: could not determine a constructor'),
    (b'\xff\xfe\x00', 'must be YAML: '),
])
def test_file_without_a_configuration_is_one_line(tmp_path, text, message):
    path = tmp_path / 'mine.yaml'
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f'config {re.escape(str(path))} {message}') as e:
        read_config(path)
    assert '\n' not in str(e.value)


def test_recipe_is_found_by_its_name_alone():
    for name in ('assemble_resnet50', 'assemble_resnet50.yaml'):
        assert recipe_path(name) == FOLDER / 'assemble_resnet50.yaml'
    with pytest.raises(ValueError, match="must be a recipe, got 'asemble_resnet50'; did you mean assemble_resnet50,"):
        recipe_path('asemble_resnet50')
    for name in ('../../secret', '../recipes/assemble_resnet50', ''):
        with pytest.raises(ValueError, match=f"name must be a recipe, got '{name}'; "):
            recipe_path(name)


def test_data_files_are_packaged():
    package = FOLDER.parent
    patterns = ast.literal_eval(re.search(
        r'^timm_assemble = (\[.*\])$', (package.parent / 'pyproject.toml').read_text(), re.MULTILINE)[1])
    files = {path for path in package.rglob('*.*') if path.suffix not in ('.py', '.pyc')}
    assert files == {path for pattern in patterns for path in package.glob(pattern)} and len(files) > 14
