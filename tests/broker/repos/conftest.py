"""Real git servers and a GitHub, with one repository that has everything names can be confused by."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from broker import repos, settings
from tests.doubles.git_server import GitServer, add_commit, add_tag, git, make_repo, set_ref
from tests.doubles.github_double import GitHubDouble


@dataclass(frozen=True, kw_only=True)
class Known:
    """Commits of the repository `o/r`."""

    root: Path
    main: str
    nested: str
    first: str
    annotated: str
    tag_object: str
    pull: str
    unnamed: str


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Made once, by some forty runs of git, and copied for each test."""
    root = tmp_path_factory.mktemp("pattern")
    first = make_repo(root, "o/r", {"README.md": "one", "requirements.txt": "numpy\n"})
    repo = root / "o/r"
    unnamed = add_commit(repo, {"README.md": "between"}, message="between")
    main = add_commit(repo, {"README.md": "two"}, message="two")
    nested = add_commit(repo, {"notebooks/a.ipynb": "{}"}, branch="feature/x", message="nested")
    both = add_commit(repo, {"b": "branch"}, branch="both", message="branch")
    add_commit(repo, {"z": "decoy"}, branch="a/main", message="a branch whose name ends in another's")
    add_tag(repo, "both", main)
    tag_object = add_tag(repo, "v1.0", first, annotated=True)
    add_tag(repo, "releases/2", main)
    add_tag(repo, "main/2", first)
    set_ref(repo, "refs/pull/7/head", both)
    return Known(
        root=root,
        main=main,
        nested=nested,
        first=first,
        annotated=first,
        tag_object=tag_object,
        pull=both,
        unnamed=unnamed,
    )


@pytest.fixture
def known(pattern: Known, tmp_path: Path) -> Known:
    shutil.copytree(pattern.root, tmp_path / "served")
    return replace(pattern, root=tmp_path / "served")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(home: Path, clock: Clock) -> Callable[..., repos.Resolver]:
    def make(github: GitHubDouble | None = None, **options: Any) -> repos.Resolver:
        chosen = {name: options.pop(name) for name in list(options) if name in settings.Settings.model_fields}
        if github:
            own = {"api": github.api, "url": github.url, **options.pop("gh", {})}
            chosen = {"hosts": {"gh": own}} | chosen
        return repos.Resolver(settings.Settings(home=home, **chosen), clock=clock, **options)

    return make


@pytest.fixture
def github(known: Known) -> Iterator[GitHubDouble]:
    with GitHubDouble(known.root) as double:
        yield double


@pytest.fixture(params=["smart", "old", "dumb"])
def server(request: pytest.FixtureRequest, known: Known) -> Iterator[GitServer]:
    kind = {"smart": {}, "old": {"protocol": 0}, "dumb": {"smart": False}}[request.param]
    with GitServer(known.root, **kind) as double:
        yield double


@pytest.fixture
def smart(known: Known) -> Iterator[GitServer]:
    with GitServer(known.root) as double:
        yield double


@pytest.fixture
def packed(known: Known) -> Known:
    git(known.root / "o/r", "gc", "--quiet", "--prune=now")
    git(known.root / "o/r", "update-server-info")
    return known
