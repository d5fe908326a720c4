"""A server on loopback that answers as the Hugging Face Hub does: https://huggingface.co/docs/hub/api.

    with HubServer({"me/tiny": {"config.json": b"...", "model.safetensors": b"..."}}) as server:
        server.url  # for HF_ENDPOINT

Small files come from the server itself, with git's digest as ETag; the weights from another host, after a redirect.
"""

from __future__ import annotations

import hashlib
import re

from tests.loopback import Handler, Loopback

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"
BLOBS = {".safetensors", ".bin"}  # stored apart


class _Handler(Handler):
    owner: HubServer

    def do_HEAD(self):  # noqa: N802
        self.do_GET()

    def do_GET(self):  # noqa: N802 http.server calls it
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.owner.requests.append((self.command, self.path, token))
        if self.owner.status:
            return self._answer(self.owner.status, b"ill")
        if stored := re.fullmatch(r"/blobs/([\w.-]+/[\w.-]+)/(.+)", self.path):
            return self._answer(200, self.owner.models[stored[1]][stored[2]])
        if found := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(.+)/([^/]+)", self.path):
            return self._resolve(found[1], found[2].replace("%2F", "/"), found[3], token)
        return self._answer(404, b"")  # the library asks for other things too

    def _resolve(self, repo: str, revision: str, name: str, token: str | None) -> None:
        if repo in self.owner.gated:
            return self._refuse(403 if token else 401, "GatedRepo", "Access to model is restricted")
        if repo not in self.owner.models or (repo in self.owner.private and token != TOKEN):
            return self._refuse(401, "RepoNotFound", "Repository not found")
        if revision not in {*self.owner.revisions, self.owner.commit, COMMIT}:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        headers = {"X-Repo-Commit": self.owner.commit if revision in self.owner.revisions else revision}
        if name not in self.owner.models[repo]:
            return self._refuse(404, "EntryNotFound", "Entry not found", headers)
        data = self.owner.models[repo][name]
        if any(name.endswith(ending) for ending in BLOBS):
            linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            return self._answer(302, b"", headers | linked | {"Location": f"{self.owner.store}/{repo}/{name}"})
        digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return self._answer(200, data, headers | {"ETag": f'"{digest}"'})

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, b"", {"X-Error-Code": code, "X-Error-Message": message} | (headers or {}))

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class HubServer(Loopback):
    """Serves `models`, OWNER/NAME -> {file: bytes}, at `commit`; `requests` lists (method, path, token).

    private    names that need TOKEN; gated    names that nobody may have
    revisions  branches and tags
    status     of every answer, if the server is ill
    """

    handler = _Handler

    def __init__(self, models: dict[str, dict[str, bytes]], commit: str = COMMIT):
        self.models, self.commit, self.revisions = models, commit, {"main", "v1.0", "refs/pr/1"}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.status: int | None = None
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def store(self) -> str:
        """The host of the large files."""
        return f"http://localhost:{self.port}/blobs"

    def asked(self) -> list[str]:
        """The files that were downloaded, in order."""
        downloads = (path for method, path, _ in self.requests if method == "GET" and not path.startswith("/api/"))
        return [path.rsplit("/", 1)[-1] for path in downloads]
