"""GitHub as far as it is asked: the look-up of references by its API, quota and all, and git beside it.

    commit = make_repo(root, "o/r", {"README.md": "hello"})
    with GitHubDouble(root) as github:
        Settings(hosts={"gh": {"api": github.api, "url": github.url}})
    github.count("/api/")       # questions asked of the API

On demand: `github.quota = 0` is the rate limit (`github.reset` says until when); `github.api_status = 503` a bad day;
`github.private.add("o/r")` hides a repository from those without `github.token` or a right to it (`github.rights`),
`github.moved["o/old"] = "o/r"`; `github.scopes["a-token"] = "repo"` makes that a classic token.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.doubles.git_repos import QUIET
from tests.doubles.git_server import GitHandler, GitServer


class GitHubDouble(GitServer):
    """One server for both; the API lives under `/api`."""

    def __init__(self, root: Path) -> None:
        self.quota = 60
        self.reset = 0
        self.retry_after = 0
        self.api_status = 0
        self.token = "the-token"
        self.scopes: dict[str, str] = {}
        self.moved: dict[str, str] = {}
        super().__init__(root, handler=GitHubHandler)
        self.api = f"{self.url}/api"

    @property
    def asked(self) -> int:
        """Questions the API answered, those for free included."""
        return self.count("/api/")


class GitHubHandler(GitHandler):
    double: GitHubDouble

    def serve(self, body: bytes) -> None:
        if self.path.startswith("/api/"):
            self.api(unquote(urlsplit(self.path).path).removeprefix("/api/repos/"))
        else:
            super().serve(body)

    def api(self, path: str) -> None:
        if path == "/api/user":
            self.user()
            return
        owner, name, *question = path.split("/")
        repo = f"{owner}/{name}"
        if self.double.api_status:
            self.say(self.double.api_status, "having trouble")
        elif (said := self.sign()[1]) and said != self.double.token and said not in self.double.rights:
            self.say(401, "Bad credentials")
        elif self.double.quota <= 0 or self.double.retry_after:
            self.say(403, "API rate limit exceeded")
        elif repo in self.double.moved:
            there = "/".join([self.double.moved[repo], *question])
            self.answer(301, b"", {"Location": f"{self.double.url}/api/repos/{there}"})
        elif not (self.double.root / repo).is_dir() or (repo in self.double.private and not self.may_see(repo)):
            self.spend()
            self.say(404, "Not Found")
        elif question[0] == "commits":
            self.commit(self.double.root / repo, "/".join(question[1:]))
        else:
            self.matching_refs(self.double.root / repo, "/".join(question[2:]))

    def user(self) -> None:
        token = self.sign()[1]
        if token not in self.double.rights:
            self.say(401, "Bad credentials")
            return
        scopes = self.double.scopes.get(token)
        told = {"X-OAuth-Scopes": scopes} if scopes is not None else {}
        told["github-authentication-token-expiration"] = "2027-02-19 09:00:00 UTC"
        self.answer(200, json.dumps({"login": f"owner-of-{token[:3]}"}).encode(), told)

    def may_see(self, repo: str) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.double.token}" or self.opens(repo)

    def commit(self, repo: Path, ref: str) -> None:
        names = [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}", ref]
        commit = next(filter(None, (rev_parse(repo, name) for name in names)), None)
        if commit is None:
            self.spend()
            self.say(422, f"No commit found for SHA: {ref}")
            return
        tag = f'"{hashlib.sha256(commit.encode()).hexdigest()}"'
        if self.headers.get("If-None-Match") == tag:
            self.answer(304, b"", {"ETag": tag, **self.quota_headers()})
            return
        self.spend()
        self.answer(200, commit.encode(), {"ETag": tag, **self.quota_headers()})

    def matching_refs(self, repo: Path, begin: str) -> None:
        self.spend()
        listing = run(repo, "for-each-ref", "--format=%(refname) %(objectname)") or ""
        rows = [line.split() for line in listing.splitlines() if line.startswith(f"refs/{begin}")]
        body = [{"ref": ref, "object": {"sha": sha, "type": "commit"}} for ref, sha in rows]
        self.answer(200, json.dumps(body).encode(), self.quota_headers())

    def spend(self) -> None:
        self.double.quota -= 1

    def say(self, status: int, message: str) -> None:
        self.answer(status, json.dumps({"message": message}).encode(), self.quota_headers())

    def quota_headers(self) -> dict[str, str]:
        found = {"X-RateLimit-Remaining": str(max(0, self.double.quota)), "X-RateLimit-Reset": str(self.double.reset)}
        return found | ({"Retry-After": str(self.double.retry_after)} if self.double.retry_after else {})


def rev_parse(repo: Path, name: str) -> str | None:
    return run(repo, "rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")


def run(repo: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "--git-dir", str(repo), *arguments], capture_output=True, env=QUIET, check=False)
    return done.stdout.decode().strip() if done.returncode == 0 else None
