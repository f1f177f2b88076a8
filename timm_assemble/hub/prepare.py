"""The files of a push: a folder in Hugging Face format, or one made from a checkpoint of timm's train.py.

The user's own folder is only read.
"""
import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from ..data.images import printable
from ..data.preprocessing import size_text
from ..errors import UserError, error_line
from ..models.loading import load_source
from ..models.train_checkpoint import TrainedModel, read_train_checkpoint
from ..models.validation import check_model_config
from ..runtime.atomic import MODEL_FILES, atomic_folder
from ..runtime.cache import cache_folder
from ..runtime.checksum import file_sha256
from .model_card import Result, fold, from_pretrained, is_registered_here, model_card
from .save import for_transformers, save_model

__all__ = ['Publication', 'prepare']

CARD = 'README.md'
CLASS_MAP = 'class_map.txt'  # as train.py's --class-map reads it
CHECKSUMS = '.timm-assemble-push.json'  # of the files that push wrote into a folder
SUFFIXES = ('.safetensors', '.json', '.md', '.txt', '.csv', '.png', '.jpg', '.svg')  # cannot run code
SOURCE = re.compile(r"create_model\('((?:hf-hub|local-dir):[^']+)'")
METRICS = {'top1': 'top-1', 'top5': 'top-5'}  # what train.py measures in percent


class Publication(NamedTuple):
    """What a push sends where: named files, from a path or from memory, to a branch of a repository."""

    folder: Path
    repo: str
    branch: str
    files: Dict[str, Union[Path, bytes]]
    left_out: List[str]
    notes: List[str]

    @property
    def source(self) -> str:
        """What ``create_model`` loads once it is published."""
        return f'hf-hub:{self.repo}' + (f'@{self.branch}' if self.branch != 'main' else '')

    def describe(self) -> str:
        """Return the notes, the folder, the target and the files, one line each."""
        width = max(map(len, self.files))
        lines = [*self.notes, f'folder: {self.folder}', f'to: {self.repo}, branch {self.branch}']
        for name, content in self.files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            lines.append(f'  {name:<{width}}  {size:>13,} bytes')
        if self.left_out:
            lines.append(f'not sent: {", ".join(self.left_out)}')
        return '\n'.join(lines)


@contextmanager
def _as_user_error(message: str) -> Iterator[None]:
    """Report what timm, torch and safetensors raise for a bad file, an exception of any type, as one line."""
    try:
        yield
    except Exception as e:
        name = '' if isinstance(e, ValueError) else f'{type(e).__name__}: '
        raise UserError(f'{message}: {name}{error_line(e)[:300]}') from e


@contextmanager
def _output_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder``: a new or empty one, or one that push wrote.

    A folder counts as written by push as long as every file in it is as push left it.
    """
    if folder.is_dir() and any(folder.iterdir()):
        own = folder / CHECKSUMS
        files = [file for file in folder.iterdir() if file != own]
        checksums = json.loads(own.read_text()) if own.is_file() else None
        if checksums is None or not all(f.is_file() and checksums.get(f.name) == file_sha256(f) for f in files):
            raise UserError(f'output must be a new or empty folder, or one that push wrote and nobody changed, got '
                             f'{folder}; give another `output`, or push {folder} itself')
        for file in [*files, own]:  # the checksums last: after an interrupt, push still recognizes its folder
            file.unlink()
    with atomic_folder(folder) as made:
        yield made
        (made / CHECKSUMS).write_text(json.dumps({file.name: file_sha256(file) for file in made.iterdir()}))


def _dataset(args: Dict[str, Any]) -> str:
    """Return the name of train.py's dataset without the reader's prefix; empty for a folder or a path."""
    name = re.sub(r'^(hfds|hfids|tfds|wds|torch)/', '', fold(args.get('dataset') or '')).partition(':')[0]
    name = '' if re.match(r'[/.~\\]', name) else name
    return {'imagenet': 'imagenet-1k', 'imagenet2012': 'imagenet-1k'}.get(name, name)


def _results(trained: TrainedModel) -> List[Result]:
    if trained.metric is None or trained.metric_name not in METRICS:
        return []
    size = size_text(trained.model.pretrained_cfg['input_size'])
    crop = trained.model.pretrained_cfg['crop_pct']
    split = trained.args.get('val_split') or 'validation'
    return [Result(
        METRICS[trained.metric_name], trained.metric,
        f"split {split}, {size}, crop {crop:.4g}, by timm's train.py after epoch {trained.epoch}",
        'python train.py --config args.yaml', _dataset(trained.args))]


def _write_trained(trained: TrainedModel, folder: Path, source: str, title: str) -> None:
    dataset, base = _dataset(trained.args), fold(trained.args['model'])
    start = f' from `{base}`' if base.startswith('hf-hub:') else ''
    with _as_user_error("path must be a checkpoint of timm's train.py with the arguments of its model"):
        card = model_card(
            trained.model, source, title=title, weights=trained.weights, model_args=trained.model_args,
            description=f"Trained with timm's `train.py`{start}{f' on {dataset}' if dataset else ''}.",
            recipe=dict(trained.args, dataset=dataset), datasets=[dataset] * bool(dataset), results=_results(trained))
    names = trained.model.pretrained_cfg.get('label_names')
    with _output_folder(folder) as made:
        save_model(trained.model, made, trained.model_args, {'label_names': [*names]} if names else {})
        if names:
            (made / CLASS_MAP).write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
        (made / CARD).write_text(card, encoding='utf-8')


def _read_folder(folder: Path) -> Tuple[Any, Dict[str, Any]]:
    """Return a folder's model and its config.json.

    Raises:
        UserError: The folder has no model of this package, or its weights are not those of its config.json.
    """
    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        checkpoints = sorted(f.name for f in folder.glob('*.pth.tar'))
        hint = f'; to publish a checkpoint, give its file, such as {checkpoints[-1]}' if checkpoints else ''
        raise UserError(f'path must have {" and ".join(MODEL_FILES)}; {folder} lacks {" and ".join(missing)}{hint}')
    with _as_user_error(f'path must have a config.json as timm writes it, got {folder}'):
        check_model_config(folder / 'config.json')
        config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    architecture = config['architecture']
    if not is_registered_here(architecture):
        raise UserError(f"path must hold one of this package's models, got {architecture!r} in {folder}")
    with _as_user_error('path must have a model.safetensors with the finite weights of its config.json'):
        model = load_source(f'local-dir:{folder}').model
    # the Hub and other readers prepare images by it
    input_size = (config.get('pretrained_cfg') or config).get('input_size') or [model.in_chans]
    if input_size[0] != model.in_chans:
        raise UserError(
            f"path must have an input_size with the model's {model.in_chans} channels, got {input_size} in {folder}")
    return model, config


def _card_to_send(card: Optional[Path], model: Any, config: Dict[str, Any], source: str, title: str) -> Tuple[str, str]:
    """Return the text of a folder's card as it is published, and a note where that is not the card in the folder."""
    if card is None:
        with _as_user_error('path must have a config.json as timm writes it'):
            return model_card(model, source, title=title, model_args=config.get('model_args')), f'{CARD}: generated'
    with _as_user_error(f'path must have a {CARD} in UTF-8'):
        text = card.read_bytes().decode('utf-8')
    first = SOURCE.search(text)
    if first and first[1] != source:
        old, new = (f'from_pretrained({from_pretrained(s)})' for s in (first[1], source))
        text = text.replace(old, new)
        return text.replace(f"'{first[1]}'", f"'{source}'"), f'{CARD}: sent with {source} in place of {first[1]}'
    return text, ''


def _leads_out(file: Path, folder: Path) -> bool:
    """Return whether a file is a link to another folder, other than a link of the Hugging Face cache.

    That cache stores a model's files as snapshots/COMMIT/NAME, links to ../../blobs. The model's own two files may be
    links to anywhere: their content is checked.
    """
    root, target = folder.resolve(), file.resolve()
    roots = [root, root.parent.parent / 'blobs'] if root.parent.name == 'snapshots' else [root]
    return file.name not in MODEL_FILES and not any(r in target.parents for r in roots)


def _select_files(folder: Path, notes: List[str]) -> Tuple[Dict[str, Union[Path, bytes]], List[str]]:
    """Return the files to send and the names of the others."""
    files: Dict[str, Union[Path, bytes]] = {}
    left_out = []
    for file in sorted(folder.iterdir()):
        if printable(file.name) != file.name:
            raise UserError(f'path must have files with names in UTF-8, got {printable(file)}')
        sendable = not file.name.startswith('.') and (
            file.suffix in SUFFIXES or file.name.startswith('LICENSE')) and file.is_file()
        if sendable and _leads_out(file, folder):
            notes.append(f'{file.name}: skipped, a link to {file.resolve()}, which is not in the folder')
        elif sendable:
            files[file.name] = file
        elif file.name != CHECKSUMS:
            left_out.append(file.name)
    return files, left_out


def prepare(path: Path, repo: str, revision: Optional[str] = None, output: Optional[Path] = None) -> Publication:
    """Check a model and return what a push would send; nothing is sent, and ``path`` is not changed.

    Args:
        path: Folder in Hugging Face format, or a checkpoint of timm's train.py, from which such a folder is made.
            A folder's README.md is published with ``repo`` as the source of the model; a missing one is generated.
        repo: ``'user/name'`` on the Hub.
        revision: Branch, by default main.
        output: Where to write: the folder made from a checkpoint, by default below ``XDG_CACHE_HOME`` or ``~/.cache``;
            of a folder, the README.md that is sent if it differs from the folder's, which by default is not written.

    Raises:
        UserError: An argument is outside its range, or the folder or the checkpoint is not complete.
    """
    from huggingface_hub.utils import validate_repo_id

    if repo.count('/') != 1:
        raise UserError(f"repo must be 'user/name', got {repo!r}")
    try:
        validate_repo_id(repo)
    except ValueError as e:  # huggingface_hub's
        raise UserError(f'repo must be a name on the Hub: {error_line(e)}') from e
    branch, name = revision or 'main', repo.split('/')[1]
    if not re.fullmatch(r'[\w.][\w./-]*', branch):
        raise UserError(f'revision must be the name of a branch, got {revision!r}')
    target = Publication(path, repo, branch, {}, [], [])
    if path.is_dir():
        return _prepare_folder(target, name, output)
    if not path.is_file():
        raise UserError(f'path must exist, got {path}')
    trained = read_train_checkpoint(path)
    if not is_registered_here(trained.model.pretrained_cfg['architecture']):
        raise UserError(f"path must hold one of this package's models, got {trained.args['model']!r} in {path}")
    folder = output or cache_folder('push', repo)
    _write_trained(trained, folder, target.source, name)
    files, left_out = _select_files(folder, [])
    return target._replace(folder=folder, files=files, left_out=left_out, notes=[f'weights: {trained.weights}'])


def _prepare_folder(target: Publication, title: str, output: Optional[Path]) -> Publication:
    folder = target.folder
    model, config = _read_folder(folder)
    notes: List[str] = []
    files, left_out = _select_files(folder, notes)
    own = files.get(CARD)
    text, note = _card_to_send(own if isinstance(own, Path) else None, model, config, target.source, title)
    if 'import timm_assemble' not in text:
        notes.append(f'{CARD} does not say `import timm_assemble`, without which timm does not know the model')
    if note and output is not None:
        if output.resolve() == folder.resolve():
            raise UserError(f'output must not be `path`, got {output}')
        with _output_folder(output) as made:
            (made / CARD).write_bytes(text.encode())
        note += f', written to {output / CARD}'
    if note:
        files[CARD] = text.encode()
        notes.append(f'{note}; {folder} is not changed')
    if for_transformers(config) != config:
        files['config.json'] = json.dumps(for_transformers(config), indent=2).encode()
        notes.append(f'config.json: sent without the second num_classes, for transformers; {folder} is not changed')
    return target._replace(files=dict(sorted(files.items())), left_out=left_out, notes=notes)
