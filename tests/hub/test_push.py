"""Publishing and loading over HTTP, with a server of the tests. The one who loads is a process with an empty cache."""
import re
import socket
import time
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard

from timm_assemble.models.family import registered_models

from .._hub_server import running_hub
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
    ('hang', 'gave no answer within 1 s while uploading, and nothing of it is published'),
    ('vanish', 'and whether it is published could not be looked up: see '),
])
def test_a_failed_commit_is_looked_up(hub, command, folder, mode, message):
    repo = f'user/{mode}'
    hub.failing = {'/commit/': mode}
    start = time.monotonic()
    _is_one_sentence(command(repo, '--timeout', '1'), message)
    assert time.monotonic() - start < 20
    assert bool(hub.repos[repo].find('main')[1]) == (mode == 'vanish')
    hub.failing = {}
    assert command(repo)[0] == 0
    assert hub.repos[repo].find('main')[1]['model.safetensors'] == (folder / 'model.safetensors').read_bytes()


def test_a_commit_whose_answer_is_lost_is_found(hub, command):
    hub.failing = {'/commit/': 'drop'}
    status, out, _ = command('user/lost')
    assert status == 0 and f'published: {hub.url}/user/lost/commit/{hub.repos["user/lost"].find("main")[0]}\n' in out


PARTS = '/create', '/revision/', '/validate-yaml', '/preupload/'


@pytest.mark.parametrize('part, mode', [
    *((part, 'page') for part in PARTS), *((part, 'hang') for part in (*PARTS, '/branch/'))])
def test_a_captive_portal_or_a_hanging_server_is_one_sentence(hub, command, mode, part):
    message = {'page': 'perhaps it is the login page of this network', 'hang': 'gave no answer within 1 s while '}[mode]
    hub.failing = {part: mode}
    start = time.monotonic()
    _is_one_sentence(command('user/x', '--revision', 'trial', '--timeout', '1'), message)
    assert time.monotonic() - start < 20
