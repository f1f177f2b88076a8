"""timm's own train.py with the hook, and validate.py; from the folder in TIMM_SCRIPTS."""
import csv
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset

from timm_assemble.__main__ import main
from timm_assemble.data.samples import Samples
from timm_assemble.models.family import DropBlockRate
from timm_assemble.timm_scripts import HOOK
from timm_assemble.training import (
    StoredLogitsDistillationTask, StoreInfo, StoreWriter, TeacherViews, drop_block_schedule, fingerprint,
)

from .. import _oracles as oracle

SCRIPTS = os.environ.get('TIMM_SCRIPTS')
pytestmark = [
    pytest.mark.skipif(not SCRIPTS, reason="TIMM_SCRIPTS, a folder with timm's train.py, is not set"),
    pytest.mark.filterwarnings('ignore')]  # the script's
CLASSES, PER_CLASS, SIZE, BATCH = 4, 16, 32, 8

# A module for --device-modules, which records rates and makes the losses of one and of two processes comparable.
# The script gives DDP a CPU device id, which torch rejects; batch norm and DropBlock make two halves of a batch differ
# from the whole; and one process draws another order than two. Float32 convolutions round by batch size, which 10 steps
# amplify to 1e-4 of the loss: float64 leaves a difference only where train.py averages losses in float32.
COMPARABLE = '''
import os
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import distributed
from timm_assemble.layers import drop_block
from timm_assemble.models.assemble_resnet import AssembleResNet

set_rate = AssembleResNet.set_drop_block_rate

def recording(self, rate):
    with open(f'{os.environ.get("RANK", "one")}.rates', 'a') as f:
        f.write(f'{rate!r}\\n')
    set_rate(self, rate)

AssembleResNet.set_drop_block_rate = recording
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
MODEL = ('--data-dir', 'data', '--model', 'test_assemble_resnet', '--num-classes', CLASSES, '--img-size', SIZE,
         '--device', 'cpu', '--workers', 0)
RECIPE = (*MODEL, '--batch-size', BATCH, '--output', 'output')
TRAIN = (*RECIPE, '--opt', 'momentum', '--lr', 0.05, '--epochs', 2, '--warmup-epochs', 0, '--log-interval', 1)
STORED = ('--kd-model-name', 'logits:teacher.npy', '--kd-temperature', 1)
VIEWS = ('--kd-model-name', 'views:stored-views', '--kd-temperature', 1)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Images, teacher rows for them, the script outside its checkout, and the module of the tests beside it."""
    root = tmp_path_factory.mktemp('root')
    rng = np.random.default_rng(0)
    for split, count in (('train', PER_CLASS), ('validation', 2)):
        for c in range(CLASSES):
            (root / 'data' / split / str(c)).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 100 + 40 * c, (SIZE, SIZE, 3), np.uint8)).save(
                    root / 'data' / split / str(c) / f'{i:02}.png')
    np.save(root / 'teacher.npy', rng.standard_normal((CLASSES * PER_CLASS, CLASSES)).astype(np.float16))
    shutil.copy(Path(str(SCRIPTS)) / 'train.py', root)
    (root / 'comparable.py').write_text(COMPARABLE)
    return root


@pytest.fixture(autouse=True)
def rates(root, monkeypatch):
    """The DropBlock rates in the order in which they are set."""
    monkeypatch.chdir(root)
    rates, original = [], DropBlockRate.set_drop_block_rate
    recording = torch.jit.ignore(lambda self, x: (rates.append(x), original(self, x)))  # as the original
    monkeypatch.setattr(DropBlockRate, 'set_drop_block_rate', recording)
    return rates


def command(*args):
    sys.modules.pop(HOOK, None)  # train.py imports it once a process
    assert main([*map(str, args)]) == 0


def train(name, *args):
    command('train', '--script', 'train.py', *TRAIN, '--experiment', name, *args)


def summary(name, *columns):
    with open(Path('output', name, 'summary.csv')) as f:
        return [tuple(float(row[column]) for column in columns) for row in csv.DictReader(f)]


def losses(name):
    return summary(name, 'train_loss', 'eval_loss')


def test_every_update_has_its_rate_and_resuming_continues_it(rates):
    """With gradient accumulation, from a start rate, in TorchScript; E11's recipe below has none of these."""
    args = ('--torchscript', '--drop-block', 0.3, '--model-kwargs', 'drop_block_start_rate=0.1',
            '--grad-accum-steps', 3, '--mixup', 0.2, '--mixup-mode', 'elem', *STORED)
    train('whole', *args)
    expected = [drop_block_schedule(i, 6, 0.1, 0.3) for i in range(7)]  # 8 batches an epoch are 3 updates
    assert rates == pytest.approx([*expected[:4], *expected[3:]])  # set after an update and at a start
    assert summary('whole', 'train_drop_block_rate') == [pytest.approx((rate,)) for rate in expected[3::3]]
    rates.clear()
    train('resumed', *args, '--resume', 'output/whole/checkpoint-0.pth.tar')
    assert rates == pytest.approx(expected[3:])
    assert summary('resumed', 'train_drop_block_rate') == [pytest.approx((0.3,))]
    checkpoint = torch.load('output/resumed/last.pth.tar', weights_only=False)
    assert checkpoint['args'].model_kwargs == {'drop_block_start_rate': 0.1}


@pytest.fixture(scope='module')
def views(root):
    """Stored views of the training set by the transform of TRAIN, in the folder ``stored-views``."""
    torch.manual_seed(0)
    torch.save({'state_dict': timm.create_model('test_assemble_resnet', num_classes=CLASSES).state_dict()},
               root / 'teacher.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        command('teacher-logits', *MODEL, '--student', 'test_assemble_resnet', '--checkpoint', 'teacher.pth',
                '--views', 3, '--output', 'stored-views')


@pytest.fixture
def seen_views(monkeypatch):
    """The image and view of every sample that is drawn in this process."""
    seen, original = [], TeacherViews.probabilities
    monkeypatch.setattr(TeacherViews, 'probabilities', lambda self, index, view, *args: (
        seen.append((index, view)), original(self, index, view, *args))[1])
    return seen


def test_every_epoch_has_its_view_and_resuming_continues(views, seen_views):
    """With all that changes batches: mixup, CutMix, accumulation, EMA and AMP."""
    args = ('--mixup', 0.2, '--cutmix', 1, '--mixup-mode', 'elem', '--grad-accum-steps', 3, '--model-ema', '--amp',
            '--amp-dtype', 'bfloat16', '--epochs', 3, *VIEWS)
    train('views', *args)
    size = CLASSES * PER_CLASS
    assert sorted(seen_views) == [(index, view) for index in range(size) for view in range(3)]
    third = sorted(seen_views[2 * size:])
    seen_views.clear()
    train('views-resumed', *args, '--resume', 'output/views/checkpoint-1.pth.tar')
    assert sorted(seen_views) == third
    whole, resumed = losses('views'), losses('views-resumed')
    assert np.isfinite(whole).all() and len(whole) == 3 and len(resumed) == 1
    timm.create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path='output/views/model_best.pth.tar')


@pytest.mark.parametrize('args', [
    ('--no-prefetcher', '--mixup', 0.2, '--reprob', 0.3), ('--no-prefetcher', '--smoothing', 0, '--workers', 2),
    ('--mixup', 0.2, '--mixup-mode', 'half', '--workers', 1, '--mixup-off-epoch', 1, '--reprob', 0.3)])
def test_stored_views_train_with_other_options(views, args, request):
    name = request.node.name.replace('[', '-').rstrip(']')
    train(name, *args, *VIEWS)
    assert np.isfinite(losses(name)).all()


def test_mixed_views_train_and_resume(views, seen_views):
    """With and without the prefetcher, whose collate function mixes otherwise."""
    mixing = ('--mixup', 0.2, '--cutmix', 1)
    command('teacher-logits', *MODEL, '--student', 'test_assemble_resnet', '--checkpoint', 'teacher.pth',
            '--views', 3, '--mixed', *mixing, '--output', 'mixed-views')
    args = (*mixing, '--kd-model-name', 'views:mixed-views', '--epochs', 3)
    train('mixed', *args)
    third = sorted(seen_views[2 * CLASSES * PER_CLASS:])
    seen_views.clear()
    train('mixed-resumed', *args, '--no-prefetcher', '--resume', 'output/mixed/checkpoint-1.pth.tar')
    assert sorted(seen_views) == third and len(third) == CLASSES * PER_CLASS
    whole, resumed = losses('mixed'), losses('mixed-resumed')
    assert np.isfinite([*whole, *resumed]).all() and (len(whole), len(resumed)) == (3, 1)
    teacher = torch.load('output/mixed/last.pth.tar', weights_only=False)['args'].kd_teacher
    assert teacher == 'test_assemble_resnet, 3 stored views of mixed images'


def test_views_of_a_tar_are_those_of_its_folder(root, views, seen_views):
    with tarfile.open('train.tar', 'w') as tar:
        tar.add('data/train', '.')
    train('tar', '--epochs', 1, '--data-dir', 'train.tar', '--val-split', '', '--eval-metric', 'loss', *VIEWS)
    assert len({index for index, _ in seen_views}) == CLASSES * PER_CLASS


@pytest.mark.parametrize('args', [
    ('--no-prefetcher', '--mixup', 0.2), ('--no-prefetcher', '--smoothing', 0), ('--smoothing', 0.1),
    ('--mixup', 0.2, '--mixup-mode', 'half', '--workers', 1, '--mixup-off-epoch', 1),
    ('--amp', '--amp-dtype', 'bfloat16', '--channels-last'),
    ('--model-dtype', 'bfloat16', '--mixup', 0.2, '--cutmix', 1, '--model-ema'),
    ('--aug-splits', 2, '--jsd-loss', '--aa', 'augmix')])
def test_stored_logits_train_with_other_options(args, request):
    name = request.node.name.replace('[', '-').rstrip(']')
    train(name, '--epochs', 1, *args, *STORED)
    assert np.isfinite(losses(name)[0][0])


ROWS = np.random.default_rng(1).integers(-32, 32, (CLASSES, CLASSES)) / 8  # logits of each class, exact in float16


@pytest.mark.parametrize('name, mixing, temperature, top_k', [
    ('kl', ('--mixup', 0.4), 1, 2), ('ce', ('--cutmix', 1, '--mixup-mode', 'pair'), 2, 0),
    ('dkd', ('--mixup', 0.4, '--mixup-mode', 'half'), 3, 2), ('dkd+std', ('--mixup', 0.4, '--cutmix', 1), 1, 0),
    ('dist', ('--mixup', 0.4, '--mixup-mode', 'elem', '--no-prefetcher'), 2, 0), ('dist+std', (), 4, 2)])
def test_printed_loss_is_the_formula_in_float64(monkeypatch, name, mixing, temperature, top_k):
    """All images of a class have one row, so that the mixed labels say how rows were mixed. The label counts half."""
    data = create_dataset('', root='data', split='train')
    info = StoreInfo({}, {}, fingerprint(data).as_dict(), CLASSES, top_k)
    writer = StoreWriter(f'rows-{name}', info)
    writer.prepare()
    checksums = torch.tensor([Samples(data).checksum(i) for i in range(len(data))])
    rows = torch.from_numpy(ROWS[[label for _, label in data.reader.samples]])
    writer.write(0, info.pack(0, rows, torch.zeros(len(data)), checksums))
    writer.finish()
    seen, forward = [], StoredLogitsDistillationTask.forward

    def recording(self, x, target):
        result = forward(self, x, target)
        seen.append((result['output'].detach().double().numpy(), target[:, :-CLASSES].double().numpy()))
        return result

    monkeypatch.setattr(StoredLogitsDistillationTask, 'forward', recording)
    train(f'loss-{name}', '--epochs', 1, '--lr', 1e-4, '--smoothing', 0, *mixing, '--task-loss-weight', 0.5,
          '--distill-loss-weight', 2, '--kd-loss-type', name, '--kd-temperature', temperature,
          '--kd-model-name', f'logits:rows-{name}')
    kind, change = name.removesuffix('+std'), oracle.standardized if name.endswith('+std') else list
    teacher = [np.log(oracle.spread_evenly(row, top_k)) if top_k else row for row in ROWS]
    probs = np.array([oracle.softened(change(row), temperature) for row in teacher])
    values = []
    for logits, labels in seen:
        if not mixing:
            labels = np.eye(CLASSES)[labels[:, 0].astype(int)]
        task_loss = -(labels * np.log([oracle.softened(row) for row in logits])).sum(1).mean()
        mixtures = [{c: weight for c, weight in enumerate(row) if weight} for row in labels]
        values.append(0.5 * task_loss + 2 * oracle.distillation_loss(
            kind, [change(row) for row in logits], labels @ probs, mixtures, temperature))
    assert losses(f'loss-{name}')[0][0] == pytest.approx(np.mean(values), rel=1e-3 if top_k else 1e-5)


def test_distillation_without_the_label_has_weight_0(monkeypatch):
    def no_label(self, x, target):
        return torch.full((), float('nan'))

    monkeypatch.setattr(torch.nn.CrossEntropyLoss, 'forward', no_label)
    train('unlabelled', '--epochs', 1, '--smoothing', 0, '--task-loss-weight', 0, '--distill-loss-weight', 1,
          '--val-split', '', '--eval-metric', 'loss', *STORED)
    assert np.isfinite(summary('unlabelled', 'train_loss')).all()


def test_two_ranks_have_the_losses_and_rates_of_one_with_twice_the_batch(root):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{root}:{os.environ.get("PYTHONPATH", "")}',
                   'ATEN_CPU_CAPABILITY': 'default'}  # AVX2's rounding depends on the batch size: 4e-4 at the end
    torchrun = ('-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1', '--nproc-per-node', 2)
    modules = ('--no-aug', '--drop-block', 0.2, *STORED, '--kd-loss-type', 'dkd+std', '--device-modules', 'comparable')
    for process in (
            ('train.py', *TRAIN, '--batch-size', 2 * BATCH, '--experiment', 'one', *modules, HOOK),
            (*torchrun, '-m', 'timm_assemble', 'train', '--script', 'train.py', *TRAIN, '--experiment', 'two',
             *modules)):
        done = subprocess.run([sys.executable, *map(str, process)], capture_output=True, text=True, timeout=280,
                              env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count('timm-assemble: running') == 1  # by the first rank
    one, two = np.array(losses('one')), np.array(losses('two'))
    np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=2e-7)
    np.testing.assert_allclose(two[:, 1], one[:, 1], rtol=1e-11)
    assert one[1, 0] < one[0, 0]
    expected, *others = (Path(f'{name}.rates').read_text() for name in ('one', 0, 1))
    assert others == [expected, expected] and expected.count('\n') == 10


def test_mobilenet_trains_with_its_recipe_and_with_stored_views(rates, views, seen_views):
    """M8's recipe, shortened: the DropBlock schedule, mixup and distillation."""
    model = ('--model', 'assemble_mobilenet_se2', '--model-kwargs', 'width=8')
    command('train', '--script', 'train.py', '-c', 'assemble_mobilenet_se2', *RECIPE, *model, '--amp-dtype', 'bfloat16',
            '--epochs', 1, '--warmup-epochs', 0, '--experiment', 'mobilenet', *STORED)
    assert rates == pytest.approx([drop_block_schedule(i, 8, 0.0, 0.1) for i in range(9)])
    train('mobilenet-views', *model, '--epochs', 1, *VIEWS)
    assert len(seen_views) == CLASSES * PER_CLASS
    assert np.isfinite([losses('mobilenet'), losses('mobilenet-views')]).all()


@pytest.mark.parametrize('name, options', [
    ('assemble_resnet50', ('--output', 'teacher')),
    ('assemble_resnet50_views', ('--views', 2, '-c', 'assemble_resnet50_views', '--student', 'test_assemble_resnet',
                                 '--output', 'views'))])
def test_recipe_trains_resumes_and_validates(rates, capsys, name, options):
    """E11's recipes, shortened: from the teacher's logits or views to validate.py and timm's create_model."""
    teacher = timm.create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.save({'state_dict': teacher.state_dict()}, 'teacher.pth')
    command('teacher-logits', *MODEL, '--checkpoint', 'teacher.pth', *options)
    recipe = (
        'train', '--script', 'train.py', '-c', name, *RECIPE, '--amp-dtype', 'bfloat16', '--epochs', 1,
        '--warmup-epochs', 1, '--model-ema', '--model-ema-decay', 0.5, '--interpolation', 'bilinear')  # as validate.py
    command(*recipe, '--experiment', name)
    expected = [drop_block_schedule(i, 16, 0.0, 0.1) for i in range(17)]
    assert rates == pytest.approx([*expected[:9], *expected[8:]])
    rates.clear()
    command(*recipe, '--experiment', f'{name}-again', '--resume', f'output/{name}/checkpoint-0.pth.tar')
    assert rates == pytest.approx(expected[8:])
    best = f'output/{name}/model_best.pth.tar'
    capsys.readouterr()
    command('run', 'validate.py', *MODEL, '--checkpoint', best, '--use-ema', '--no-prefetcher')
    checkpoint = torch.load(best, weights_only=False)
    assert f'"top1": {checkpoint["metric"]:g}' in capsys.readouterr().out
    assert checkpoint['args'].aa == 'official' and checkpoint['args'].mixup_mode == 'elem'
    timm.create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=best)
