"""A host with a private repository, a person who may read it and one who may not; for tests from the table to the session.

with private_host(tmp_path, TOKEN) as host:                        # a GitHub double; host.repo is "o/secret"
    settings.Settings(hosts={"gh": {"api": host.api, "url": host.url}})
    connect_token(bench.at, ADA, TOKEN)                            # as the page does it
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from broker import connections, people, repo_access, service
from broker.models import Connection
from tests.doubles.git_repos import Files, make_repo
from tests.doubles.github_double import GitHubDouble

REPO = "o/secret"


@contextlib.contextmanager
def private_host(folder: Path, token: str, files: Files | None = None) -> Iterator[GitHubDouble]:
    """`o/secret` for who shows this token, `o/open` for everybody; both hold these files."""
    for name in (REPO, "o/open"):
        make_repo(folder / "hosted", name, files or {"README.md": "nobody's business"})
    with GitHubDouble(folder / "hosted") as host:
        host.private.add(REPO)
        host.rights[token] = {REPO}
        yield host


def connect_token(at: service.Service, person: people.Person, token: str, prefix: str = "gh") -> Connection:
    """The person's own token for this host, kept as the page keeps it."""
    kinds = repo_access.kinds(at, person, prefix)
    return connections.connect(
        at, person, repo_access.target_of(prefix), kinds, "token", {"token": token, "user": "ada"}
    )
