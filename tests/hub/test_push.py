"""Publishing and loading over HTTP, as two strangers do: real processes, empty caches, a Hub of the tests' own."""
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

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
    """The three variants, pushed: the results of the commands, the models and the paths by kind."""
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
    """Of every registered model, with arguments of its own, to the last bit; from an empty cache, without a token."""
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
def test_only_safe_files_go(hub, published, kind):
    files = hub.repos[f'user/{kind}'].find('main')[1]
    assert set(files) == {'config.json', 'model.safetensors', 'README.md'}


@pytest.mark.parametrize('kind', VARIANTS)
def test_card(hub, published, kind):
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
def test_cards_usage_runs_as_it_stands(hub, published, kind, tmp_path):
    """In an empty folder, with an empty cache, pasted whole, but for the line that installs the package."""
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


def test_which_weights_went_is_said(published):
    done, _, paths = published
    assert 'exponential moving average (EMA), after epoch 3' in done[WITH_EMA].stdout
    assert 'the trained ones; the checkpoint has no EMA, after epoch 3' in done[FOUR_CHANNELS].stdout
    folder = paths[WITH_EMA].parent / WITH_EMA
    assert '(EMA)' in (folder / 'README.md').read_text()
    assert {f.name for f in folder.iterdir()} == {'config.json', 'model.safetensors', 'README.md'}


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


def test_break_in_mid_upload(hub, tmp_path):
    env, folder = environment(hub.url, tmp_path / 'home'), tmp_path / 'model'
    model = write_folder(folder, seed=4)
    before = load_file(folder / 'model.safetensors')
    hub.break_commits = 1
    done = push(env, folder, 'user/broken')
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'the connection broke off during the upload, and nothing of it is published' in done.stderr
    assert f'{folder} is kept, and the same command goes on' in done.stderr
    assert not hub.repos['user/broken'].find('main')[1]
    assert all(torch.equal(before[k], v) for k, v in load_file(folder / 'model.safetensors').items())
    done = push(env, folder, 'user/broken')
    assert done.returncode == 0, done.stderr
    pulled, = pull(environment(hub.url, tmp_path / 'fresh', token=None), tmp_path / 'logits.pt', 'hf-hub:user/broken')
    assert torch.equal(pulled, logits(model))


def test_private(hub, tmp_path):
    folder = tmp_path / 'model'
    write_folder(folder)
    secret, public, refused = push_in_turn(
        environment(hub.url, tmp_path / 'home'), ('hf_writer', folder, 'user/secret', '--private'),
        ('hf_writer', folder, 'user/open'), ('hf_writer', folder, 'user/open', '--private'))
    assert secret.returncode == public.returncode == 0 and hub.repos['user/secret'].private
    assert refused.returncode == 2 and '--private: user/open exists and is public' in refused.stderr


def _free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


FAILURES = [
    (None, 'user/x', 'there is no token of the Hub: log in with `hf auth login` or set HF_TOKEN'),
    ('hf_wrong', 'user/x', 'the Hub does not know the token'),
    ('hf_writer', 'other/x', "the token has no right to make a repository as 'other'"),
    ('hf_other', 'user/taken', 'user/taken exists and the token has no right to write to it'),
]


def _is_one_sentence(done, message, folder):
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert message in done.stderr and f'{folder} is kept, and the same command goes on from there' in done.stderr
    assert {'config.json', 'model.safetensors', 'README.md'} == {f.name for f in folder.iterdir()}


def test_failures_are_one_sentence_and_keep_the_folder(hub, tmp_path):
    folder = tmp_path / 'model'
    write_folder(folder)
    taken, *failed = push_in_turn(
        environment(hub.url, tmp_path / 'home', None), ('hf_writer', folder, 'user/taken'),
        *((token, folder, repo) for token, repo, _ in FAILURES))
    assert taken.returncode == 0
    for done, (_, _, message) in zip(failed, FAILURES, strict=True):
        _is_one_sentence(done, message, folder)


def test_no_network_is_one_sentence_and_keeps_the_folder(tmp_path):
    write_folder(tmp_path / 'model')
    done = push(environment(f'http://127.0.0.1:{_free_port()}', tmp_path / 'home'), tmp_path / 'model', 'user/x')
    _is_one_sentence(done, 'no connection to http://127.0.0.1:', tmp_path / 'model')


@pytest.mark.skipif('OLAH' not in os.environ, reason='OLAH is the path of the executable olah-cli, `pip install olah`')
def test_an_independent_server_gives_the_same(published, tmp_path):
    """olah from PyPI, offline, with a mirror that is a git repository of the published folder."""
    _, models, paths = published
    mirror = tmp_path / 'mirrors' / 'models' / 'user' / FOLDER
    shutil.copytree(paths[FOLDER], mirror)
    for command in (['init', '-q', '-b', 'main'], ['add', '.'],
                    ['-c', 'user.name=t', '-c', 'user.email=t@t', 'commit', '-q', '-m', 'Publish']):
        subprocess.run(['git', *command], cwd=mirror, check=True)
    port, config = _free_port(), tmp_path / 'olah.toml'
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


def test_dry_run_writes_the_folder_and_sends_nothing(hub, tmp_path):
    checkpoint, _ = write_checkpoint(tmp_path / 'run', WITH_EMA)
    asked = len(hub.requests)
    done = push(environment(hub.url, tmp_path / 'home', token=None), checkpoint, 'user/dry', '--dry-run')
    assert done.returncode == 0, done.stderr
    assert len(hub.requests) == asked and 'dry run: nothing was sent' in done.stdout
    folder = tmp_path / 'run' / 'dry'
    for name in ('config.json', 'model.safetensors', 'README.md'):
        assert f'{(folder / name).stat().st_size:,} bytes' in done.stdout
    assert yaml.safe_load((folder / 'README.md').read_text().split('---\n')[1])['library_name'] == 'timm'
