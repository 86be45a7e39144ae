"""Gists as far as they are asked for: GitHub's REST API for gists, and git beside it.

What it answers is GitHub's own: `GET /gists/{gist_id}` and `GET /gists/{gist_id}/{sha}` of its REST API reference, with
the fields of an answer recorded in BinderHub's tests (http-record.api.github.com.gists.json at b9fad995): `public`,
`owner.login`, `history[].version` with the newest first, of which GitHub lists the newest thirty.

    make_repo(root, f"ada/{GIST}.git", {...})
    with GistDouble(root, GIST, owner="ada") as gists:
        Settings(hosts={"gist": {"api": gists.api, "url": gists.url}})
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.doubles.git_server import GitHandler, GitServer
from tests.doubles.github_double import rev_parse, run


class GistDouble(GitServer):
    """One gist on one server; the API lives under `/api`."""

    def __init__(self, root: Path, gist: str, *, owner: str) -> None:
        self.gist, self.owner = gist, owner
        self.public = True
        self.listed = 30
        self.api_status = 0
        self.quota = 60
        super().__init__(root, handler=GistHandler)
        self.api = f"{self.url}/api"

    @property
    def repo(self) -> Path:
        return self.root / self.owner / f"{self.gist}.git"

    @property
    def asked(self) -> int:
        return self.count("/api/")


class GistHandler(GitHandler):
    double: GistDouble

    def serve(self, body: bytes) -> None:
        if self.path.startswith("/api/gists/"):
            self.api(*self.path.removeprefix("/api/gists/").split("/"))
        else:
            super().serve(body)

    def api(self, gist: str, sha: str = "HEAD") -> None:
        headers = {"X-RateLimit-Remaining": str(self.double.quota), "X-RateLimit-Reset": "0"}
        if self.double.api_status:
            self.say(self.double.api_status, "having trouble", headers)
        elif self.double.quota <= 0:
            self.say(403, "API rate limit exceeded", headers)
        elif gist != self.double.gist or not rev_parse(self.double.repo, sha):
            self.say(404, "Not Found", headers)
        else:
            self.gist(sha, headers)

    def gist(self, sha: str, headers: dict[str, str]) -> None:
        log = (run(self.double.repo, "log", "--format=%H", sha) or "").splitlines()[: self.double.listed]
        row = {
            "id": self.double.gist,
            "public": self.double.public,
            "owner": {"login": self.double.owner},
            "git_pull_url": f"{self.double.url}/{self.double.gist}.git",
            "history": [{"version": version, "user": {"login": self.double.owner}} for version in log],
        }
        body = json.dumps(row).encode()
        tag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        if self.headers.get("If-None-Match") == tag:
            self.answer(304, b"", {"ETag": tag, **headers})
            return
        self.double.quota -= 1
        self.answer(200, body, {"ETag": tag, **headers})

    def say(self, status: int, message: str, headers: dict[str, str]) -> None:
        self.answer(status, json.dumps({"message": message}).encode(), headers)
