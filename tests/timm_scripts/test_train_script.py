"""timm's own train.py with the hook, in real processes; from the folder in TIMM_SCRIPTS."""
import csv
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_assemble.training import drop_block_schedule

SCRIPTS = os.environ.get('TIMM_SCRIPTS')
pytestmark = pytest.mark.skipif(not SCRIPTS, reason="TIMM_SCRIPTS, a folder with timm's train.py, is not set")
CLASSES, PER_CLASS, SIZE, BATCH = 4, 16, 32, 8

# Modules for --device-modules, which record rates or make runs comparable in the script's own process.
RECORDING = '''
import os
from timm_assemble.models import assemble_resnet
original = assemble_resnet.AssembleResNet.set_drop_block_rate
file = os.environ['RATES'] + os.environ.get('RANK', '') + '.rates'

def recording(self, rate):
    with open(file, 'a') as f:
        f.write(f'{rate!r}\\n')
    original(self, rate)

assemble_resnet.AssembleResNet.set_drop_block_rate = recording
'''
# The script gives DDP a CPU device id, which torch rejects; batch norm and DropBlock make two halves of a batch differ
# from the whole; and one process draws another order than two.
COMPARABLE = '''
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import distributed
from timm_assemble.layers import drop_block

init = distributed.DistributedDataParallel.__init__
distributed.DistributedDataParallel.__init__ = lambda self, module, device_ids=None, **kwargs: init(
    self, module, **kwargs)
_BatchNorm.train = lambda self, mode=True: torch.nn.Module.train(self, False)
drop_block.drop_block_2d = lambda x, *args: x

class Sampler(torch.utils.data.distributed.DistributedSampler):
    def __init__(self, dataset, *args, **kwargs):
        super().__init__(dataset, num_replicas=1, rank=0)

torch.utils.data.dataloader.RandomSampler = Sampler
'''


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images, teacher rows for them, the script outside its checkout, and the modules of the tests beside it."""
    root = tmp_path_factory.mktemp('folder')
    rng = np.random.default_rng(0)
    for split, count in (('train', PER_CLASS), ('validation', 2)):
        for c in range(CLASSES):
            (root / 'data' / split / str(c)).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 100 + 40 * c, (SIZE, SIZE, 3), np.uint8)).save(
                    root / 'data' / split / str(c) / f'{i:02}.png')
    np.save(root / 'teacher.npy', rng.standard_normal((CLASSES * PER_CLASS, CLASSES)).astype(np.float16))
    shutil.copy(Path(str(SCRIPTS)) / 'train.py', root)
    (root / 'recording.py').write_text(RECORDING)
    (root / 'comparable.py').write_text(COMPARABLE)
    return root


def train(folder, name, *args, modules=('timm_assemble.train_hook',), launcher=(), status=0):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'RATES': str(folder / name),
                   'PYTHONPATH': os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')])}
    command = [
        *launcher, folder / 'train.py', '--device-modules', *modules, '--data-dir', folder / 'data', '--model',
        'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE, '--device', 'cpu', '--workers', 0,
        '--batch-size', BATCH, '--opt', 'momentum', '--lr', 0.05, '--epochs', 2, '--warmup-epochs', 0, '--log-interval',
        1, '--bn-momentum', 0.1, '--output', folder / 'output', '--experiment', name, *args]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=280,
                          env=environment, cwd=folder)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def rates(folder, name):
    return [float(line) for line in (folder / f'{name}.rates').read_text().split()]


def summary(folder, name):
    with open(folder / 'output' / name / 'summary.csv') as f:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(f)]


STORED = ('--kd-model-name', 'logits:teacher.npy', '--kd-temperature', 1)
TRACED = ('timm_assemble.train_hook', 'recording')


def test_every_update_has_its_rate_and_resuming_continues_it(folder):
    """With gradient accumulation."""
    args = ('--drop-block', 0.2, '--grad-accum-steps', 3, '--mixup', 0.2, '--mixup-mode', 'elem', *STORED)
    train(folder, 'whole', *args, modules=TRACED)
    expected = [drop_block_schedule(i, 6, 0.0, 0.2) for i in range(7)]  # 8 batches an epoch are 3 updates
    assert rates(folder, 'whole') == pytest.approx([*expected[:4], *expected[3:]])  # set after an update and at a start
    checkpoint = folder / 'output' / 'whole' / 'checkpoint-0.pth.tar'
    train(folder, 'resumed', *args, '--resume', checkpoint, modules=TRACED)
    assert rates(folder, 'resumed') == pytest.approx(expected[3:])


def test_fine_tuning_rate_begins_at_its_start(folder):
    train(folder, 'tuned', '--drop-block', 0.3, '--model-kwargs', 'drop_block_start_rate=0.1', modules=TRACED)
    assert rates(folder, 'tuned')[0] == pytest.approx(0.1) and rates(folder, 'tuned')[-1] == pytest.approx(0.3)
    assert torch.load(folder / 'output' / 'tuned' / 'last.pth.tar', weights_only=False)['args'].model_kwargs == {
        'drop_block_start_rate': 0.1}


def test_rate_is_constant_without_the_hook(folder):
    train(folder, 'plain', '--drop-block', 0.2, modules=('timm_assemble', 'recording'))
    assert not (folder / 'plain.rates').exists()


@pytest.mark.parametrize('args', [
    ('--no-prefetcher', '--mixup', 0.2), ('--no-prefetcher', '--smoothing', 0), ('--smoothing', 0.1),
    ('--mixup', 0.2, '--mixup-mode', 'half', '--workers', 1, '--mixup-off-epoch', 1),
    ('--amp', '--amp-dtype', 'bfloat16', '--channels-last'),
    ('--model-dtype', 'bfloat16', '--mixup', 0.2, '--cutmix', 1, '--model-ema'),
    ('--aug-splits', 2, '--jsd-loss', '--aa', 'augmix')])
def test_stored_logits_train_with_other_options(folder, args, request):
    name = request.node.name.replace('[', '-').rstrip(']')
    train(folder, name, '--epochs', 1, *args, *STORED)
    assert np.isfinite(summary(folder, name)[0]['train_loss'])


def test_two_ranks_have_the_losses_of_one_with_twice_the_batch(folder, monkeypatch):
    """And the same rates on both ranks."""
    monkeypatch.setenv('ATEN_CPU_CAPABILITY', 'default')  # AVX2's rounding depends on the batch size: 4e-4 at the end
    args = ('--no-aug', '--drop-block', 0.2, *STORED)
    modules = (*TRACED, 'comparable')
    train(folder, 'one', *args, '--batch-size', 2 * BATCH, modules=modules)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    train(folder, 'two', *args, modules=modules, launcher=(
        '-m', 'torch.distributed.run', '--nproc-per-node', 2, '--master-addr', '127.0.0.1', '--master-port', port))
    for one, two in zip(summary(folder, 'one'), summary(folder, 'two')):
        for key in ('train_loss', 'eval_loss'):
            assert two[key] == pytest.approx(one[key], rel=2e-5)
    assert rates(folder, 'two0') == rates(folder, 'two1') == rates(folder, 'one') and len(rates(folder, 'one')) == 10
    assert summary(folder, 'one')[1]['train_loss'] < summary(folder, 'one')[0]['train_loss']


def test_another_teacher_is_left_to_timm(folder):
    """timm creates it, and fails because it has no weights here."""
    done = train(folder, 'online', '--kd-model-name', 'test_assemble_resnet', status=1)
    assert "Creating KD teacher model: 'test_assemble_resnet'" in done.stderr


@pytest.mark.parametrize('args, message', [
    (('--kd-model-name', 'logits:'), "an .npy file, got '', which is empty"),
    ((*STORED, '--num-classes', 5), 'num_classes must be 4, the classes of teacher.npy, got 5'),
    ((*STORED, '--train-split', 'validation'), 'samples must be those of teacher.npy, got 8 samples instead of 64'),
    (('--model-kwargs', 'drop_block_start_rate=0.1'), 'needs `drop_block`'),
    (('--model', 'resnet51'), "model must be a model name that timm knows, got 'resnet51'; did you mean "),
    (('--model-kwargs', 'colour=1'), "model_kwargs must be arguments of test_assemble_resnet, got 'colour'"),
    (('--data-dir', 'nowhere'), 'data_dir must exist, got nowhere'),
    (('-c', 'typo.yaml'), "config typo.yaml has the unknown argument 'smoothign'; did you mean smoothing?")])
def test_bad_input_is_one_line(folder, args, message):
    (folder / 'typo.yaml').write_text('smoothign: 0.1\n')
    done = train(folder, 'bad', *args, status=2)
    last = done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr and last.startswith('timm_assemble: ') and message in last


def test_recipe_trains_resumes_and_validates(folder):
    """E11's recipe, shortened: from the teacher's logits to validate.py and timm's create_model."""
    def command(*args):
        done = subprocess.run(
            [sys.executable, '-m', 'timm_assemble', *map(str, args)], capture_output=True, text=True, timeout=280,
            cwd=folder, env={**os.environ, 'OMP_NUM_THREADS': '1', 'RATES': str(folder / 'recipe'),
                            'PYTHONPATH': os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')])})
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    teacher = timm.create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.save({'state_dict': teacher.state_dict()}, folder / 'teacher.pth')
    command('teacher-logits', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--checkpoint',
            'teacher.pth', '--img-size', SIZE, '--data-dir', 'data', '--output', 'teacher', '--workers', 0, '--device',
            'cpu')
    recipe = (
        'train', '--script', folder / 'train.py', '-c', 'assemble_resnet50', '--data-dir', 'data', '--model',
        'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE, '--device', 'cpu', '--amp-dtype',
        'bfloat16', '--workers', 0, '--batch-size', BATCH, '--epochs', 1, '--warmup-epochs', 1, '--bn-momentum', 0.1,
        '--model-ema', '--model-ema-decay', 0.5, '--output', 'output', '--device-modules', *TRACED)
    command(*recipe, '--experiment', 'recipe')
    whole = rates(folder, 'recipe')
    assert whole[-1] == pytest.approx(0.1) and len(whole) == 18
    (folder / 'recipe.rates').unlink()
    command(*recipe, '--experiment', 'again', '--resume', 'output/recipe/checkpoint-0.pth.tar')
    assert rates(folder, 'recipe') == whole[9:]
    best = folder / 'output' / 'recipe' / 'model_best.pth.tar'
    done = command('run', 'validate.py', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--img-size',
                   SIZE, '--checkpoint', best, '--use-ema', '--data-dir', 'data', '--device', 'cpu', '--workers', 0,
                   '--no-prefetcher')
    checkpoint = torch.load(best, weights_only=False)
    assert f'"top1": {checkpoint["metric"]:g}' in done.stdout
    assert checkpoint['args'].aa == 'original' and checkpoint['args'].mixup_mode == 'elem'
    timm.create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=str(best))
