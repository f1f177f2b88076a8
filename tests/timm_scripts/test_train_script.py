"""timm's own train.py with the hook, in real processes. Reads it from TIMM_SCRIPTS, a folder that holds the script."""
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

# Modules for --device-modules: what a test has to see or to hold still, in the script's own process.
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
# The script hands DDP a CPU device id, which torch refuses; batch norm and DropBlock would tell two halves of a batch
# from the whole; and one process draws its order differently from two.
HOLDING_STILL = '''
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
def place(tmp_path_factory):
    """Pictures, a store of rows for them, the script outside of its checkout, and the tests' modules beside it."""
    root = tmp_path_factory.mktemp('place')
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
    (root / 'holding_still.py').write_text(HOLDING_STILL)
    return root


def train(place, name, *args, modules=('timm_assemble.train_hook',), launcher=(), status=0):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'RATES': str(place / name),
                   'PYTHONPATH': os.pathsep.join([str(place), os.environ.get('PYTHONPATH', '')])}
    command = [
        *launcher, place / 'train.py', '--device-modules', *modules, '--data-dir', place / 'data', '--model',
        'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE, '--device', 'cpu', '--workers', 0,
        '--batch-size', BATCH, '--opt', 'momentum', '--lr', 0.05, '--epochs', 2, '--warmup-epochs', 0, '--log-interval',
        1, '--bn-momentum', 0.1, '--output', place / 'output', '--experiment', name, *args]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=280,
                          env=environment, cwd=place)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def rates(place, name):
    return [float(line) for line in (place / f'{name}.rates').read_text().split()]


def summary(place, name):
    with open(place / 'output' / name / 'summary.csv') as f:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(f)]


STORED = ('--kd-model-name', 'logits:teacher.npy', '--kd-temperature', 1)
TRACED = ('timm_assemble.train_hook', 'recording')


def test_schedule_and_resume(place):
    """Rates of every update, counted right under accumulation; resumed in its midst, the rest is the same."""
    args = ('--drop-block', 0.2, '--grad-accum-steps', 3, '--mixup', 0.2, '--mixup-mode', 'elem', *STORED)
    train(place, 'whole', *args, modules=TRACED)
    expected = [drop_block_schedule(i, 6, 0.0, 0.2) for i in range(7)]  # 8 batches an epoch are 3 updates
    assert rates(place, 'whole') == pytest.approx([*expected[:4], *expected[3:]])  # set after an update, and at a start
    checkpoint = place / 'output' / 'whole' / 'checkpoint-0.pth.tar'
    train(place, 'resumed', *args, '--resume', checkpoint, modules=TRACED)
    assert rates(place, 'resumed') == pytest.approx(expected[3:])


def test_fine_tuning_schedule(place):
    train(place, 'tuned', '--drop-block', 0.3, '--model-kwargs', 'drop_block_start_rate=0.1', modules=TRACED)
    assert rates(place, 'tuned')[0] == pytest.approx(0.1) and rates(place, 'tuned')[-1] == pytest.approx(0.3)
    assert torch.load(place / 'output' / 'tuned' / 'last.pth.tar', weights_only=False)['args'].model_kwargs == {
        'drop_block_start_rate': 0.1}


def test_without_the_hook(place):
    """The plugin alone registers the models; the rate is constant."""
    train(place, 'plain', '--drop-block', 0.2, modules=('timm_assemble', 'recording'))
    assert not (place / 'plain.rates').exists()


@pytest.mark.parametrize('args', [
    ('--no-prefetcher', '--mixup', 0.2), ('--no-prefetcher', '--smoothing', 0), ('--smoothing', 0.1),
    ('--mixup', 0.2, '--mixup-mode', 'half', '--workers', 1, '--mixup-off-epoch', 1),
    ('--amp', '--amp-dtype', 'bfloat16', '--channels-last'),
    ('--model-dtype', 'bfloat16', '--mixup', 0.2, '--cutmix', 1, '--model-ema'),
    ('--aug-splits', 2, '--jsd-loss', '--aa', 'augmix')])
def test_combinations(place, args, request):
    name = request.node.name.replace('[', '-').rstrip(']')
    train(place, name, '--epochs', 1, *args, *STORED)
    assert np.isfinite(summary(place, name)[0]['train_loss'])


def test_two_processes(place):
    """Same losses as one process with twice the batch, and the same rates on both."""
    args = ('--no-aug', '--drop-block', 0.2, *STORED)
    modules = (*TRACED, 'holding_still')
    train(place, 'one', *args, '--batch-size', 2 * BATCH, modules=modules)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    train(place, 'two', *args, modules=modules, launcher=(
        '-m', 'torch.distributed.run', '--nproc-per-node', 2, '--master-addr', '127.0.0.1', '--master-port', port))
    for one, two in zip(summary(place, 'one'), summary(place, 'two')):
        for key in ('train_loss', 'eval_loss'):
            assert two[key] == pytest.approx(one[key], rel=2e-5)
    assert rates(place, 'two0') == rates(place, 'two1') == rates(place, 'one') and len(rates(place, 'one')) == 10
    assert summary(place, 'one')[1]['train_loss'] < summary(place, 'one')[0]['train_loss']


def test_online_distillation_is_timms(place):
    """Another teacher's name is left to timm: it says that it makes the model, which has no weights here."""
    done = train(place, 'online', '--kd-model-name', 'test_assemble_resnet', status=1)
    assert "Creating KD teacher model: 'test_assemble_resnet'" in done.stderr


@pytest.mark.parametrize('args, message', [
    (('--kd-model-name', 'logits:nowhere'), 'nowhere must be a store of teacher logits'),
    ((*STORED, '--num-classes', 5), 'has logits of 4 classes, the model has 5'),
    ((*STORED, '--train-split', 'validation'), '8 samples, not 64'),
    (('--model-kwargs', 'drop_block_start_rate=0.1'), 'needs --drop-block')])
def test_bad_input(place, args, message):
    done = train(place, 'bad', *args, status=2)
    last = done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr and last.startswith('timm_assemble: ') and message in last


def test_recipe_from_end_to_end(place):
    """E11's recipe, shortened: teacher, stored logits, training, resuming, validation, and plain timm."""
    def command(*args):
        done = subprocess.run(
            [sys.executable, '-m', 'timm_assemble', *map(str, args)], capture_output=True, text=True, timeout=280,
            cwd=place, env={**os.environ, 'OMP_NUM_THREADS': '1', 'RATES': str(place / 'recipe'),
                            'PYTHONPATH': os.pathsep.join([str(place), os.environ.get('PYTHONPATH', '')])})
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    teacher = timm.create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.save({'state_dict': teacher.state_dict()}, place / 'teacher.pth')
    command('teacher-logits', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--checkpoint',
            'teacher.pth', '--img-size', SIZE, '--data-dir', 'data', '--output', 'teacher', '--workers', 0, '--device',
            'cpu')
    recipe = (
        'train', '--script', place / 'train.py', '-c', 'assemble_resnet50', '--data-dir', 'data', '--model',
        'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE, '--device', 'cpu', '--amp-dtype',
        'bfloat16', '--workers', 0, '--batch-size', BATCH, '--epochs', 1, '--warmup-epochs', 1, '--bn-momentum', 0.1,
        '--model-ema', '--model-ema-decay', 0.5, '--output', 'output', '--device-modules', *TRACED)
    command(*recipe, '--experiment', 'recipe')
    whole = rates(place, 'recipe')
    assert whole[-1] == pytest.approx(0.1) and len(whole) == 18
    (place / 'recipe.rates').unlink()
    command(*recipe, '--experiment', 'again', '--resume', 'output/recipe/checkpoint-0.pth.tar')
    assert rates(place, 'recipe') == whole[9:]
    best = place / 'output' / 'recipe' / 'model_best.pth.tar'
    done = command('run', 'validate.py', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--img-size',
                   SIZE, '--checkpoint', best, '--use-ema', '--data-dir', 'data', '--device', 'cpu', '--workers', 0,
                   '--no-prefetcher')
    checkpoint = torch.load(best, weights_only=False)
    assert f'"top1": {checkpoint["metric"]:g}' in done.stdout
    assert checkpoint['args'].aa == 'original' and checkpoint['args'].mixup_mode == 'elem'
    timm.create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=str(best))
