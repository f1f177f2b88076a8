"""timm's own train.py with the hook, in real processes; from the folder in TIMM_SCRIPTS."""
import csv
import os
import shutil
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
# from the whole; and one process draws another order than two. Float32 convolutions round by batch size, which 10 steps
# amplify to 1e-4 of the loss: float64 leaves a difference only where train.py averages losses in float32.
COMPARABLE = '''
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import distributed
from timm_assemble.layers import drop_block
from timm_assemble.models.assemble_resnet import AssembleResNet

torch.set_default_dtype(torch.float64)
forward = AssembleResNet.forward
AssembleResNet.forward = lambda self, x: forward(self, x.double())
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


def call(folder, name, *args, status=0):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'RATES': str(folder / name),
                   'PYTHONPATH': os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')])}
    done = subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, timeout=280,
                          env=environment, cwd=folder)
    assert done.returncode == status, done.stderr[-3000:]
    return done


MODEL = ('--data-dir', 'data', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE,
         '--device', 'cpu', '--workers', 0)
TRAIN = (*MODEL, '--batch-size', BATCH, '--bn-momentum', 0.1, '--output', 'output')


def train(folder, name, *args, modules=('timm_assemble.train_hook',), launcher=(), status=0):
    return call(folder, name, *launcher, 'train.py', '--device-modules', *modules, *TRAIN, '--opt', 'momentum', '--lr',
                0.05, '--epochs', 2, '--warmup-epochs', 0, '--log-interval', 1, '--experiment', name, *args,
                status=status)


def rates(folder, name):
    return [float(line) for line in (folder / f'{name}.rates').read_text().split()]


def summary(folder, name):
    with open(folder / 'output' / name / 'summary.csv') as f:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(f)]


TORCHRUN = ('-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1', '--nproc-per-node', 2)
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
    train(folder, 'two', *args, modules=modules, launcher=TORCHRUN)
    for one, two in zip(summary(folder, 'one'), summary(folder, 'two')):
        assert two['eval_loss'] == pytest.approx(one['eval_loss'], rel=1e-11)
        assert two['train_loss'] == pytest.approx(one['train_loss'], rel=2e-7)
    assert rates(folder, 'two0') == rates(folder, 'two1') == rates(folder, 'one') and len(rates(folder, 'one')) == 10
    assert summary(folder, 'one')[1]['train_loss'] < summary(folder, 'one')[0]['train_loss']


def test_another_teacher_is_left_to_timm(folder):
    """timm creates it, and fails because it has no weights here."""
    done = train(folder, 'online', '--kd-model-name', 'test_assemble_resnet', status=1)
    assert "Creating KD teacher model: 'test_assemble_resnet'" in done.stderr


def test_logits_of_other_images_are_one_line(folder):
    done = train(folder, 'bad', *STORED, '--train-split', 'validation', status=2)
    assert 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        'timm_assemble: samples must be those of teacher.npy, got 8 samples instead of 64')


def test_recipe_trains_resumes_and_validates(folder):
    """E11's recipe, shortened: from the teacher's logits to validate.py and timm's create_model."""
    def command(*args):
        return call(folder, 'recipe', '-m', 'timm_assemble', *args)

    teacher = timm.create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.save({'state_dict': teacher.state_dict()}, folder / 'teacher.pth')
    command('teacher-logits', *MODEL, '--checkpoint', 'teacher.pth', '--output', 'teacher')
    recipe = (
        'train', '--script', 'train.py', '-c', 'assemble_resnet50', *TRAIN, '--amp-dtype', 'bfloat16', '--epochs', 1,
        '--warmup-epochs', 1, '--model-ema', '--model-ema-decay', 0.5, '--device-modules', *TRACED)
    command(*recipe, '--experiment', 'recipe')
    whole = rates(folder, 'recipe')
    assert whole[-1] == pytest.approx(0.1) and len(whole) == 18
    (folder / 'recipe.rates').unlink()
    command(*recipe, '--experiment', 'again', '--resume', 'output/recipe/checkpoint-0.pth.tar')
    assert rates(folder, 'recipe') == whole[9:]
    best = folder / 'output' / 'recipe' / 'model_best.pth.tar'
    done = command('run', 'validate.py', *MODEL, '--checkpoint', best, '--use-ema', '--no-prefetcher')
    checkpoint = torch.load(best, weights_only=False)
    assert f'"top1": {checkpoint["metric"]:g}' in done.stdout
    assert checkpoint['args'].aa == 'original' and checkpoint['args'].mixup_mode == 'elem'
    timm.create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=str(best))
