"""What a push would send, and that preparing it changes nothing but its own output. No server is involved."""
import json
import shutil
import time

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from timm_assemble.cli.main import main
from timm_assemble.hub.prepare import prepare
from timm_assemble.hub.save import save_model

from .._published import FOUR_CHANNELS, VARIANTS, WITH_EMA, logits, write_checkpoint, write_folder

CARD = "mine\nimport timm_assemble\ncreate_model('local-dir:model', True) A.from_pretrained('model')\n"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'timm_assemble' / 'push'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('written') / 'model'
    write_folder(folder)
    return folder


@pytest.fixture
def folder(model, tmp_path):
    return shutil.copytree(model, tmp_path / 'model')


def _content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob('*') if f.is_file()}


def _rejected(message, *args, **kwargs):
    with pytest.raises(ValueError, match=message) as caught:
        prepare(*args, **kwargs)
    assert '\n' not in str(caught.value)


def test_dry_run_of_a_checkpoint_writes_to_the_cache_only(tmp_path, cache, capsys):
    """A folder beside the checkpoint with the name of the repository is another model; it stays."""
    checkpoint, trained = write_checkpoint(tmp_path / 'run', WITH_EMA)
    write_folder(tmp_path / 'run' / 'name')
    (tmp_path / 'run' / 'name' / 'notes.txt').write_text('of a year')
    before = _content(tmp_path / 'run')
    for _ in range(2):  # the second time over what the first one wrote
        assert main(['push', str(checkpoint), 'user/name', '--dry-run']) == 0
        out = capsys.readouterr().out
        assert 'dry run: nothing was sent' in out and f'folder: {cache / "user" / "name"}\n' in out
    assert _content(tmp_path / 'run') == before
    made = cache / 'user' / 'name'
    assert torch.equal(logits(timm.create_model(f'local-dir:{made}', pretrained=True)), logits(trained))
    for name in ('config.json', 'model.safetensors', 'README.md'):
        assert f'{(made / name).stat().st_size:,} bytes' in out


@pytest.mark.parametrize('card, revision, source, transformers', [
    (CARD, None, 'hf-hub:user/name', "'user/name'"),
    (CARD, 'trial', 'hf-hub:user/name@trial', "'user/name', revision='trial'"),
    (None, None, 'hf-hub:user/name', "'user/name'")])
def test_a_folders_card_is_sent_with_the_new_source_and_the_folder_is_not_changed(
        folder, tmp_path, cache, capsys, card, revision, source, transformers):
    if card:
        (folder / 'README.md').write_text(card)
    before = _content(folder)
    assert main(['push', str(folder), 'user/name', '--dry-run', *(['--revision', revision] if revision else [])]) == 0
    note = f'sent with {source} in place of local-dir:model' if card else 'generated'
    assert f'README.md: {note}; {folder} is not changed\n' in capsys.readouterr().out
    sent = prepare(folder, 'user/name', revision, tmp_path / 'output').files['README.md']
    assert sent.decode() == (
        card.replace('local-dir:model', source).replace("'model'", transformers) if card else sent.decode())
    assert f"create_model('{source}', ".encode() in sent and sent == (tmp_path / 'output' / 'README.md').read_bytes()
    assert _content(folder) == before and not cache.exists()
    (folder / 'README.md').write_bytes(sent)
    assert prepare(folder, 'user/name', revision).files['README.md'] == folder / 'README.md'


def test_a_card_without_the_import_is_reported(folder):
    (folder / 'README.md').write_text('mine')
    assert 'does not say `import timm_assemble`' in prepare(folder, 'user/name').describe()


def test_output_replaces_only_what_push_wrote_and_nobody_changed(tmp_path, folder):
    checkpoint, _ = write_checkpoint(tmp_path / 'run', FOUR_CHANNELS)
    output = tmp_path / 'output'
    output.mkdir()  # an empty folder
    for repo in ('user/first', 'user/second'):
        publication = prepare(checkpoint, repo, output=output)
    assert publication.folder == output and publication.left_out == [] and 'user/second' in (
        output / 'README.md').read_text()
    (output / 'README.md').write_text('better')
    before = _content(output)
    rejected = 'output must be a new or empty folder, or one that push wrote and nobody changed, got '
    _rejected(rejected, checkpoint, 'user/name', output=output)
    _rejected(rejected, folder, 'user/name', output=output)
    assert _content(output) == before
    other = _content(folder)
    _rejected(rejected, checkpoint, 'user/name', output=folder)
    _rejected('output must not be `path`', folder, 'user/name', output=folder)
    assert _content(folder) == other
    assert prepare(output, 'user/name').files['README.md'] == output / 'README.md'


def test_links_out_of_the_folder_are_skipped_and_named_but_for_the_model(folder, tmp_path):
    secret = tmp_path / 'secret.txt'
    secret.write_text('root:x:0:0')
    (folder / 'LICENSE').symlink_to(secret)
    (folder / 'README.md').symlink_to(secret)
    (folder / 'notes.txt').write_text('mine')
    (folder / 'same.txt').symlink_to('notes.txt')
    (folder / 'gone.txt').symlink_to('nowhere')
    for name in ('config.json', 'model.safetensors'):  # these may be links, since their content is checked
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
    publication = prepare(folder, 'user/name')
    assert [*publication.files] == ['README.md', 'config.json', 'model.safetensors', 'notes.txt', 'same.txt']
    assert b'root' not in publication.files['README.md']  # a generated one
    for name in ('LICENSE', 'README.md'):
        assert f'{name}: skipped, a link to {secret}, which is not in the folder' in publication.notes
    assert publication.left_out == ['gone.txt']


def test_a_snapshot_of_the_hugging_face_cache_is_sent_with_its_card(folder, tmp_path):
    (folder / 'README.md').write_text(CARD)
    snapshot, blobs = tmp_path / 'models--a--b' / 'snapshots' / 'c0ffee', tmp_path / 'models--a--b' / 'blobs'
    snapshot.mkdir(parents=True)
    folder.rename(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f'../../blobs/{file.name}')
    publication = prepare(snapshot, 'user/name')
    assert [*publication.files] == ['README.md', 'config.json', 'model.safetensors'] and not publication.left_out
    assert publication.files['README.md'].decode() == (
        CARD.replace('local-dir:model', 'hf-hub:user/name').replace("'model'", "'user/name'"))


def test_files_that_can_run_code_are_not_sent(folder):
    for name in ('pytorch_model.bin', 'last.pth.tar', 'args.yaml', '.hidden'):
        (folder / name).write_bytes(b'')
    (folder / 'conversion.json').write_text('{}')
    publication = prepare(folder, 'user/name')
    assert [*publication.files] == ['README.md', 'config.json', 'conversion.json', 'model.safetensors']
    assert 'not sent: .hidden, args.yaml, last.pth.tar, pytorch_model.bin' in publication.describe()


def _change_config(folder, **changes):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, **changes}))


def _change_weights(folder, change):
    weights = load_file(folder / 'model.safetensors')
    change(weights)
    save_file(weights, folder / 'model.safetensors')


CONFIG = 'path must have a config.json'


@pytest.mark.parametrize('damage, message', [
    (lambda f: (f / 'model.safetensors').rename(f / 'x.pth.tar'),
     'lacks model.safetensors; to publish a checkpoint, give its file, such as x.pth.tar'),
    (lambda f: _change_weights(f, lambda w: w.pop('fc.bias')),
     'path must have a model.safetensors with the .* weights of its config.json: .*Missing .*"fc.bias"'),
    (lambda f: _change_weights(f, lambda w: w['fc.bias'].fill_(float('nan'))),
     'path must have a model.safetensors with the finite weights .*: fc.bias must be finite'),
    (lambda f: (f / 'model.safetensors').write_bytes((f / 'model.safetensors').read_bytes()[:-100]),
     'path must have a model.safetensors'),
    (lambda f: _change_config(f, architecture='resnet18'), "one of this package's models, got 'resnet18'"),
    (lambda f: _change_config(f, pretrained_cfg=dict(input_size=[4, 160, 160])),
     r"path must have an input_size with the model's 3 channels, got \[4, 160, 160\]"),
    (lambda f: _change_config(f, model_args=dict(widht=8)), f"{CONFIG}.*'widht'"),
    (lambda f: (f / 'config.json').write_text('{'), CONFIG),
    (lambda f: (f / 'README.md').write_bytes(b'\xff'), 'path must have a README.md in UTF-8'),
])
def test_a_bad_folder_is_reported_in_one_line_within_seconds(folder, damage, message):
    damage(folder)
    start = time.monotonic()
    _rejected(message, folder, 'user/name')
    assert time.monotonic() - start < 10


def test_a_bad_checkpoint_is_one_line_and_status_2_and_nothing_is_written(tmp_path, cache, capsys):
    path, _ = write_checkpoint(tmp_path / 'run', FOUR_CHANNELS)
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['state_dict']['fc.bias'].fill_(float('nan'))
    torch.save(checkpoint, path)
    assert main(['push', str(path), 'user/name']) == 2
    err = capsys.readouterr().err
    assert 'fc.bias must be finite' in err and err.count('\n') == 1 and not cache.exists()


@pytest.mark.parametrize('args, message', [
    (('name',), "repo must be 'user/name', got 'name'"),
    (('a/b/c',), "repo must be 'user/name', got 'a/b/c'"),
    (('user/na me',), 'repo must be a name on the Hub: Repo id must use'),
    (('user/name', '-x'), "revision must be the name of a branch, got '-x'"),
])
def test_bad_arguments_are_named(tmp_path, args, message):
    _rejected(message, tmp_path, *args)
    _rejected('path must exist', tmp_path / 'nowhere', 'user/name')


@pytest.mark.parametrize('kind', [*VARIANTS, 'assemble_resnet152'])
def test_transformers_is_not_given_num_classes_twice(tmp_path, kind):
    """It takes num_classes from the top of config.json; with a second one in model_args it raises TypeError."""
    model = write_folder(tmp_path / 'timm', kind)
    assert 'num_classes' in json.loads((tmp_path / 'timm' / 'config.json').read_text())['model_args']
    publication = prepare(tmp_path / 'timm', 'user/name')
    save_model(model, shutil.copytree(tmp_path / 'timm', tmp_path / 'saved'))
    for text in (publication.files['config.json'], (tmp_path / 'saved' / 'config.json').read_bytes()):
        config = json.loads(text)
        assert config['num_classes'] == model.num_classes and 'num_classes' not in config['model_args']
        assert config['model_args'].get('in_chans', 3) == model.pretrained_cfg['input_size'][0]
        (tmp_path / 'timm' / 'config.json').write_bytes(text)
        assert torch.equal(logits(timm.create_model(f'local-dir:{tmp_path / "timm"}', pretrained=True)), logits(model))
