"""Upload a prepared model to the Hugging Face Hub in one commit.

timm's ``push_to_hf_hub`` is not used: it writes into a folder that is gone after a failure, leaves an old model card as
it is, and makes no branch. huggingface_hub's ``upload_folder`` is not used either: it may make several commits.
"""
import json
from typing import Any, Optional

import timm

from ..errors import UserError, error_line
from .model_card import fold
from .prepare import Publication

__all__ = ['PushError', 'push']

CREATE, BRANCH, UPLOAD = 'creating the repository', 'creating the branch', 'uploading'
AGAIN = '; the same command can be repeated'


class PushError(UserError):
    """A failed upload, in one sentence."""

    def __init__(self, message: str) -> None:
        super().__init__(message, parameter='')


def _reason(error: BaseException, repo: str, step: str) -> str:
    """Return what went wrong while doing ``step``, for errors of any version of huggingface_hub."""
    from huggingface_hub import constants

    status = getattr(getattr(error, 'response', None), 'status_code', None)
    if isinstance(error, (json.JSONDecodeError, KeyError, TypeError, AttributeError)):
        return (f'{constants.ENDPOINT} answered with something other than the JSON of the Hub while {step}; '
                f'perhaps it is the login page of this network')
    if status is None and isinstance(error, ValueError):
        return f'the Hub rejected the files while {step} ({error_line(error)})'
    if status is None:
        return f'the connection to {constants.ENDPOINT} failed while {step} ({error_line(error)})'
    if status == 401:
        return 'the Hub does not accept the token: log in with `hf auth login` or set HF_TOKEN'
    if status == 403 and step == CREATE:
        return (f"the token may not make a repository as {repo.split('/')[0]!r}: choose a name under your account, or "
                f'a token with that right')
    if status == 403:
        return f'{repo} exists and the token may not write to it: choose another name, or a token with that right'
    message = fold(getattr(error, 'server_message', None) or '')
    return f'the Hub answered {status} while {step}' + (f' ({message})' if message else '')


def _find_commit(api: Any, publication: Publication, before: str, title: str) -> Optional[str]:
    """Return the address of the commit with this title after the commit ``before``, if the branch has one."""
    repo, branch = publication.repo, publication.branch
    # asked first, because huggingface_hub repeats the list of commits for 20 s where the connection fails
    if api.repo_info(repo, revision=branch).sha == before:
        return None
    for commit in api.list_repo_commits(repo, revision=branch):
        if commit.commit_id == before:
            break
        if commit.title == title:
            return f'{api.endpoint}/{repo}/commit/{commit.commit_id}'
    return None


def push(publication: Publication, private: bool = False) -> str:
    """Make the repository and the branch if they do not exist, and send the files in one commit.

    If the answer to the commit is lost, the commit is looked up on the branch.

    Args:
        publication: From :func:`~timm_assemble.hub.prepare.prepare`.
        private: Make the repository private. An existing public one is rejected.

    Returns:
        Address of the commit.

    Raises:
        PushError: The upload failed. No local file is changed.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not get_token():
        raise PushError('the Hub needs a token: log in with `hf auth login` or set HF_TOKEN')
    repo, branch = publication.repo, publication.branch
    api = HfApi(library_name='timm', library_version=timm.__version__)
    title = f'Publish {repo.split("/")[1]}'
    before, step = '', CREATE
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise PushError(f'private needs a new or a private repository, and {repo} is public')
        if branch != 'main':
            step = BRANCH
            api.create_branch(repo, branch=branch, exist_ok=True)
        before, step = str(api.repo_info(repo, revision=branch).sha), UPLOAD
        operations = [CommitOperationAdd(name, content) for name, content in publication.files.items()]
        return str(api.create_commit(repo, operations, commit_message=title, revision=branch).commit_url)
    except PushError:
        raise
    except Exception as e:  # httpx, requests, hf_xet and huggingface_hub have no common base
        reason = _reason(e, repo, step)
        status = getattr(getattr(e, 'response', None), 'status_code', None)
        if step == UPLOAD and not (status and status < 500):
            try:
                found = _find_commit(api, publication, before, title)
            except Exception:
                raise PushError(f'{reason}, and whether it is published could not be looked up: see '
                                f'{api.endpoint}/{repo}{AGAIN}') from e
            if found:
                return found
            reason += ', and nothing of it is published'
        raise PushError(reason + AGAIN) from e
