"""The store of views: records, kills, ranks, more views, and what is rejected; with the command line."""
import json
import os
import pickle
import random
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from timm import create_model
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from timm_assemble.__main__ import main
from timm_assemble.training import TeacherLogits, TeacherViews, describe_transform, fingerprint, seeded_generators
from timm_assemble.training.view_mixing import draw_view
from timm_assemble.training.view_transform import checksum, make_view_transform, view_seed

from .._ranks import run_ranks
from ._views import CLASSES, SIZE, TRANSFORM, dataset_of, store_views, teacher, write_images
from .test_precompute import files_of

VIEWS = 3


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def store(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('store') / 's'
    store_views(root, folder)
    return folder


@pytest.fixture(scope='module')
def command(root, tmp_path_factory):
    """The command that gives ``store``, by a configuration of train.py and options that override it."""
    folder = tmp_path_factory.mktemp('command')
    torch.save(teacher().state_dict(), folder / 'teacher.pth')
    (folder / 'mine.yaml').write_text(
        f'model: test_assemble_resnet\nimg_size: {SIZE}\nscale: [0.3, 1.0]\naa: original\nmean: [0.4, 0.5, 0.6]\n'
        f'data_dir: {root}\ngrayscale_prob: 0.2\nepochs: 3\nbatch_size: 2\nlr: 0.1\n')
    return ['teacher-logits', '--model', 'test_assemble_resnet', '--checkpoint', str(folder / 'teacher.pth'),
            '--num-classes', str(CLASSES), '-c', str(folder / 'mine.yaml'), '--aa', TRANSFORM['auto_augment'],
            '--chunk-size', '8', '--batch-size', '4', '--workers', '0', '--device', 'cpu']


def records_of(folder, view):
    return np.load(folder / f'view-{view:04}.npy')


def test_records_are_those_of_a_loop_over_views(root, store):
    dataset, model = dataset_of(root), teacher().eval()
    transform = make_view_transform(describe_transform(**TRANSFORM))
    mean, std = (255 * torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ('mean', 'std'))
    views = TeacherViews(store)
    assert (views.views, len(views), views.num_classes, views.info.top_k) == (VIEWS, 27, CLASSES, 0)
    for view in range(VIEWS):
        for index, name in enumerate(dataset.filenames(absolute=True)):
            seed = view_seed(0, index, view)
            with Image.open(name) as image, seeded_generators(seed):
                pixels = transform(image.convert('RGB'))
            assert views.replay(index, view) == (seed, checksum(pixels))
            with torch.inference_mode():
                logits = model(((pil_to_tensor(pixels).float() - mean) / std)[None])[0]
            for temperature in (1.0, 3.0):
                torch.testing.assert_close(views.probabilities(index, view, temperature),
                                           (logits / temperature).softmax(0), rtol=5e-3, atol=1e-4)
    views.check(fingerprint(dataset), CLASSES, describe_transform('RGB', **TRANSFORM))
    assert str(root) not in (store / 'store.json').read_text()


def test_largest_logits_and_the_rest_are_stored(root, store, tmp_path):
    """In records of a size that is known beforehand."""
    store_views(root, tmp_path / 's', top_k=2)
    assert records_of(tmp_path / 's', 0).dtype.itemsize == 4 + 4 + 2 * 2 + 2 * 2 + 2
    few, full = TeacherViews(tmp_path / 's'), TeacherViews(store)
    for index in range(27):
        torch.testing.assert_close(few.probabilities(index, 1), full.probabilities(index, 1), rtol=5e-3, atol=1e-4)


def test_teacher_of_another_size_gets_resized_views(root, tmp_path):
    model, shapes = teacher(), set()
    model.stem.register_forward_pre_hook(lambda module, inputs: shapes.add(inputs[0].shape[-2:]))
    store_views(root, tmp_path / 's', 1, model, teacher_size=64)
    assert shapes == {(64, 64)} and TeacherViews(tmp_path / 's').info.preprocessing['size'] == [64, 64]


def test_command_line_takes_the_arguments_of_the_training(store, command, tmp_path, capsys):
    assert main([*command, '--views', str(VIEWS), '--output', str(tmp_path / 's')]) == 0
    ours, theirs = (json.loads((folder / 'store.json').read_text()) for folder in (tmp_path / 's', store))
    ours['teacher']['name'] = 'teacher'
    assert ours['transform'].pop('interpolation') == theirs['transform'].pop('interpolation') == 'random'
    assert ours == theirs
    assert all(np.array_equal(records_of(tmp_path / 's', v), records_of(store, v)) for v in range(VIEWS))
    out, err = capsys.readouterr()
    assert '3 views of 27 images in 3 classes, 0.00 MB; train with --kd-model-name views:' in out and 'view/s' in err


def test_recipe_gives_the_transform_of_its_training(root, command, tmp_path):
    arguments = [word for word in command if not word.endswith('.yaml')]
    arguments[arguments.index('-c') + 1:arguments.index('-c') + 1] = ['assemble_resnet50', '--data-dir', str(root)]
    arguments = arguments[:arguments.index('--aa')] + arguments[arguments.index('--aa') + 2:]
    assert main([*arguments, '--views', '1', '--img-size', '32', '--output', str(tmp_path / 's')]) == 0
    assert TeacherViews(tmp_path / 's').info.transform == describe_transform(
        'RGB', input_size=[3, 32, 32], train_crop_mode='official', color_jitter=0.0, auto_augment='official',
        interpolation='random', mean=(123.68 / 255, 116.78 / 255, 103.94 / 255))


def test_more_views_are_added_to_a_store(root, store, tmp_path):
    """The first ones stay as they are, and the store can be read meanwhile."""
    store_views(root, tmp_path / 's', 1)
    first = records_of(tmp_path / 's', 0)
    model = teacher()
    seen = []

    def watch(module, inputs):
        seen.append(len(inputs[0]))
        assert TeacherViews(tmp_path / 's').views == 1
    model.register_forward_pre_hook(watch)
    store_views(root, tmp_path / 's', VIEWS, model)
    assert sum(seen) == (VIEWS - 1) * 27 and np.array_equal(records_of(tmp_path / 's', 0), first)
    assert files_of(tmp_path / 's') == files_of(store)
    with pytest.warns(UserWarning, match='/s has 3 views already; views=2 changes nothing$'):
        assert store_views(root, tmp_path / 's', 2).views == VIEWS
    assert files_of(tmp_path / 's') == files_of(store)


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_store_that_is_killed_resumes_to_the_same_bytes(root, store, tmp_path):
    """At random moments, in new and in growing stores; each kill is followed by kills until a run ends."""
    rng = random.Random(0)

    def run(folder, views, seconds):
        """Run in a process that is killed after some time; return whether it ended by itself."""
        if pid := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        try:
            tqdm.set_lock(threading.RLock())  # its own is shared by processes, and stays locked by one that is killed
            signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            store_views(root, folder, views, chunk_size=8)
            os._exit(0)
        finally:
            os._exit(1)

    kills, turn = 0, 0
    while kills < 20:
        folder, limit = tmp_path / str(turn), 0.02
        for views in (1, VIEWS):
            while not run(folder, views, rng.uniform(0, limit)):
                kills, limit = kills + 1, limit * 1.5
        assert files_of(folder) == files_of(store)
        turn += 1


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_two_ranks_write_the_same_bytes(store, command, tmp_path):
    printed = run_ranks(lambda: main([*command, '--views', str(VIEWS), '--output', str(tmp_path / 's')]), tmp_path)
    assert all(np.array_equal(records_of(tmp_path / 's', v), records_of(store, v)) for v in range(VIEWS))
    assert ''.join(printed).count('3 views of 27 images') == 1


def test_pickle_has_no_records(store):
    views = TeacherViews(store)
    pickled = pickle.dumps(views)
    assert len(pickled) < 2000 and torch.equal(pickle.loads(pickled).probabilities(4, 1), views.probabilities(4, 1))


def test_view_that_cannot_be_made_is_drawn_again(tmp_path):
    """timm's commonest policy posterizes to 0 bits, which Pillow 13 rejects; the record's seed replays the view."""
    root = write_images(tmp_path / 'data', 60, (32, 32))
    transform = dict(TRANSFORM, auto_augment='rand-m9-mstd0.5-inc1')
    made, calls = make_view_transform(describe_transform('RGB', **transform)), []

    def failing(image):
        calls.append(random.random())
        if calls[-1] < 0.2:
            raise ValueError('bits must be between 1 and 8')
        return made(image)

    image = Image.new('RGB', (40, 40), (9, 8, 7))
    for index in range(30):
        view, seed = draw_view(failing, None, [image], 5, index, 1)
        with seeded_generators(seed):
            assert checksum(failing(image)) == checksum(view)
        assert seed == view_seed(5, index, 1, next(a for a in range(20) if view_seed(5, index, 1, a) == seed))
    assert len(calls) > 60
    with pytest.raises(ValueError, match='transform must give views, got an error with 20 seeds for view 1 of sample '):
        draw_view(lambda image: int('x'), None, [image], 5, 0, 1)
    store_views(root, tmp_path / 's', 2, transform=transform, batch_size=60)


def half(folder):
    info = json.loads((folder / 'store.json').read_text())
    (folder / 'store.json').write_text(json.dumps({**info, 'complete': False}))


def damage_record(folder, field, value):
    records = np.load(folder / 'view-0001.npy')
    records[field][7] = value
    np.save(folder / 'view-0001.npy', records)


DAMAGES = {
    'truncated': (lambda s: os.truncate(s / 'view-0001.npy', 200), 'view-0001.npy must be a complete .npy file'),
    'missing': (lambda s: (s / 'view-0002.npy').unlink(), 'view-0002.npy is missing'),
    'records': (lambda s: np.save(s / 'view-0000.npy', np.zeros(27, [('seed', 'u4')])), 'view-0000.npy must hold'),
    'values': (lambda s: damage_record(s, 'logits', np.nan), r'view-0001.npy must have finite values in every .* 7$'),
    'half': (half, r'path must be a complete store, got .* with 0 of 12 chunks; resume the teacher-logits command'),
    'no store.json': (lambda s: (s / 'store.json').unlink(), 'path must be a store of teacher views, .* has no')}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_store_is_reported_in_one_line(store, tmp_path, damage):
    do_damage, message = DAMAGES[damage]
    shutil.copytree(store, tmp_path / 's')
    do_damage(tmp_path / 's')
    with pytest.raises(ValueError, match=message) as error:
        TeacherViews(tmp_path / 's')
    assert '\n' not in str(error.value)


def test_stores_of_logits_and_of_views_are_told_apart(store, tmp_path):
    with pytest.raises(ValueError, match=r"logits 2', got 'timm_assemble teacher views 2'$"):
        TeacherLogits(store)
    (tmp_path / 'file').touch()
    for path, message in ((tmp_path / 'file', 'got .*file: Not a directory'), ('', "got '', which is empty"),
                          (tmp_path / 'none', "got '.*none', which does not exist")):
        with pytest.raises(ValueError, match=f'path must be a store of teacher views, {message}'):
            TeacherViews(path)


def test_check_names_what_differs(root, store):
    views, samples = TeacherViews(store), fingerprint(dataset_of(root))
    for classes, change, message in (
            (4, {}, 'num_classes must be 3'), (3, dict(hflip=0.1), f'transform must be that of {store}, `hflip` 0.5, '
                                                                    f'got 0.1'),
            (3, dict(mean=(0.1, 0.5, 0.6)), r'`fill` \[102, 128, 153\], got \[26, 128, 153\]')):
        with pytest.raises(ValueError, match=message):
            views.check(samples, classes, describe_transform('RGB', **{**TRANSFORM, **change}))


@pytest.mark.parametrize('change, message', [
    (('--views', '0'), 'argument --views: must be an integer of 1 or more'),
    (('--scale', '0.5', '1'), '--scale needs --views: logits are of unaugmented images'),
    (('--views', '2', '-c', 'nothing'), "--config must be a file or a recipe, got 'nothing'"),
    (('--views', '2', '-c', 'empty.yaml'), '--student must be the model of the training to come, or --config '),
    (('--views', '2', '--student', 'resnet'), '--student must be a model that timm builds: model resnet: timm knows '),
    (('--views', '2', '--top-k', '3'), '--top-k must be from 0 to 2'),
    (('--views', '2', '--hflip', '0.1', '--output', 'STORE'), 'with transform: --hflip 0.5 instead of 0.1'),
    (('--views', '2', '--view-seed', '1', '--output', 'STORE'), 'with `seed` 0 instead of 1'),
    (('--views', '2', '--mixup', '0.2'), '--mixup needs --mixed: other views are mixed in training'),
    (('--views', '2', '--mixed'), '--mixup must be positive, or --cutmix or --cutmix-minmax, for views of mixed '),
    (('--views', '2', '--mixed', '--mixup', '1', '--output', 'STORE'), 'with transform: --mixup None instead of 1.0'),
    (('--views', '2', '--input-img-mode', 'L'), '--input-img-mode must be a mode with 3 channels'),
    (('--views', '2', '--aa', 'rand-z9'), 'transform must be one that timm builds, got AssertionError: Unknown ')])
def test_bad_use_is_one_line(root, store, command, tmp_path, change, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty.yaml').write_text('epochs: 3\n')
    data = ['--data-dir', str(root)]
    arguments = command if '-c' not in change and '--scale' not in change else [
        *command[:command.index('-c')], *command[command.index('--chunk-size'):], *data]
    shutil.copytree(store, tmp_path / 'STORE')
    info = json.loads((tmp_path / 'STORE' / 'store.json').read_text())
    info['teacher']['name'] = 'test_assemble_resnet'
    (tmp_path / 'STORE' / 'store.json').write_text(json.dumps(info))
    try:
        status = main([*arguments, '--output', 'new', *change])
    except SystemExit as e:
        status = e.code
    error = capsys.readouterr().err
    assert status == 2 and message in error and error.count('\n') == 1, error
    assert not (tmp_path / 'new').exists()


def test_model_of_another_number_of_channels_is_rejected(root, tmp_path):
    model = create_model('test_assemble_resnet', num_classes=CLASSES, in_chans=1)
    with pytest.raises(ValueError, match='model must have as many input channels as the views, 3, got 1 of teacher'):
        store_views(root, tmp_path / 's', 1, model)
