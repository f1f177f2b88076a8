"""Wrong names, full disks, bugs, and ranks that end."""
import errno
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from timm_assemble.__main__ import main
from timm_assemble.errors import UserError
from timm_assemble.evaluation.figures import drawable
from timm_assemble.evaluation.results import file_names
from timm_assemble.robustness import evaluate
from timm_assemble.runtime.ranks import Ranks

from .._ranks import run_ranks
from ..robustness._samples import cached_records, error_of, red_over_half, write_image

KILLS = int(os.environ.get('KILLS', 2))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Twelve images of two classes, one of which cannot be read, and a model."""
    root = tmp_path_factory.mktemp('images')
    for i in range(12):
        write_image(root / 'images' / 'ab'[i % 2] / f'{i:02d}.png', Image.new('RGB', (48, 48), (20 * i, 9, 0)))
    (root / 'images' / 'a' / '04.png').write_bytes(b'?')
    torch.manual_seed(0)
    save_file(timm.create_model('test_assemble_resnet', num_classes=2).state_dict(), root / 'm.safetensors')
    return root


def command(name, images, output, *more):
    folders = dict(robustness=('--generate', images / 'images', '--corruptions', 'gaussian_noise', 'brightness',
                               '--keep-predictions'),
                   retrieval=('--data-dir', images / 'images'))[name]
    return [*map(str, (name, f'm=test_assemble_resnet={images / "m.safetensors"}', *folders, '--output', output,
                       '--workers', 0, '--input-size', 32, '--batch-size', 3, *more))]


@pytest.mark.parametrize('labels', [('a/b', 'a b'), ('A', 'a'), ('x' * 300, 'x' * 150 + 'y' + 'x' * 150)])
def test_labels_that_would_name_one_file_are_rejected(labels, tmp_path):
    with pytest.raises(UserError, match='models must have names that differ as file names, got '):
        evaluate(dict.fromkeys(labels, red_over_half), clean=tmp_path, input_size=32)


@pytest.mark.parametrize('options, message', [
    (dict(test_sets={'clean': 'x'}), 'test_sets must be named otherwise than clean, .*clean'),
    (dict(test_sets={'imagenet': 'x'}), 'test_sets must be named otherwise than'),
    (dict(test_sets={'a/b': 'x'}), "test_sets must have names of letters, .*got 'a/b'"),
    (dict(test_sets={'..': 'x'}), r"test_sets must have names of .*got '\.\.'"),
    (dict(test_sets={'mine': 'x'}, ood={'mine': 'y'}), 'ood must have names that differ|ood must be'),
    (dict(ood={'Corruption': 'x'}), 'ood must be named otherwise than'),
    (dict(test_sets={'imagenet-a': 'x', 'imagenet-a-clean': 'y'}), 'test_sets must be named otherwise than'),
    (dict(ood={'a': 'x', 'A': 'y'}), 'ood must have names that differ as file names'),
])
def test_names_of_sets_that_results_could_not_hold_are_rejected(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        evaluate(red_over_half, clean=tmp_path, input_size=32, **options)


def test_file_names_are_readable_and_short():
    assert file_names(['hf-hub:user/name', '模型'], 'models') == {
        'hf-hub:user/name': 'hf-hub_user_name', '模型': '模型'}
    [name] = file_names(['x' * 500], 'models').values()
    assert len(name) < 100


def test_unknown_arguments_are_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'folder'"):
        evaluate(red_over_half, folder='x')


def test_bug_in_the_statistics_shows_its_traceback(images, tmp_path, monkeypatch):
    def bug(values):
        raise ValueError('operands could not be broadcast')
    monkeypatch.setattr('timm_assemble.robustness.report.percentiles', bug)
    with pytest.raises(ValueError, match='operands could not be broadcast') as caught:
        main(command('robustness', images, tmp_path))
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize('name', ['robustness', 'retrieval'])
def test_full_disk_and_file_as_output_name_option_and_path(images, tmp_path, monkeypatch, capsys, name):
    (tmp_path / 'file').write_text('')
    assert f'--output {tmp_path / "file"}' in error_of(capsys, *command(name, images, tmp_path / 'file'))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Path, 'write_text', full)
    line = error_of(capsys, *command(name, images, tmp_path / 'o'))
    assert line == f'timm-assemble: --output {tmp_path / "o" / "results.json"}: No space left on device'


def test_labels_of_figures_have_no_boxes_and_are_cut_in_the_middle():
    from timm_assemble.evaluation.figures import _fonts
    installed = any(ord('鳥') in characters for _, characters in _fonts())
    assert drawable('鳥') == ('鳥' if installed else r'\u9ce5') and drawable('Kläranlage é') == 'Kläranlage é'
    assert drawable('x' * 30 + 'y' * 30, 11) == 'xxxxx…yyyyy'


def _user_error():
    raise UserError('models must fit, got none', parameter='models')


def _raise_on_all(folder):
    with Ranks() as ranks:
        try:
            ranks.from_first(_user_error)
        except UserError as e:
            (folder / f'rank{ranks.rank}').write_text(f'{e.parameter}: {e}')
    return 0


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_user_errors_of_the_first_rank_are_raised_on_all(tmp_path):
    run_ranks(lambda: _raise_on_all(tmp_path), tmp_path)
    assert [(tmp_path / f'rank{i}').read_text() for i in range(2)] == ['models: models must fit, got none'] * 2


@pytest.fixture(scope='module', params=['robustness', 'retrieval'])
def undisturbed(request, images, tmp_path_factory):
    output = tmp_path_factory.mktemp('whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('timm_assemble.retrieval.embeddings.CHUNK', 2)
        patch.setattr('timm_assemble.robustness.statistics.RESAMPLES', 20)
        assert main(command(request.param, images, output)) == 2
        yield request.param, output


def whole_files(output):
    """Return all that a run wrote, but for what two runs may differ in."""
    assert not [path for path in output.rglob('.*')]  # no temporary file is left
    values = json.loads((output / 'results.json').read_text())
    values.pop('run')
    files = sorted(str(path.relative_to(output)) for path in output.rglob('*') if 'cache' not in path.parts)
    return values, [f for f in files if not f[0].isdigit()], (output / 'results.csv').read_text(), str(
        sorted(cached_records(output / 'cache').items()))


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_ranks_end_together_after_the_files_are_whole(undisturbed, images, tmp_path):
    """The first process that ends with an error ends the others, as in torchrun."""
    name, whole = undisturbed
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match='AssertionError'):
        run_ranks(lambda: main(command(name, images, tmp_path / 'o')), tmp_path)
    assert whole_files(tmp_path / 'o') == whole_files(whole)


def _rank(rank, arguments, port):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE='2', RANK=str(rank),
                      LOCAL_RANK=str(rank))
    with open(os.devnull, 'w') as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    os._exit(main(arguments))


@pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning')
def test_one_of_two_ranks_is_killed_at_any_moment(undisturbed, images, tmp_path):
    """Afterwards one process finishes, and has the results of one undisturbed process."""
    import socket
    name, whole = undisturbed
    rng, fork = random.Random(7), multiprocessing.get_context('fork')
    for kill in range(KILLS):
        output = tmp_path / str(kill) / 'o'
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        ranks = [fork.Process(target=_rank, args=(rank, command(name, images, output), port)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        victim, delay = rng.randrange(2), rng.uniform(0.05, 2.5)
        while not output.exists() and all(rank.is_alive() for rank in ranks):
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(ranks[victim].pid, signal.SIGKILL)
        ranks[victim].join()
        ranks[1 - victim].join(0.3)
        ranks[1 - victim].terminate()  # as torchrun does
        ranks[1 - victim].join()
        before = {path: path.stat().st_mtime_ns for path in output.glob('cache/[!.]*.npz')}
        assert main(command(name, images, output)) == 2
        assert {path: path.stat().st_mtime_ns for path in before} == before, f'kill {kill}: cached results were lost'
        assert whole_files(output) == whole_files(whole), f'kill {kill} of rank {victim} after {delay:.2f} s'
