"""Publishing and loading over HTTP, with a server of the tests. The one who loads is a process with an empty cache."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard

from timm_assemble.models.family import registered_models

from .._hub_server import Repo, running_hub
from .._published import (
    FOLDER, FOUR_CHANNELS, MODELS, VARIANTS, WITH_EMA, logits, pull, push, write_checkpoint, write_folder,
)


@pytest.fixture(scope='module')
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope='module')
def published(hub, tmp_path_factory):
    """Every registered model with its own arguments, and one repository with a change and a branch, pushed and pulled.

    Attributes by kind or revision: ``said``, the command's output, ``models``, ``cards``, the published README.md,
    ``pulled``, logits, and ``prints``, what the cards' code prints.
    """
    root = tmp_path_factory.mktemp('published')
    models, said = {}, {}
    for kind in MODELS:
        path, options = root / kind, ()
        if kind in (WITH_EMA, FOUR_CHANNELS):
            path, models[kind] = write_checkpoint(path, kind)
            options = ('--output', root / f'{kind}-made')
        else:
            models[kind] = write_folder(path, kind)
        status, said[kind], err = push(hub.url, path, f'user/{kind}', *options)
        assert status == 0, err
    again = {name: write_folder(root / f'again{i}', seed=i) for i, name in enumerate(('first', 'main', 'trial'))}
    for i, *more in ((0,), (0,), (1,), (2, '--revision', 'trial')):
        status, said['again'], err = push(hub.url, root / f'again{i}', 'user/again', *more)
        assert status == 0, err
    first = hub.repos['user/again'].branches['main'][1][0]
    models.update({f'again@{first if name == "first" else name}': model for name, model in again.items()})
    cards = {kind: hub.repos[f'user/{kind}'].find('main')[1]['README.md'].decode() for kind in VARIANTS}
    usages = [card.split('## Usage\n')[1] for card in cards.values()]
    codes = [code for usage in usages for code in re.findall(r'^```python\n(.*?)^```', usage, flags=re.S | re.M)]
    pulled, prints = pull(hub.url, root, [f'hf-hub:user/{kind}' for kind in models], codes)
    return SimpleNamespace(
        said=said, models=models, cards=cards, pulled=dict(zip(models, pulled)),
        prints=dict(zip(cards, prints, strict=True)))


def test_pulled_logits_are_equal(published):
    """To the last bit, from an empty cache and without a token."""
    for kind, model in published.models.items():
        assert torch.equal(published.pulled[kind], logits(model)) and published.pulled[kind].isfinite().all(), kind
    names = {model.pretrained_cfg['architecture'] for model in published.models.values()}
    assert names == set(registered_models())


def test_push_again_with_a_change_and_to_a_branch(hub, published):
    repo = hub.repos['user/again']
    assert "'hf-hub:user/again@trial'" in published.said['again']
    assert "'hf-hub:user/again@trial'" in repo.find('trial')[1]['README.md'].decode()
    assert len(repo.branches['main']) == 3, 'made, pushed, changed: a push without a change makes no commit'


@pytest.mark.parametrize('kind', VARIANTS)
def test_safe_files_and_a_card_that_huggingface_hub_reads_are_published(hub, published, kind):
    assert {*hub.repos[f'user/{kind}'].find('main')[1]} == {'config.json', 'model.safetensors', 'README.md'}
    card = published.cards[kind]
    data = ModelCard(card, ignore_metadata_errors=False).data
    body = card.split('\n---\n', 1)[1]
    assert 'import timm_assemble' in body[:500] and 'Unknown model' in body[:500]
    assert '/somewhere' not in card and 'local-dir' not in card
    if kind == FOLDER:
        assert 'Nothing has been measured' in card and data.eval_results is None and '## Training' not in card
        return
    assert data.datasets == ['cifar10'] and data.metrics == ['accuracy']
    assert [(r.dataset_name, r.metric_value) for r in data.eval_results] == [('cifar10', 61.25)]
    assert '| `lr` | 0.05 |' in card and 'after epoch 3' in card
    weights = 'the exponential moving average (EMA)' if kind == WITH_EMA else (
        'the trained ones; the checkpoint has no EMA')
    assert f'{weights}, after epoch 3' in published.said[kind] and f'{weights}, after epoch 3' in card


@pytest.mark.parametrize('kind', VARIANTS)
def test_the_cards_code_runs_as_pasted(published, kind):
    usage = published.cards[kind].split('## Usage\n')[1]
    assert 'pip install .  # in a clone of timm_assemble' in usage and '\nimport timm_assemble ' in usage
    lines, args = published.prints[kind].splitlines(), VARIANTS[kind][1]
    assert sum(line.startswith('class ') for line in lines) == min(5, args['num_classes'])
    assert sum(line.startswith('stride ') for line in lines) == 5
    assert f'embedding (1, {args.get("embedding_size") or 32 * args["width"]})' in lines


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pushed') / 'model'
    write_folder(folder, seed=4)
    (folder / 'README.md').write_text('---\nlibrary_name: timm\n---\nimport timm_assemble\n')  # else one is generated
    return folder


@pytest.fixture
def command(hub, folder):
    """``push`` of the folder, which must not change; returns status, output and errors."""
    def run(repo, *options, url=hub.url, **kwargs):
        before = {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}
        done = push(url, folder, repo, *options, **kwargs)
        assert before == {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}
        return done

    yield run
    hub.failing.clear()


def _is_one_sentence(done, message):
    status, _, err = done
    assert status == 2 and err.count('\n') == 1 and message in err, err


def test_private_is_rejected_for_a_public_repository(hub, command):
    assert command('user/secret', '--private')[0] == command('user/open')[0] == 0
    assert hub.repos['user/secret'].private
    _is_one_sentence(command('user/open', '--private'), '--private needs a new or a private repository, and user/open')


def test_missing_rights_are_one_sentence(hub, command):
    assert command('user/taken')[0] == 0
    for token, repo, message in (
            ('', 'user/x', 'the Hub needs a token: log in with `hf auth login` or set HF_TOKEN'),
            ('hf_wrong', 'user/x', 'the Hub does not accept the token'),
            ('hf_writer', 'other/x', "the token may not make a repository as 'other'"),
            ('hf_other', 'user/taken', 'user/taken exists and the token may not write to it')):
        _is_one_sentence(command(repo, token=token), message)


def test_no_network_is_one_sentence(command):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{closed.getsockname()[1]}'
        _is_one_sentence(command('user/x', url=url), f'the connection to {url} failed while creating the repository')


@pytest.mark.parametrize('mode, message', [
    ('break', '), and nothing of it is published; the same command can be repeated'),
    ('page', 'the login page of this network, and nothing of it is published'),
    ('vanish', 'and whether it is published could not be looked up: see '),
])
def test_a_failed_commit_is_looked_up(hub, command, folder, mode, message):
    repo = f'user/{mode}'
    hub.failing = {'/commit/': mode}
    _is_one_sentence(command(repo), message)
    assert bool(hub.repos[repo].find('main')[1]) == (mode == 'vanish')
    hub.failing = {}
    assert command(repo)[0] == 0
    assert hub.repos[repo].find('main')[1]['model.safetensors'] == (folder / 'model.safetensors').read_bytes()


def test_a_commit_whose_answer_is_lost_is_found(hub, command):
    hub.failing = {'/commit/': 'drop'}
    status, out, _ = command('user/lost')
    assert status == 0 and f'published: {hub.url}/user/lost/commit/{hub.repos["user/lost"].find("main")[0]}\n' in out


@pytest.mark.parametrize('part', ['/create', '/revision/', '/validate-yaml', '/preupload/'])
def test_a_captive_portal_is_one_sentence(hub, command, part):
    hub.failing = {part: 'page'}
    _is_one_sentence(command('user/x', '--revision', 'trial'), 'perhaps it is the login page of this network')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_upload_that_is_stopped_in_a_large_file_publishes_nothing_and_can_be_repeated(hub, folder, tmp_path, number):
    repo, sent = f'user/stopped{number.value}', shutil.copytree(folder, tmp_path / 'model')
    (sent / 'large.csv').write_bytes(b'0' * 20_000_000)
    hub.failing = {'/commit/': 'stall'}
    hub.stalled.clear()
    hub.resume.clear()
    env = {**os.environ, 'HF_ENDPOINT': hub.url, 'HF_TOKEN': 'hf_writer', 'HF_HUB_DISABLE_XET': '1'}
    process = subprocess.Popen([sys.executable, '-m', 'timm_assemble', 'push', sent, repo], env=env,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a job may ignore it
    assert hub.stalled.wait(120)
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert 'Traceback' not in process.communicate()[1]
    hub.resume.set()
    hub.failing = {}
    assert not hub.repos[repo].find('main')[1]
    assert push(hub.url, sent, repo)[0] == 0
    assert len(hub.repos[repo].find('main')[1]['large.csv']) == 20_000_000


@pytest.mark.parametrize('kind, message', [
    ('page', 'model.safetensors cannot be fetched: (Response from .* is missing|Distant resource does not seem)'),
    ('broken', 'model.safetensors is damaged: Error while deserializing header')])
def test_pull_tells_why_weights_are_missing(hub, folder, tmp_path, kind, message):
    """timm would report that pytorch_model.bin does not exist."""
    repo = hub.repos[f'user/no-weights-{kind}'] = Repo(False)
    weights = (folder / 'model.safetensors').read_bytes()
    config = (folder / 'config.json').read_bytes()
    repo.commit('main', {'config.json': config, 'model.safetensors': weights[:-100]}, 'x')
    hub.failing = {f'{kind}/resolve/main/model.safetensors': kind}
    env = {**os.environ, 'HF_ENDPOINT': hub.url, 'HF_HOME': str(tmp_path), 'HF_HUB_DISABLE_XET': '1'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'timm_assemble', 'export', f'hf-hub:user/no-weights-{kind}',
         tmp_path / 'x.pt2'], env=env, capture_output=True, text=True, timeout=240)
    hub.failing = {}
    assert done.returncode == 2 and re.search(message, done.stderr) and 'pytorch_model.bin' not in done.stderr
