"""Publishing and loading over HTTP, with a server of the tests; two people are two processes with empty caches."""
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import timm
import torch
from huggingface_hub import ModelCard, constants

from timm_assemble.cli.main import main

from .._hub_server import running_hub
from .._published import (
    FOLDER, FOUR_CHANNELS, OTHERS, VARIANTS, WITH_EMA, environment, logits, pull, push, push_in_turn, write_checkpoint,
    write_folder,
)


@pytest.fixture(scope='module')
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope='module')
def published(hub, tmp_path_factory):
    """Push the three variants; return the finished commands, the models and the paths by kind."""
    root, done, models, paths = tmp_path_factory.mktemp('published'), {}, {}, {}
    for kind in VARIANTS:
        if kind == FOLDER:
            paths[kind], models[kind] = root / kind, write_folder(root / kind)
        else:
            paths[kind], models[kind] = write_checkpoint(root / kind, kind)
        done[kind] = push(environment(hub.url, root / 'home'), paths[kind], f'user/{kind}')
        assert done[kind].returncode == 0, done[kind].stderr
    return done, models, paths


def test_pulled_logits_are_equal(hub, published, tmp_path):
    """Every registered model with its own arguments, to the last bit, from an empty cache and without a token."""
    models = {**published[1], **{name: write_folder(tmp_path / name, name) for name in OTHERS}}
    for done in push_in_turn(environment(hub.url, tmp_path / 'pusher'),
                             *(('hf_writer', tmp_path / name, f'user/{name}') for name in OTHERS)):
        assert done.returncode == 0, done.stderr
    pulled = pull(environment(hub.url, tmp_path / 'home', token=None), tmp_path / 'logits.pt',
                  *(f'hf-hub:user/{kind}' for kind in models))
    for (kind, model), got in zip(models.items(), pulled):
        assert torch.equal(got, logits(model)) and torch.isfinite(got).all(), kind
    names = {model.pretrained_cfg['architecture'] for model in models.values()}
    assert names == set(timm.list_models(module='assemble_resnet'))


@pytest.mark.parametrize('kind', VARIANTS)
def test_only_safe_files_are_published(hub, published, kind):
    files = hub.repos[f'user/{kind}'].find('main')[1]
    assert set(files) == {'config.json', 'model.safetensors', 'README.md'}


@pytest.mark.parametrize('kind', VARIANTS)
def test_the_published_card_is_read_by_huggingface_hub(hub, published, kind):
    card = hub.repos[f'user/{kind}'].find('main')[1]['README.md'].decode()
    data = ModelCard(card, ignore_metadata_errors=False).data
    assert data.library_name == 'timm' and 'timm_assemble' in data.tags and data.license == 'apache-2.0'
    assert data.pipeline_tag == 'image-classification'
    body = card.split('\n---\n', 1)[1]
    assert 'import timm_assemble' in body[:500] and 'Unknown model' in body[:500]
    assert '/somewhere' not in card and 'local-dir' not in card
    if kind == FOLDER:
        assert 'Nothing has been measured' in card and data.eval_results is None and '## Training' not in card
    else:
        assert data.datasets == ['cifar10'] and data.metrics == ['accuracy']
        assert [(r.dataset_name, r.metric_value) for r in data.eval_results] == [('cifar10', 61.25)]
        assert '| `lr` | 0.05 |' in card and 'after epoch 3' in card


@pytest.mark.parametrize('kind', VARIANTS)
def test_the_cards_code_runs_as_pasted(hub, published, kind, tmp_path):
    """As pasted, in an empty folder with an empty cache; only the package is already installed."""
    card = hub.repos[f'user/{kind}'].find('main')[1]['README.md'].decode()
    usage = card.split('## Usage\n')[1]
    assert 'pip install timm-assemble' in usage
    code, = re.findall(r'^```python\n(.*?)^```', usage, flags=re.S | re.M)
    env = environment(hub.url, tmp_path / 'home', token=None)
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120, cwd=tmp_path,
                          env={**env, 'PYTHONPATH': os.getcwd()})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    classes = VARIANTS[kind][1]['num_classes']
    assert sum(line.startswith('class ') for line in lines) == min(5, classes)
    assert sum(line.startswith('stride ') for line in lines) == 5
    assert f'embedding (1, {VARIANTS[kind][1].get("embedding_size") or 32 * VARIANTS[kind][1]["width"]})' in lines


def test_the_weights_are_named(hub, published):
    done, _, _ = published
    assert 'exponential moving average (EMA), after epoch 3' in done[WITH_EMA].stdout
    assert 'the trained ones; the checkpoint has no EMA, after epoch 3' in done[FOUR_CHANNELS].stdout
    assert b'(EMA)' in hub.repos[f'user/{WITH_EMA}'].find('main')[1]['README.md']


def test_push_again_with_a_change_and_to_a_branch(hub, tmp_path):
    repo = 'user/again'
    first, second, third = (write_folder(tmp_path / f'model{i}', seed=i) for i in (1, 2, 3))
    *done, branch = push_in_turn(
        environment(hub.url, tmp_path / 'home'), ('hf_writer', tmp_path / 'model1', repo),
        ('hf_writer', tmp_path / 'model1', repo), ('hf_writer', tmp_path / 'model2', repo),
        ('hf_writer', tmp_path / 'model3', repo, '--revision', 'trial'))
    assert [d.returncode for d in done] == [0, 0, 0], done
    assert branch.returncode == 0 and "'hf-hub:user/again@trial'" in branch.stdout, branch.stderr
    assert "'hf-hub:user/again@trial'" in hub.repos[repo].find('trial')[1]['README.md'].decode()
    assert len(hub.repos[repo].branches['main']) == 3, 'made, pushed, changed: a push without a change makes no commit'
    main = hub.repos[repo].branches['main']
    pulled = pull(environment(hub.url, tmp_path / 'fresh', token=None), tmp_path / 'logits.pt',
                  f'hf-hub:{repo}', f'hf-hub:{repo}@trial', f'hf-hub:{repo}@{main[1][0]}')
    for got, model in zip(pulled, (second, third, first)):
        assert torch.equal(got, logits(model))


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / 'model', seed=4)
    return tmp_path / 'model'


@pytest.fixture
def command(hub, monkeypatch, capsys, folder):
    """``push`` in this process, of the folder; returns status, output and error. The folder must not change."""
    def run(repo, *options, token='hf_writer', url=hub.url):
        monkeypatch.setenv('HF_TOKEN', token)
        monkeypatch.setattr(constants, 'ENDPOINT', url)
        before = {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}
        status = main(['push', str(folder), repo, *options])
        assert before == {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}
        return status, *capsys.readouterr()

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


@pytest.mark.skipif('OLAH' not in os.environ, reason='OLAH is the path of the executable olah-cli, `pip install olah`')
def test_an_independent_server_gives_the_same_logits(published, tmp_path):
    """olah from PyPI, offline, with a mirror that is a git repository of the published folder."""
    _, models, paths = published
    mirror = tmp_path / 'mirrors' / 'models' / 'user' / FOLDER
    shutil.copytree(paths[FOLDER], mirror)
    for command in (['init', '-q', '-b', 'main'], ['add', '.'],
                    ['-c', 'user.name=t', '-c', 'user.email=t@t', 'commit', '-q', '-m', 'Publish']):
        subprocess.run(['git', *command], cwd=mirror, check=True)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port, config = free.getsockname()[1], tmp_path / 'olah.toml'
    config.write_text(f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{tmp_path / "repos"}"\n'
                      f'mirrors-path = ["{tmp_path / "mirrors"}"]\n[accessibility]\noffline = true\n')
    url = f'http://127.0.0.1:{port}'
    with open(tmp_path / 'log', 'w') as log:
        server = subprocess.Popen([os.environ['OLAH'], '-c', str(config), '--log-path', str(tmp_path / 'logs')],
                                  stdout=log, stderr=log, cwd=tmp_path)
        try:
            for _ in range(100):
                try:
                    urllib.request.urlopen(f'{url}/api/models/user/{FOLDER}/revision/main', timeout=5).close()
                    break
                except OSError:
                    with pytest.raises(subprocess.TimeoutExpired):  # it still runs; give it a moment
                        server.wait(0.3)
            pulled, = pull(environment(url, tmp_path / 'home', token=None), tmp_path / 'logits.pt',
                           f'hf-hub:user/{FOLDER}')
        finally:
            server.terminate()
            server.wait(20)
    assert torch.equal(pulled, logits(models[FOLDER]))
