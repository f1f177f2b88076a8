"""Storing a teacher's logits with the command line: rows, kills, torchrun, and what is rejected."""
import argparse
import copy
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model
from timm.data import create_dataset, create_transform, resolve_data_config
from timm.models import save_for_hf
from torch.utils.data import Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from timm_assemble.__main__ import main
from timm_assemble.data import samples
from timm_assemble.training import TeacherDataset, TeacherLogits, fingerprint, store_teacher_logits

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
    return ['teacher-logits', '--model', 'test_assemble_resnet', '--checkpoint', str(checkpoint),
            '--data-dir', str(data), '--img-size', '64', '--batch-size', '2', '--chunk-size', '4', '--device', 'cpu',
            '--workers', '0']


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def store(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp('store') / 'teacher'
    assert main([*command, '--output', str(folder)]) == 0
    return folder


def check_row(store, index, model, config, image, mode='RGB'):
    with torch.inference_mode(), Image.open(image) as file:
        expected = model.eval()(create_transform(**config)(file.convert(mode)).unsqueeze(0))[0].softmax(0)
    torch.testing.assert_close(TeacherLogits(store).probabilities(index), expected, rtol=5e-3, atol=1e-4)


def test_rows_are_those_of_single_images(store, data, checkpoint):
    """With the teacher's own preprocessing."""
    model = create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=str(checkpoint))
    config = resolve_data_config({'img_size': 64}, model=model, use_test_size=True)
    dataset = create_dataset('', root=str(data), split='train')
    for i, name in enumerate(dataset.filenames(absolute=True)):
        check_row(store, i, model, config, name)
    TeacherLogits(store).check(fingerprint(dataset), CLASSES)
    info = json.loads((store / 'store.json').read_text())
    assert info['teacher']['name'] == 'test_assemble_resnet' and info['preprocessing']['input_size'] == [3, 64, 64]
    assert str(data) not in (store / 'store.json').read_text()


def test_second_run_changes_nothing(store, command, capsys):
    before = files_of(store)
    assert main([*command, '--output', str(store)]) == 0
    assert files_of(store) == before and 'image/s' not in capsys.readouterr().err


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_store_that_is_killed_before_any_write_resumes_to_the_same_bytes(command, tmp_path):
    def run(folder, deadly=-1):
        """Return the exit status of a process that kills itself before use number ``deadly`` of a file or folder."""
        if pid := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        count = itertools.count()

        def counted(function):
            def call(*args, **kwargs):
                if next(count) == deadly:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return call
        try:
            for owner, name in ((Path, 'mkdir'), (Path, 'touch'), (np.memmap, 'flush'), (os, 'replace'),
                                (shutil, 'rmtree')):
                setattr(owner, name, counted(getattr(owner, name)))
            os._exit(main([*command, '--chunk-size', '14', '--batch-size', '14', '--img-size', '32',
                           '--output', str(folder)]))
        finally:
            os._exit(1)

    moment = 0
    assert run(tmp_path / 'whole') == 0
    while (status := run(tmp_path / str(moment), moment)) == -signal.SIGKILL:
        assert run(tmp_path / str(moment)) == 0 and files_of(tmp_path / str(moment)) == files_of(tmp_path / 'whole')
        moment += 1
    assert status == 0 and moment > 10  # four of them of the two chunks


def test_two_ranks_write_the_same_bytes(store, command, tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--local-addr', '127.0.0.1', '--nproc-per-node',
         '2', '-m', 'timm_assemble', *command, '--output', tmp_path / 's'],
        capture_output=True, text=True, timeout=240, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-2000:]
    assert files_of(tmp_path / 's') == files_of(store)
    assert 'rank 0 of 2' in done.stderr and done.stdout.count('logits of 27 images in 3 classes') == 1


def store_in_process(data, output, **arguments):
    torch.manual_seed(0)
    model = create_model('test_assemble_resnet', num_classes=arguments.pop('num_classes', CLASSES))
    dataset = arguments.pop('dataset', None) or create_dataset('', root=str(data), split='train')
    return store_teacher_logits(model, 'teacher', dataset, output, workers=0, progress=False,
                                **{'preprocessing': {'img_size': 64}, 'chunk_size': 8, **arguments})


def test_top_k_in_mixed_precision_is_near_the_full_rows(data, tmp_path):
    assert store_in_process(data, tmp_path / 's', top_k=2, amp=True).top_k == 2
    store_in_process(data, tmp_path / 'p')
    few, full = TeacherLogits(tmp_path / 's'), TeacherLogits(tmp_path / 'p')
    for i in range(len(few)):
        torch.testing.assert_close(few.probabilities(i), full.probabilities(i), rtol=0.1, atol=0.02)


def test_store_of_a_torchvision_folder_fits_timms(data, tmp_path):
    """Also with batches larger than a chunk."""
    store_in_process(data, tmp_path / 's', dataset=ImageFolder(str(data / 'train')), batch_size=100)
    TeacherLogits(tmp_path / 's').check(fingerprint(create_dataset('', root=str(data), split='train')), CLASSES)


def test_fewer_classes_in_the_data_warn_and_more_are_rejected(data, tmp_path):
    with pytest.warns(UserWarning, match='3 classes, the teacher 5'):
        store_in_process(data, tmp_path / 's', num_classes=5)
    with pytest.raises(ValueError, match='dataset must have at most 2 classes, those of teacher, got 3'):
        store_in_process(data, tmp_path / 't', num_classes=2)
    assert not (tmp_path / 't').exists()


@pytest.mark.parametrize('options', [
    ['--in-chans', '1'], ['--model-kwargs', 'in_chans=1'], ['--input-size', '1', '64', '64', '--mean', '0.4']])
def test_one_channel_teacher_gets_grey_images(data, command, tmp_path, options):
    torch.manual_seed(0)
    model = create_model('test_assemble_resnet', num_classes=CLASSES, in_chans=1)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'grey.pth')
    options = [*options, '--checkpoint', str(tmp_path / 'grey.pth'), '--output', str(tmp_path / 's')]
    assert main([*command, *options]) == 0
    config = json.loads((tmp_path / 's' / 'store.json').read_text())['preprocessing']
    assert config['input_size'] == [1, 64, 64] and len(config['mean']) == len(config['std']) == 1
    check_row(tmp_path / 's', 9, model, config, data / 'train' / 'class1' / '0.png', 'L')


def test_teacher_is_built_and_preprocesses_as_its_checkpoint_was_trained(data, tmp_path):
    torch.manual_seed(0)
    model = create_model('test_assemble_resnet', num_classes=CLASSES, global_pool='gem', aa_size=5)
    args = argparse.Namespace(
        model='test_assemble_resnet', num_classes=CLASSES, gp='gem', model_kwargs={'aa_size': 5}, mean=[0.4, 0.5, 0.6],
        std=[0.3, 0.2, 0.1], interpolation='bilinear', crop_pct=0.9, img_size=64)
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 't.pth.tar')
    assert main(['teacher-logits', '--model', 'test_assemble_resnet', '--checkpoint', str(tmp_path / 't.pth.tar'),
                 '--data-dir', str(data), '--device', 'cpu', '--workers', '0', '--output', str(tmp_path / 's')]) == 0
    config = dict(input_size=(3, 64, 64), mean=args.mean, std=args.std, interpolation='bilinear', crop_pct=0.9)
    check_row(tmp_path / 's', 9, model, config, data / 'train' / 'class1' / '0.png')


def test_a_checkpoint_may_begin_from_a_folder_or_a_tag_and_arguments_keep_the_weights(command, tmp_path, capsys):
    model = create_model('test_assemble_resnet', num_classes=CLASSES)
    save_for_hf(model, tmp_path / 'folder', safe_serialization=True)
    args = argparse.Namespace(model=f'local-dir:{tmp_path / "folder"}', num_classes=CLASSES)
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 't.pth.tar')
    arguments = [*command, '--checkpoint', str(tmp_path / 't.pth.tar'), '--output', str(tmp_path / 's')]
    assert main(arguments) == 0 and TeacherLogits(tmp_path / 's').num_classes == CLASSES
    assert main([*arguments, '--model-kwargs', 'num_classes=4']) == 2
    assert "--model-kwargs must be arguments that keep the weights, got 'num_classes'" in capsys.readouterr().err


def test_numbers_may_be_numpys(data, tmp_path):
    store_in_process(data, tmp_path / 's', top_k=np.int64(2), batch_size=np.int64(4), chunk_size=np.int64(8))
    for name, value in (('chunk_size', 0), ('batch_size', 2.0), ('top_k', -1)):
        with pytest.raises(ValueError, match=rf'^{name} must be an integer of . or more, got '):
            store_in_process(data, tmp_path / 't', **{name: value})


def test_input_img_mode_is_that_of_the_option(data, checkpoint, command, tmp_path, capsys):
    assert main([*command, '--input-img-mode', 'HSV', '--output', str(tmp_path / 's')]) == 0
    out, err = capsys.readouterr()
    assert 'logits of 27 images in 3 classes' in out and 'image/s' in err
    model = create_model('test_assemble_resnet', num_classes=CLASSES, checkpoint_path=str(checkpoint))
    config = resolve_data_config({'img_size': 64}, model=model, use_test_size=True)
    check_row(tmp_path / 's', 0, model, config, data / 'train' / 'class0' / '0.png', 'HSV')


@pytest.mark.parametrize('workers', ['0', '2'])
def test_unreadable_images_are_named_and_the_other_chunks_stay(store, data, command, tmp_path, capfd, workers):
    """With repaired files, the same command computes the missing chunks."""
    shutil.copytree(data / 'train', tmp_path / 'train')
    damaged = tmp_path / 'train' / 'class2' / '3.png'
    damaged.write_bytes(damaged.read_bytes()[:200])
    missing = tmp_path / 'train' / 'class0' / '7.png'
    missing.unlink()
    missing.symlink_to('nowhere')
    assert main([*command, '--data-dir', str(tmp_path), '--workers', workers, '--output', str(tmp_path / 's')]) == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if line and '| ' not in line]  # without the bar
    assert line == ('timm-assemble: --data-dir must have readable images, got 2 that cannot be read: class0/7.png '
                    'cannot be read: it is a link to nowhere, which does not exist; class2/3.png cannot be read: image '
                    'file is truncated; all chunks without them are stored')
    assert sorted(int(file.name) for file in (tmp_path / 's' / 'chunks').iterdir()) == [0, 2, 3, 4, 6]
    for file in (damaged, missing):
        file.unlink()
        shutil.copy(data / 'train' / file.parent.name / file.name, file)
    assert main([*command, '--data-dir', str(tmp_path), '--workers', workers, '--output', str(tmp_path / 's')]) == 0
    assert files_of(tmp_path / 's') == files_of(store)


@pytest.mark.parametrize('whole', [False, True])
def test_files_that_were_swapped_or_changed_are_noticed(data, tmp_path, whole):
    """A change in the middle of a large file, of which a checksum covers only the ends, by the whole content alone."""
    shutil.copytree(data / 'train', tmp_path / 'train')
    files = sorted((tmp_path / 'train').rglob('*.png'))
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(files[4], compress_level=0)
    store_in_process(tmp_path, tmp_path / 's', verify_content=whole)
    dataset, rows = create_dataset('', root=str(tmp_path), split='train'), TeacherLogits(tmp_path / 's')
    rows.check_content(dataset)
    contents = [file.read_bytes() for file in files]
    files[0].write_bytes(contents[1])
    files[1].write_bytes(contents[0])
    rows.check(fingerprint(dataset), CLASSES)  # the names are the same
    message = 'must have the content of .*s, got other content of 2 of 27 images, such as class0/0.png; write the store'
    with pytest.raises(ValueError, match=f'^dataset {message}'):
        rows.check_content(dataset)
    with pytest.raises(ValueError, match=f'^output {message}'):
        store_in_process(tmp_path, tmp_path / 's', verify_content=whole)
    for file, content in zip(files, contents):
        file.write_bytes(content)
    middle = len(contents[4]) // 2
    files[4].write_bytes(contents[4][:middle] + b'x' + contents[4][middle + 1:])
    if not whole:
        return rows.check_content(dataset)
    with pytest.raises(ValueError, match=r'got other content of 1 of 27 images, such as class0/4.png'):
        rows.check_content(dataset)


def test_sample_that_cannot_be_read_any_more_is_skipped_with_its_row(data, tmp_path, monkeypatch):
    """timm's own data set would give the next image under this label and row."""
    shutil.copytree(data / 'train', tmp_path / 'train')
    store_in_process(tmp_path, tmp_path / 's')
    dataset, rows = create_dataset('', root=str(tmp_path), split='train'), TeacherLogits(tmp_path / 's')
    (tmp_path / 'train' / 'class0' / '8.png').write_bytes(b'')
    dataset.transform = np.asarray
    warned = []  # pytest's caplog missed it in runs of all tests, where NNCF had set the class of later loggers
    monkeypatch.setattr(samples._logger, 'warning', warned.append)
    image, target = TeacherDataset(dataset, rows)[8]
    assert np.array_equal(image, np.asarray(Image.open(data / 'train' / 'class1' / '0.png')))
    assert torch.equal(target, torch.cat([torch.ones(1), rows.probabilities(9)]))
    assert len(warned) == 1 and 'class0/8.png' in warned[0]


def test_logits_that_are_not_finite_are_rejected(data, tmp_path):
    model = create_model('test_assemble_resnet', num_classes=CLASSES)
    torch.nn.init.constant_(model.get_classifier().bias, float('nan'))
    with pytest.raises(ValueError, match='model must give finite logits, got others for sample 0'):
        store_teacher_logits(model, 't', create_dataset('', root=str(data), split='train'), tmp_path / 's', workers=0)


def test_models_and_data_sets_that_would_give_other_logits_are_rejected(data, tmp_path):
    model = create_model('test_assemble_resnet', num_classes=CLASSES)
    dataset = create_dataset('', root=str(data), split='train')
    with pytest.raises(ValueError, match=r'^model must be in float32; `amp` .* got torch.bfloat16$'):
        store_teacher_logits(copy.deepcopy(model).bfloat16(), 't', dataset, tmp_path / 's')
    folder = ImageFolder(str(data / 'train'), transform=ToTensor())
    with pytest.raises(ValueError, match=r'^dataset must take its transform from its attribute `transform`, got '):
        store_teacher_logits(model, 't', Subset(folder, range(20)), tmp_path / 's', workers=0, device='cpu')


@pytest.mark.parametrize('model, message', [
    ('no/such', '--model no/such: timm knows no such model; '),
    ('local-dir:.', '--model local-dir:.: config.json must be JSON')])
def test_bad_models_without_a_checkpoint_are_one_line(data, tmp_path, model, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('config.json').write_text('{')
    assert main(['teacher-logits', '--model', model, '--data-dir', str(data), '--output', 's']) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1 and not Path('s').exists()


@pytest.mark.parametrize('change, message', [
    (('--model', 'test_asemble_resnet'), "--model must be a model name that timm knows, got 'test_asemble_resnet'; "
                                         'did you mean test_assemble_resnet, '),
    (('--model', 'no/such'), "must be a model name that timm knows, got 'no/such'"),
    (('--data-dir', 'nowhere'), '--data-dir must exist, got nowhere'),
    (('--data-dir', str(Path(__file__).parents[1] / 'golden')), 'Found 0 images'),
    (('--dataset', 'torch/none'), 'none'),
    (('--checkpoint', 'nothing.pth'), "--checkpoint must be a file, got 'nothing.pth'"),
    (('--model', 'local-dir:.'), '--checkpoint must be left out with a folder or a '),
    (('--model-kwargs', 'width=16'), 'size mismatch'),
    (('--num-classes', '4'), '--num-classes must be 3, the classes of test_assemble_resnet, got 4'),
    (('--top-k', '-1'), 'must be an integer of 0 or more'),
    (('--top-k', '3'), '--top-k must be from 0 to 2, '),
    (('--mean', '.5', '.5'), '--mean must have one value or 3, got 2'),
    (('--device', 'meta'), "--device must be available, got 'meta'"),
    (('--model-kwargs', 'colour=3'), "--model-kwargs must be arguments of test_assemble_resnet, got 'colour'"),
    (('--device', 'nonsense'), "--device must be available, got 'nonsense'"),
    pytest.param(('--device', 'cuda', '--workers', '2'), "--device must be available, got 'cuda'",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason='CUDA is available')),
    (('--input-img-mode', 'L'), "--input-img-mode must be a mode with 3 channels, those of test_assemble_resnet, got "),
    (('--input-img-mode', 'XYZ'), '--input-img-mode must be a mode with 3 channels')])
def test_bad_use_is_one_line(command, tmp_path, change, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('config.json').write_text('{')
    try:
        status = main([*command, *change, '--output', str(tmp_path / 's')])
    except SystemExit as e:
        status = e.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count('\n') == 1, error
    assert not (tmp_path / 's').exists()
