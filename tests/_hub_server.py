"""A small Hugging Face Hub for tests, over HTTP on this machine: what huggingface_hub asks of it to push and to pull.

Repositories are lists of commits in memory; a commit is all files by name.
"""
import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

TOKENS = {'hf_writer': 'user', 'hf_other': 'other'}  # token -> the account it may write to


def blob_id(content):
    """git's name of a file's content."""
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


class Repo:
    """Branches of commits; a commit is (id, files by name, message)."""

    def __init__(self, private):
        self.private = private
        self.branches = {'main': [('0' * 40, {}, 'made')]}

    def commit(self, branch, files, message):
        commits = self.branches[branch]
        files = {**commits[-1][1], **files}
        key = repr((len(commits), branch, sorted((name, blob_id(content)) for name, content in files.items())))
        identity = hashlib.sha1(key.encode()).hexdigest()
        commits.append((identity, files, message))
        return identity

    def find(self, revision):
        """The commit of a branch's name or of an id, or None."""
        if revision in self.branches:
            return self.branches[revision][-1]
        return next((c for commits in self.branches.values() for c in commits if c[0] == revision), None)


class Hub(ThreadingHTTPServer):
    """The server: ``repos`` by name, and ``failing``: modes by a part of the path they apply to.

    Modes: break closes the connection, page answers with HTML, drop acts and closes the connection, vanish does so and
    breaks everything after.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.repos, self.failing = {}, {}
        self.url = f'http://127.0.0.1:{self.server_address[1]}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Hub

    def log_message(self, *args):
        pass

    def _fails(self):
        """Do what ``failing`` says before a request is read, and whether that was all."""
        self.mode = next((mode for part, mode in self.server.failing.items() if part in self.path), '')
        if self.mode == 'break':
            self._close()
        if self.mode == 'page':
            self._answer(200, b'<html>Please accept our terms</html>', Content_Type='text/html')
        return self.mode in ('break', 'page')

    def _close(self):
        self.close_connection = True
        self.connection.close()

    def _answer(self, status, content=b'', **headers):
        if self.mode in ('drop', 'vanish'):
            self.server.failing = {'': 'break'} if self.mode == 'vanish' else self.server.failing
            return self._close()
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {'Content-Length': str(len(body)), 'Content-Type': 'application/json', **headers}.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def _fail(self, status, message, code=''):
        self._answer(status, {'error': message}, X_Error_Message=message, **({'X_Error_Code': code} if code else {}))

    def _account(self):
        return TOKENS.get(self.headers.get('Authorization', '').removeprefix('Bearer '))

    def _parts(self):
        return [unquote(part) for part in urlparse(self.path).path.strip('/').split('/')]

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        parts = self._parts()
        if self._fails():
            return
        if self._account() is None:
            return self._fail(401, 'Invalid credentials in Authorization header')
        if parts == ['api', 'validate-yaml']:
            text = json.loads(raw)['content']
            good = text.startswith('---\n') and '\n---\n' in text
            return self._answer(200 if good else 400, {'errors': [] if good else [{'message': 'no header'}]})
        if parts == ['api', 'repos', 'create']:
            return self._create(json.loads(raw))
        if parts[:2] != ['api', 'models'] or len(parts) != 6:
            return self._fail(404, 'no such page')
        name, action, revision = '/'.join(parts[2:4]), parts[4], parts[5]
        repo = self.server.repos.get(name)
        if repo is None:
            return self._fail(404, 'Repository not found', 'RepoNotFound')
        if parts[2] != self._account():
            return self._fail(403, f'Forbidden: you may not write to {name}')
        if action == 'branch':
            if revision in repo.branches:
                return self._fail(409, 'Reference already exists')
            repo.branches[revision] = [repo.branches['main'][-1]]
            return self._answer(201)
        if revision not in repo.branches:
            return self._fail(404, 'Invalid rev id', 'RevisionNotFound')
        if action == 'preupload':
            stored = repo.find(revision)[1]
            return self._answer(200, {'files': [
                dict(path=f['path'], uploadMode='regular', shouldIgnore=False,
                     oid=blob_id(stored[f['path']]) if f['path'] in stored else None)
                for f in json.loads(raw)['files']]})
        return self._commit(name, repo, revision, raw) if action == 'commit' else self._fail(404, 'no such page')

    def _create(self, asked):
        owner = asked.get('organization') or self._account()
        name = f'{owner}/{asked["name"]}'
        if owner != self._account():
            return self._fail(403, f"You don't have the rights to create a model under the namespace \"{owner}\"")
        exists = name in self.server.repos
        if not exists:
            private = asked.get('visibility') == 'private' or bool(asked.get('private'))
            self.server.repos[name] = Repo(private)
        return self._answer(409 if exists else 200, {'url': f'{self.server.url}/{name}', 'name': name})

    def _commit(self, name, repo, revision, raw):
        entries = [json.loads(line) for line in raw.splitlines()]
        message = next(e['value']['summary'] for e in entries if e['key'] == 'header')
        files = {e['value']['path']: base64.b64decode(e['value']['content']) for e in entries if e['key'] == 'file'}
        oid = repo.commit(revision, files, message)
        self._answer(200, {'commitUrl': f'{self.server.url}/{name}/commit/{oid}', 'commitOid': oid, 'success': True})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = self._parts()
        if self._fails():
            return
        api = parts[:2] == ['api', 'models']
        name = '/'.join(parts[2:4] if api else parts[:2])
        repo, rest = self.server.repos.get(name), parts[4:] if api else parts[2:]
        if repo is None or (repo.private and self._account() != name.split('/')[0]):
            return self._fail(401 if self._account() is None else 404, 'Repository not found', 'RepoNotFound')
        if api and rest[:1] == ['commits']:
            return self._answer(200, [
                dict(id=identity, title=message, message='', date='2026-01-01T00:00:00.000Z', authors=[])
                for identity, _, message in reversed(repo.branches[rest[1]])])
        commit = repo.find(rest[1] if len(rest) > 1 else 'main')
        if commit is None:
            return self._fail(404, 'Invalid rev id', 'RevisionNotFound')
        if api:
            return self._answer(200, dict(
                id=name, modelId=name, sha=commit[0], private=repo.private, tags=[], siblings=[
                    dict(rfilename=f) for f in commit[1]]))
        if rest[0] != 'resolve' or '/'.join(rest[2:]) not in commit[1]:
            return self._fail(404, 'Entry not found', 'EntryNotFound')
        content = commit[1]['/'.join(rest[2:])]
        self._answer(200, content, ETag=f'"{blob_id(content)}"', X_Repo_Commit=commit[0],
                     Content_Type='application/octet-stream')


@contextmanager
def running_hub():
    """Run an empty hub on its own port."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
