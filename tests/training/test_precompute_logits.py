"""A teacher over a data set, as the command line does it: rows, kills, processes that share, and what is refused."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model
from timm.data import create_dataset, create_transform, resolve_data_config

from timm_assemble.__main__ import main
from timm_assemble.training import TeacherLogits, fingerprint, store_teacher_logits

ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1'}
CLASSES, PER_CLASS = 3, 9


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for split, count in (('train', PER_CLASS), ('validation', 1)):
        for c in range(CLASSES):
            (root / split / f'class{c}').mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(
                    root / split / f'class{c}' / f'{i}.png')
    return root


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth.tar'
    torch.save({'state_dict': create_model('test_assemble_resnet', num_classes=CLASSES).state_dict()}, path)
    return path


@pytest.fixture(scope='module')
def command(data, checkpoint):
    return ['teacher-logits', '--model', 'test_assemble_resnet', '--checkpoint', str(checkpoint), '--num-classes',
            str(CLASSES), '--data-dir', str(data), '--img-size', '64', '--batch-size', '2', '--chunk-size', '4',
            '--device', 'cpu', '--workers', '0']


def call(*args, launcher=('-m', 'timm_assemble')):
    return subprocess.run([sys.executable, *launcher, *map(str, args)], capture_output=True, text=True, timeout=240,
                          env=ENVIRONMENT)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def store(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp('store') / 'teacher'
    done = call(*command, '--output', folder)
    assert done.returncode == 0, done.stderr
    assert f'logits of {CLASSES * PER_CLASS} pictures in {CLASSES} classes' in done.stdout
    assert 'image/s' in done.stderr  # the bar
    return folder


def test_rows(store, data, checkpoint):
    """Each row is that of the picture alone, through the teacher's own preprocessing."""
    model = create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=str(checkpoint)).eval()
    config = resolve_data_config({'img_size': 64}, model=model, use_test_size=True)
    dataset, transform = create_dataset('', root=str(data), split='train'), create_transform(**config)
    rows = TeacherLogits(store)
    with torch.inference_mode():
        for i, name in enumerate(dataset.filenames(absolute=True)):
            with Image.open(name) as picture:
                expected = model(transform(picture).unsqueeze(0))[0].softmax(0)
            torch.testing.assert_close(rows.probabilities(i), expected, rtol=5e-3, atol=1e-4)
    rows.check(fingerprint(create_dataset('', root=str(data), split='train')), CLASSES)
    info = json.loads((store / 'store.json').read_text())
    assert info['teacher']['name'] == 'test_assemble_resnet' and info['preprocessing']['input_size'] == [3, 64, 64]
    assert str(data) not in (store / 'store.json').read_text()


def test_again_does_nothing(store, command, capsys):
    before = files_of(store)
    assert main([*command, '--output', str(store)]) == 0
    assert files_of(store) == before and 'image/s' not in capsys.readouterr().err


KILLS = '''
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from timm_assemble.__main__ import main
import tqdm
output, command = Path(sys.argv[1]), sys.argv[2:]

def run(folder, seconds=None):
    """In a process of its own, killed after so many seconds if it still lives; gives the seconds, or None if killed."""
    start, pid = time.monotonic(), os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        os._exit(main([*command, '--output', str(folder)]))
    while seconds is not None and time.monotonic() < start + seconds and not os.waitpid(pid, os.WNOHANG)[0]:
        pass
    if seconds is not None:
        try:
            os.kill(pid, signal.SIGKILL)
            return None if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) < 0 else 0.0
        except (ProcessLookupError, ChildProcessError):
            return time.monotonic() - start
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return time.monotonic() - start

whole = run(output / 'whole')
rng, killed = random.Random(0), 0
for i in range(10):
    folder = output / f'killed{i}'
    killed += run(folder, rng.uniform(0.1, 0.95) * whole) is None
    killed += run(folder, rng.uniform(0.0, 0.5) * whole) is None
    run(folder)
print(killed)
'''


def test_kill_9(command, tmp_path):
    """Ten stores, each killed at two random moments, and each at the end bit-equal to the unbroken one."""
    done = call(tmp_path, *command, launcher=('-c', KILLS))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8, 'the kills came too late to test anything'
    whole = files_of(tmp_path / 'whole')
    assert sorted(whole) == ['logits.npy', 'store.json']
    for i in range(10):
        assert files_of(tmp_path / f'killed{i}') == whole


def test_processes_share(store, command, tmp_path):
    """Two processes of torchrun: the same bytes, each having done its share."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    done = call('--nproc-per-node', 2, '--master-addr', '127.0.0.1', '--master-port', port, '-m', 'timm_assemble',
                *command, '--output', tmp_path / 's', launcher=('-m', 'torch.distributed.run'))
    assert done.returncode == 0, done.stderr[-2000:]
    assert files_of(tmp_path / 's') == files_of(store)
    assert 'share 1 of 2' in done.stderr and done.stdout.count('logits of 27 pictures') == 1


def store_in_process(data, output, **arguments):
    torch.manual_seed(0)
    model = create_model('test_assemble_resnet', num_classes=arguments.pop('num_classes', CLASSES))
    dataset = arguments.pop('dataset', None) or create_dataset('', root=str(data), split='train')
    return store_teacher_logits(model, 'teacher', dataset, output, workers=0, chunk_size=8, progress=False,
                                preprocessing={'img_size': 64}, **arguments)


def test_top_k_and_amp(data, tmp_path):
    assert store_in_process(data, tmp_path / 's', top_k=2, amp=True).top_k == 2
    plain, few = store_in_process(data, tmp_path / 'p'), TeacherLogits(tmp_path / 's')
    assert plain.num_classes == few.num_classes
    for i in range(len(few)):
        torch.testing.assert_close(
            few.probabilities(i), TeacherLogits(tmp_path / 'p').probabilities(i), rtol=0.1, atol=0.02)


def test_batch_larger_than_chunk(data, tmp_path):
    assert store_in_process(data, tmp_path / 's', batch_size=100).count == 27


def test_torchvisions_folder(data, tmp_path):
    """The same pictures by torchvision's data set have the same identity, in the order of their names."""
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(data / 'train'))
    assert fingerprint(dataset) == fingerprint(create_dataset('', root=str(data), split='train'))
    store_in_process(data, tmp_path / 's', dataset=dataset)
    TeacherLogits(tmp_path / 's').check(fingerprint(create_dataset('', root=str(data), split='train')), CLASSES)


def test_fewer_classes_in_the_data(data, tmp_path):
    with pytest.warns(UserWarning, match='3 classes, the teacher 5'):
        store_in_process(data, tmp_path / 's', num_classes=5)


@pytest.mark.parametrize('arguments, message', [
    (dict(num_classes=2), 'has 3 classes, the teacher teacher has 2'),
    (dict(top_k=3), 'top_k must be from 0 to 2'), (dict(top_k=-1), 'top_k must be from 0 to 2')])
def test_bad_arguments(data, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        store_in_process(data, tmp_path / 's', **arguments)
    assert not (tmp_path / 's').exists()


def test_unreadable_picture(data, tmp_path):
    """Named, where timm's data set would take the next picture; what was stored before stays."""
    for c in range(CLASSES):
        (tmp_path / 'train' / f'class{c}').mkdir(parents=True)
        for i in range(PER_CLASS):
            content = (data / 'train' / f'class{c}' / f'{i}.png').read_bytes()
            (tmp_path / 'train' / f'class{c}' / f'{i}.png').write_bytes(content[:200] if (c, i) == (2, 3) else content)
    with pytest.raises(ValueError, match=r'picture class2/3\.png cannot be read'):
        store_in_process(tmp_path, tmp_path / 's')
    assert len(list((tmp_path / 's' / 'chunks').iterdir())) == 2


def test_logits_that_are_not_finite(data, tmp_path):
    model = create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.nn.init.constant_(model.get_classifier().bias, float('nan'))
    with pytest.raises(ValueError, match='not finite for sample 0'):
        store_teacher_logits(model, 't', create_dataset('', root=str(data), split='train'), tmp_path / 's', workers=0)


@pytest.mark.parametrize('change, message', [
    (('--model', 'no_such_model'), 'no_such_model'), (('--data-dir', 'nowhere'), '--data-dir nowhere does not exist'),
    (('--data-dir', str(Path(__file__).parents[1] / 'golden')), 'Found 0 images'),
    (('--dataset', 'torch/none'), 'none'),
    (('--checkpoint', 'nothing.pth'), '--checkpoint must be a file, got nothing.pth'),
    (('--num-classes', '4'), 'size mismatch'), (('--top-k', '-1'), 'whole number from 0'),
    (('--model-kwargs', 'colour=3'), 'colour')])
def test_bad_command_line(command, tmp_path, change, message, capsys):
    try:
        status = main([*command, *change, '--output', str(tmp_path / 's')])
    except SystemExit as e:
        status = e.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count('\n') == 1, error
    assert not (tmp_path / 's').exists()


def test_identity_of_samples(data, tmp_path):
    """Names and labels, not the place; another order and other pictures are told apart; streams are refused."""
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    here = fingerprint(create_dataset('', root=str(data), split='train'))
    (tmp_path / 'moved').symlink_to(data)
    assert fingerprint(create_dataset('', root=str(tmp_path / 'moved'), split='train')) == here
    turned = create_dataset('', root=str(data), split='train')
    turned.reader.samples = turned.reader.samples[::-1]
    assert 'another order' in here.difference(fingerprint(turned))
    other = create_dataset('', root=str(data), split='train')
    other.reader.samples[0] = (str(data / 'train' / 'class0' / 'other.png'), 0)
    assert here.difference(fingerprint(other)) == 'other pictures or labels'
    assert 'samples, not 27' in here.difference(fingerprint(create_dataset('', root=str(data), split='validation')))
    with pytest.raises(ValueError, match='which streams'):
        fingerprint(Stream())


def test_identity_without_names(tmp_path):
    """torchvision's arrays: targets and some of the pictures tell them apart."""
    class Arrays(torch.utils.data.Dataset):
        transform = None

        def __init__(self, pictures, targets):
            self.pictures, self.targets = pictures, targets

        def __len__(self):
            return len(self.targets)

        def __getitem__(self, i):
            return Image.fromarray(self.pictures[i]), self.targets[i]

    pictures = np.random.default_rng(0).integers(0, 255, (5, 8, 8, 3), np.uint8)
    here = fingerprint(Arrays(pictures, [0, 1, 2, 0, 1]))
    assert (here.classes, here.difference(fingerprint(Arrays(pictures, [0, 1, 2, 0, 1])))) == (3, None)
    assert here.difference(fingerprint(Arrays(255 - pictures, [0, 1, 2, 0, 1]))) == 'other pictures or labels'
    assert here.difference(fingerprint(Arrays(pictures, [0, 1, 2, 1, 0]))) == 'other pictures or labels'
