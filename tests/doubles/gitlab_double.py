"""GitLab as far as it is asked: the look-up of commits by its API v4, and git beside it.

What it answers is GitLab's own: "Get a single commit" in the Commits API documentation (`GET
/projects/:id/repository/commits/:sha`, where `:id` is a number or the path, percent-encoded, and `:sha` a hash or the
name of a branch or tag), the weak `ETag` and `RateLimit-*` headers of an answer of gitlab.com recorded in BinderHub's
tests (http-record.gitlab.com.json at b9fad995), the bodies `404 Project Not Found` and `404 Commit Not Found`, status
429 with `Retry-After` from its documentation of rate limits, and 401 for a token that is no longer good.

    make_repo(root, "group/sub/project.git", {...})
    with GitLabDouble(root) as gitlab:
        Settings(hosts={"gl": {"api": gitlab.api, "url": gitlab.url}})

On demand: `api_status`, `limited` (seconds), `private` (paths that only `token` and `rights` show), `revoked`;
`scopes["a-token"] = ["read_repository"]` is what a personal access token may do: without `api` or `read_api` it opens git and
not the commits of the API (403 `insufficient_scope`); `GET /user` wants `read_user` or those.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote

from tests.doubles.git_server import GitHandler, GitServer
from tests.doubles.github_double import rev_parse


class GitLabDouble(GitServer):
    """One server for both, as GitLab is."""

    def __init__(self, root: Path) -> None:
        self.api_status = 0
        self.limited = 0
        self.token = "glpat-the-token"
        self.revoked = False
        self.scopes: dict[str, list[str]] = {}
        super().__init__(root, handler=GitLabHandler)
        self.api = f"{self.url}/api/v4"

    @property
    def asked(self) -> int:
        """Questions the API answered, those for free included."""
        return self.count("/api/v4/")


class GitLabHandler(GitHandler):
    double: GitLabDouble

    def serve(self, body: bytes) -> None:
        if self.path in ("/api/v4/user", "/api/v4/personal_access_tokens/self"):
            self.own(self.path.rpartition("/")[2])
        elif self.path.startswith("/api/v4/projects/"):
            self.api(self.path.removeprefix("/api/v4/projects/"))
        elif not self.double.root.joinpath(unquote(self.path.partition(".git")[0].lstrip("/")) + ".git").is_dir():
            self.answer(401, b"HTTP Basic: Access denied.", {"WWW-Authenticate": 'Basic realm="GitLab"'})
        else:
            super().serve(body)

    def api(self, path: str) -> None:
        raw, _, question = path.partition("/")
        project = unquote(raw)
        token = self.headers.get("Authorization", "")
        if self.double.api_status:
            self.say(self.double.api_status, "having trouble")
        elif self.double.limited:
            self.say(429, "Retry later", {"Retry-After": str(self.double.limited), "RateLimit-Remaining": "0"})
        elif token and not self.is_known():
            self.say(401, "401 Unauthorized")
        elif token and not self.may("read_api"):
            self.say(403, "insufficient_scope")
        elif not (self.double.root / f"{project}.git").is_dir() or (
            self.is_hidden(project) and token != f"Bearer {self.double.token}" and not self.opens(project)
        ):
            self.say(404, "404 Project Not Found")
        elif not question.startswith("repository/commits/") or "/" in question.removeprefix("repository/commits/"):
            self.say(404, "404 Not Found")
        else:
            self.commit(self.double.root / f"{project}.git", unquote(question.removeprefix("repository/commits/")))

    def is_known(self) -> bool:
        token = self.sign()[1]
        return not self.double.revoked and (token == self.double.token or token in self.double.rights)

    def may(self, scope: str) -> bool:
        scopes = self.double.scopes.get(self.sign()[1], ["api"])
        return bool({scope, "api", *(["read_api"] if scope == "read_user" else [])} & set(scopes))

    def own(self, what: str) -> None:
        """Whose token it is, and what it may do."""
        token = self.sign()[1]
        if not self.is_known():
            self.say(401, "401 Unauthorized")
        elif what == "self":
            row = {"name": "Anybinder", "scopes": self.double.scopes.get(token, ["api"]), "expires_at": "2027-02-19"}
            self.answer(200, json.dumps(row).encode())
        elif self.may("read_user"):
            self.answer(200, json.dumps({"id": 1, "username": f"owner-of-{token[:3]}"}).encode())
        else:
            self.say(403, "insufficient_scope")

    def is_hidden(self, project: str) -> bool:
        return unquote(project) in self.double.private

    def commit(self, repo: Path, ref: str) -> None:
        names = [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}", ref]
        commit = next(filter(None, (rev_parse(repo, name) for name in names)), None)
        if commit is None:
            self.say(404, "404 Commit Not Found")
            return
        tag = f'W/"{hashlib.md5(commit.encode()).hexdigest()}"'
        if self.headers.get("If-None-Match") == tag:
            self.answer(304, b"", {"ETag": tag})
            return
        row = {"id": commit, "short_id": commit[:8], "title": "x", "parent_ids": [], "web_url": f"{self.double.url}/x"}
        self.answer(200, json.dumps(row).encode(), {"ETag": tag, "Content-Type": "application/json"})

    def say(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.answer(status, json.dumps({"message": message}).encode(), headers)
