"""Bitbucket Cloud as far as it is asked: repositories, references and commits by its REST API 2.0, and git beside it.

What it answers follows Bitbucket's published reference of the API: `GET /2.0/repositories/{workspace}/{repo_slug}` with
`mainbranch`, `GET …/refs?q=name = "…"` with a page of `values` of type `branch` or `tag` and their `target.hash`
(filtering as in "Filter and sort API objects"), `GET …/commit/{commit}` with `hash`, which takes hashes only; errors as
`{"type": "error", "error": {"message": …}}`, and 429 where an hour's questions are used up.

    make_repo(root, "w/r", {...})
    with BitbucketDouble(root) as bitbucket:
        Settings(hosts={"bb": {"api": bitbucket.api, "url": bitbucket.url}})
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.doubles.git_server import GitHandler, GitServer
from tests.doubles.github_double import rev_parse, run


class BitbucketDouble(GitServer):
    """One server for both; the API lives under `/2.0`."""

    def __init__(self, root: Path) -> None:
        self.api_status = 0
        self.limited = False
        self.token = "the-token"
        self.revoked = False
        super().__init__(root, handler=BitbucketHandler)
        self.api = f"{self.url}/2.0"

    @property
    def asked(self) -> int:
        """Questions the API answered."""
        return self.count("/2.0/")


class BitbucketHandler(GitHandler):
    double: BitbucketDouble

    def serve(self, body: bytes) -> None:
        if self.path == "/2.0/user":
            self.user()
        elif self.path.startswith("/2.0/repositories/"):
            self.api(urlsplit(self.path))
        else:
            super().serve(body)

    def api(self, parts: Any) -> None:
        workspace, name, *question = unquote(parts.path).removeprefix("/2.0/repositories/").split("/")
        repo, token = f"{workspace}/{name}", self.headers.get("Authorization", "")
        if self.double.api_status:
            self.say(self.double.api_status, "having trouble")
        elif self.double.limited:
            self.say(429, "Rate limit for this resource has been exceeded")
        elif token and (self.double.revoked or not self.is_known()):
            self.say(401, "Token is invalid, expired, or not supported for this endpoint.")
        elif not (self.double.root / repo).is_dir():
            self.say(404, f"Repository {repo} not found")
        elif repo in self.double.private and token != f"Bearer {self.double.token}" and not self.opens(repo):
            self.say(403, "Access denied. You must have write or admin access.")
        else:
            self.question(self.double.root / repo, question, parse_qs(parts.query))

    def is_known(self) -> bool:
        """An API token comes with its owner's address, by Basic; an access token of a repository by Bearer."""
        user, token = self.sign()
        return token == self.double.token or (
            token in self.double.rights and ("@" in user) == token.startswith("ATATT")
        )

    def user(self) -> None:
        """Access tokens are nobody's: 403."""
        user, _ = self.sign()
        if not self.is_known():
            self.say(401, "Token is invalid, expired, or not supported for this endpoint.")
        elif not user:
            self.say(403, "This endpoint does not take access tokens.")
        else:
            self.answer(
                200,
                json.dumps({"type": "user", "display_name": "Ada"}).encode(),
                {"X-OAuth-Scopes": "read:repository:bitbucket, read:user:bitbucket, write:repository:bitbucket"},
            )

    def question(self, repo: Path, question: list[str], query: dict[str, list[str]]) -> None:
        match question:
            case []:
                head = (repo / "HEAD").read_text().strip().removeprefix("ref: refs/heads/")
                empty = rev_parse(repo, "HEAD") is None
                self.row({"type": "repository", "mainbranch": None if empty else {"name": head, "type": "branch"}})
            case ["refs"]:
                self.refs(repo, query["q"][0])
            case ["commit", sha] if re.fullmatch("[0-9a-f]{7,40}", sha) and (commit := rev_parse(repo, sha)):
                self.row({"type": "commit", "hash": commit})
            case ["commit", *rest]:
                self.say(404, "Commit not found", {"shas": ["/".join(rest)]})
            case _:
                self.say(404, "Resource not found")

    def refs(self, repo: Path, query: str) -> None:
        found = re.fullmatch(r'name = "((?:[^"\\]|\\.)*)"', query)
        if not found:
            self.say(400, f"Invalid query: {query}")
            return
        wanted = re.sub(r"\\(.)", r"\1", found[1])
        listing = run(repo, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags") or ""
        kinds = {"heads": "branch", "tags": "tag"}
        rows = [line.split("/", 2)[1:] for line in listing.splitlines()]
        values = [
            {"type": kinds[kind], "name": name, "target": {"hash": rev_parse(repo, f"refs/{kind}/{name}")}}
            for kind, name in rows
            if name == wanted
        ]
        self.row({"values": values, "pagelen": 10, "size": len(values), "page": 1})

    def row(self, row: dict[str, Any]) -> None:
        self.answer(200, json.dumps(row).encode(), {"Content-Type": "application/json"})

    def say(self, status: int, message: str, data: dict[str, Any] | None = None) -> None:
        error = {"message": message} | ({"data": data} if data else {})
        self.answer(status, json.dumps({"type": "error", "error": error}).encode())
