"""Publish a model on the Hugging Face Hub: a folder in the Hub's form, made or found, and its upload.

The folder is written by timm's ``save_for_hf``, in safetensors alone. timm's ``push_to_hf_hub`` is not used for the
upload: it writes into a folder that is gone after a failure, leaves an old model card as it is, and makes no branch.
Knows the model card, timm's checkpoints of training, and huggingface_hub.
"""
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

import timm
from timm.models import save_for_hf

from ..models.train_checkpoint import TrainedModel, read_train_checkpoint
from ..utils.atomic import MODEL_FILES, atomic_folder
from .model_card import Result, is_registered_here, model_card

__all__ = ['Publication', 'PushError', 'prepare', 'push']

CARD = 'README.md'
SUFFIXES = ('.safetensors', '.json', '.md', '.txt', '.csv', '.png', '.jpg', '.svg')  # none of them can run code
SOURCE = re.compile(r"create_model\('((?:hf-hub|local-dir):[^']+)'")
METRICS = {'top1': 'top-1', 'top5': 'top-5'}  # what train.py measures in percent


class PushError(OSError):
    """An upload that did not come about, in one sentence with how to go on."""


class Publication(NamedTuple):
    """What would go where: the named files of a folder into a branch of a repository."""

    folder: Path
    repo: str
    branch: str
    files: List[str]
    left_out: List[str]
    notes: List[str]

    @property
    def source(self) -> str:
        """What ``create_model`` is to be given to load it."""
        return f'hf-hub:{self.repo}' + (f'@{self.branch}' if self.branch != 'main' else '')

    def describe(self) -> str:
        """For a person: one line each for notes, the folder, the target and the files."""
        width = max(map(len, self.files))
        lines = [*self.notes, f'folder: {self.folder}', f'to: {self.repo}, branch {self.branch}']
        lines += [f'  {name:<{width}}  {(self.folder / name).stat().st_size:>13,} bytes' for name in self.files]
        if self.left_out:
            lines.append(f'not sent: {", ".join(self.left_out)}')
        return '\n'.join(lines)


def _dataset(args: Dict[str, Any]) -> str:
    """A name of train.py's dataset without the reader's prefix; a plain folder, or a place on a disk, has none."""
    name = re.sub(r'^(hfds|hfids|tfds|wds|torch)/', '', str(args.get('dataset') or '')).partition(':')[0]
    name = '' if re.match(r'[/.~\\]', name) else name
    return {'imagenet': 'imagenet-1k', 'imagenet2012': 'imagenet-1k'}.get(name, name)


def _results(trained: TrainedModel) -> List[Result]:
    if trained.metric is None or trained.metric_name not in METRICS:
        return []
    size = trained.model.pretrained_cfg['input_size'][-1]
    crop = trained.model.pretrained_cfg['crop_pct']
    split = trained.args.get('val_split') or 'validation'
    return [Result(
        METRICS[trained.metric_name], trained.metric,
        f"split {split}, {size} x {size}, crop {crop:.4g}, by timm's train.py after epoch {trained.epoch}",
        'python train.py --config args.yaml', _dataset(trained.args))]


def _write(trained: TrainedModel, folder: Path, source: str, title: str) -> None:
    """Make the folder of a trained model, whole or not at all."""
    dataset, base = _dataset(trained.args), trained.args['model']
    start = f' from `{base}`' if base.startswith('hf-hub:') else ''
    card = model_card(
        trained.model, source, title=title, weights=trained.weights, model_args=trained.model_args,
        description=f"Trained with timm's `train.py`{start}{f' on {dataset}' if dataset else ''}.",
        recipe=dict(trained.args, dataset=dataset), datasets=[dataset] if dataset else [], results=_results(trained))
    with atomic_folder(folder, force=True) as made:
        save_for_hf(trained.model, str(made), safe_serialization=True, model_args=trained.model_args)
        (made / 'model.safetensors').chmod((made / 'config.json').stat().st_mode)  # written for the owner alone
        (made / CARD).write_text(card, encoding='utf-8')


def _replace(file: Path, text: str) -> None:
    made = file.with_name(f'.{file.name}.{os.getpid()}')
    made.write_text(text, encoding='utf-8')
    made.replace(file)


def _read_folder(folder: Path) -> Any:
    """The model of a folder on the meta device, its weights' names and shapes compared with the file's header.

    Raises:
        ValueError: It is no folder of one of this package's models, or the file is not of the model of config.json.
    """
    from safetensors import SafetensorError, safe_open

    missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if missing:
        checkpoints = sorted(f.name for f in folder.glob('*.pth.tar'))
        hint = f'; to publish one of its checkpoints give the file, such as {checkpoints[-1]}' if checkpoints else ''
        raise ValueError(f'FOLDER must have {" and ".join(MODEL_FILES)}; {folder} lacks {" and ".join(missing)}{hint}')
    try:
        config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        architecture = config['architecture']
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{folder / 'config.json'} must be JSON that names an architecture, as timm writes it") from e
    if not is_registered_here(architecture):
        raise ValueError(f"architecture must be one of this package's, got {architecture!r} in {folder}")
    try:
        model: Any = timm.create_model(f'local-dir:{folder}', device='meta').eval()
    except TypeError as e:
        raise ValueError(f"{folder / 'config.json'}: model_args are not those of {architecture}: {e}") from e
    try:
        with safe_open(str(folder / 'model.safetensors'), 'pt') as file:
            stored = {name: file.get_slice(name).get_shape() for name in file.keys()}
    except SafetensorError as e:
        raise ValueError(f"{folder / 'model.safetensors'} must be a safetensors file: {e}") from e
    built = {name: [*tensor.shape] for name, tensor in model.state_dict().items()}
    differing = sorted(name for name in {**built, **stored} if built.get(name) != stored.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f'{folder}: model.safetensors is not of the model in config.json, {len(differing)} entries differ, such as '
            f'{name}: {stored.get(name, "nothing")} in the file, {built.get(name, "nothing")} in the model')
    channels = next(size[1] for size in built.values() if len(size) == 4)  # of the stem's first convolution
    written = (config.get('pretrained_cfg') or config).get('input_size') or [channels]
    if written[0] != channels:  # timm 1.0.31 mends it when it loads, 1.0.29 makes pictures for another model
        raise ValueError(
            f"{folder / 'config.json'}: input_size must have the model's {channels} channels, got {written}")
    return model


def _name_source(folder: Path, model: Any, source: str, title: str) -> List[str]:
    """Make the folder's card tell how to load the model from where it goes; gives what was done, for a person."""
    card = folder / CARD
    if not card.exists():
        config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        _replace(card, model_card(model, source, title=title, model_args=config.get('model_args')))
        return [f'written: {card}, the model card']
    text = card.read_text(encoding='utf-8')
    notes = [] if 'import timm_assemble' in text else [
        f'{card} does not say `import timm_assemble`, without which the model is unknown to timm']
    first = SOURCE.search(text)
    if first and first[1] != source:
        _replace(card, text.replace(f"'{first[1]}'", f"'{source}'"))
        notes.append(f'{card} now says {source} in place of {first[1]}')
    return notes


def prepare(path: Path, repo: str, revision: Optional[str] = None) -> Publication:
    """Bring a model into the form in which it is published; nothing is sent.

    Args:
        path: Folder in the Hub's form, whose card is made to name ``repo``, or a checkpoint of timm's train.py, from
            which such a folder is made beside it, with the name of the repository.
        repo: ``'user/name'`` on the Hub.
        revision: Branch, by default main.

    Raises:
        ValueError: An argument outside what it allows, or a folder or checkpoint that is not whole.
    """
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    if repo.count('/') != 1:
        raise ValueError(f"REPO must be 'user/name', got {repo!r}")
    branch, name = revision or 'main', repo.split('/')[1]
    if not re.fullmatch(r'[\w.][\w./-]*', branch):
        raise ValueError(f'--revision must be the name of a branch, got {revision!r}')
    publication = Publication(path, repo, branch, [], [], [])
    if path.is_dir():
        model = _read_folder(path)
        publication.notes.extend(_name_source(path, model, publication.source, name))
    elif path.is_file():
        trained = read_train_checkpoint(path)
        if not is_registered_here(trained.model.pretrained_cfg['architecture']):
            raise ValueError(f"model must be one of this package's, got {trained.args['model']!r} in {path}")
        publication = publication._replace(folder=path.with_name(name))
        if publication.folder.exists():
            publication.notes.append(f'{publication.folder} was there and is made anew, its card as well')
        _write(trained, publication.folder, publication.source, name)
        publication.notes.append(f'weights: {trained.weights}')
    else:
        raise ValueError(f'FOLDER_OR_CHECKPOINT must exist, got {path}')
    for file in sorted(publication.folder.iterdir()):
        sent = file.is_file() and not file.name.startswith('.') and (
            file.suffix in SUFFIXES or file.name.startswith('LICENSE'))
        (publication.files if sent else publication.left_out).append(file.name)
    return publication


def _why(e: BaseException, repo: str, step: str) -> str:
    """What went wrong in a step of the upload, and what to do about it; of any version of huggingface_hub."""
    from huggingface_hub import constants

    status = getattr(getattr(e, 'response', None), 'status_code', None)
    said = ' '.join(str(getattr(e, 'server_message', None) or '').split())
    if status is None:
        if step == 'upload':
            return 'the connection broke off during the upload, and nothing of it is published'
        return f'no connection to {constants.ENDPOINT} ({" ".join(str(e).split())})'
    if status == 401:
        return 'the Hub does not know the token: log in with `hf auth login` or set HF_TOKEN'
    if status == 403 and step == 'create':
        return (f"the token has no right to make a repository as {repo.split('/')[0]!r}: take a name under an account "
                f'of yours, or a token that may write there')
    if status == 403:
        return f'{repo} exists and the token has no right to write to it: take another name, or a token that may write'
    return f'the Hub answered {status} to the {step}' + (f' ({said})' if said else '')


def push(publication: Publication, private: bool = False) -> str:
    """Make the repository and the branch where they are missing, and send the files in one commit, all or none.

    Args:
        publication: From :func:`prepare`.
        private: Make the repository private. One that exists and is public is refused.

    Returns:
        Address of the commit.

    Raises:
        PushError: There is no token, no right, no connection, or it broke. The folder is kept.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    repo, branch, folder = publication.repo, publication.branch, publication.folder
    go_on = f'; {folder} is kept, and the same command goes on from there'
    if not get_token():
        raise PushError(f'there is no token of the Hub: log in with `hf auth login` or set HF_TOKEN{go_on}')
    api = HfApi(library_name='timm', library_version=timm.__version__)
    # those of httpx or of requests, by huggingface_hub's version, have no other common name; RuntimeError is hf_xet's
    connection_errors: Any = (*HfHubHTTPError.__bases__, OSError, RuntimeError)
    step = 'create'
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise PushError(f'--private: {repo} exists and is public{go_on}')
        if branch != 'main':
            step = 'branch'
            api.create_branch(repo, branch=branch, exist_ok=True)
        step = 'upload'
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, revision=branch, allow_patterns=publication.files,
            commit_message=f'Publish {publication.repo.split("/")[1]}')
    except PushError:
        raise
    except connection_errors as e:
        raise PushError(_why(e, repo, step) + go_on) from e
    return str(commit.commit_url)
