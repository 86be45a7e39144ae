"""Fetching a private repository where it is built: with a key that goes to one server, and is nowhere afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker.environments import cache, fetching, images, installing, programs, unlocking
from tests.doubles.git_repos import git, make_repo
from tests.doubles.git_server import GitServer
from tests.waiting import until

FOLDER = Path(cache.__file__).parent
SECRET = "glpat-the-secret-of-ada"
FILES = {"README.md": "nobody's business", "requirements.txt": ""}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "BASE", ("pip",))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "repos") as double:
        double.private.add("o/secret")
        double.rights[SECRET] = {"o/secret"}
        yield double


@pytest.fixture
def commit(tmp_path: Path) -> str:
    return make_repo(tmp_path / "repos", "o/secret", FILES)


def spec(server: GitServer, commit: str, folder: Path, **more: Any) -> dict[str, Any]:
    home = folder / "instance"
    home.mkdir(exist_ok=True)
    return {
        "repo_url": f"{server.url}/o/secret",
        "commit": commit,
        "title": "o/secret",
        "clone_megabytes": 50,
        "home": str(home),
        "runtime": str(home),
        "cache": str(folder / "cache"),
        "private": "ada",
        **more,
    }


def key(server: GitServer, secret: str = SECRET) -> unlocking.Key:
    return unlocking.Key(origin=server.url, user="oauth2", secret=secret)


def holds(folder: Path, secret: str = SECRET) -> list[Path]:
    """Files below it that have the secret in them."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def submodules(repo: Path, modules: dict[str, str]) -> str:
    """A commit without any before it, with these repositories at their heads: names and addresses."""
    text = "".join(f'[submodule "{name}"]\n\tpath = {name}\n\turl = {url}\n' for name, url in modules.items())
    blob = git(repo, "hash-object", "-w", "--stdin", given=text.encode())
    heads = {name: git(repo.parent / name, "rev-parse", "main") for name in modules}
    rows = "".join(f"160000 commit {head}\t{name}\n" for name, head in heads.items())
    tree = git(repo, "mktree", "--missing", given=f"100644 blob {blob}\t.gitmodules\n{rows}".encode())
    commit = git(repo, "commit-tree", tree, "-m", "modules")
    git(repo, "update-ref", f"refs/heads/{'-'.join(modules)}", commit)
    return commit


def test_the_commit_is_fetched_and_the_key_is_nowhere(
    server: GitServer, commit: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = spec(server, commit, tmp_path, key=key(server))
    fetching.fetch(wanted, tmp_path / "tree")
    assert (tmp_path / "tree/README.md").read_text() == "nobody's business"
    assert "key" not in wanted
    assert {(user, secret) for _, user, secret in server.shown} == {("oauth2", SECRET)}
    assert holds(tmp_path) == []
    assert SECRET not in "".join(capfd.readouterr())
    config = (tmp_path / "tree/.git/config").read_text()
    assert "credential" not in config
    assert "oauth2" not in config
    # What runs in the tree later opens nothing.
    later = fetching.Git(tmp_path / "tree", limit=10**6, allow_file=False)
    assert later.attempt("fetch", "origin", "main")[0] != 0


@pytest.mark.parametrize("why", ["other secret", "no secret"])
def test_a_refusal_says_what_to_do(
    server: GitServer, commit: str, tmp_path: Path, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    more = {"key": key(server, "wrong-secret-of-bob")} if why == "other secret" else {}
    with pytest.raises(programs.Failed) as failed:
        fetching.fetch(spec(server, commit, tmp_path, **more), tmp_path / "tree")
    assert ("Connect your account there again" in str(failed.value)) is (why == "other secret")
    assert "wrong-secret" not in str(failed.value) + "".join(capfd.readouterr())


def test_submodules_of_the_same_host_are_opened_and_others_are_shown_nothing(server: GitServer, tmp_path: Path) -> None:
    repo = tmp_path / "repos"
    for name in ("near", "far", "secret"):
        make_repo(repo, f"o/{name}", {"README.md": name})
    server.private.add("o/near")
    server.rights[SECRET].add("o/near")
    near = submodules(repo / "o/secret", {"near": "../near"})
    fetching.fetch(spec(server, near, tmp_path, key=key(server)), tmp_path / "tree")
    assert (tmp_path / "tree/near/README.md").read_text() == "near"
    assert holds(tmp_path) == []
    with GitServer(repo, host="localhost") as other:
        other.private.add("o/far")
        both = submodules(repo / "o/secret", {"far": f"{other.url}/o/far"})
        with pytest.raises(programs.Failed, match="submodule"):
            fetching.fetch(spec(server, both, tmp_path, key=key(server)), tmp_path / "second")
        assert other.requests
        assert not other.shown
    assert holds(tmp_path) == []


def test_a_submodule_brings_along_nothing_of_another_owner(server: GitServer, tmp_path: Path) -> None:
    """Eve's repository, to which Ada has a right, names Ada's own, to which Eve has none."""
    repo = tmp_path / "repos"
    for name in ("o/secret", "o/thesis"):
        make_repo(repo, name, {"README.md": name})
    named = submodules(repo / "o/secret", {"thesis": f"{server.url}/ada/thesis"})
    (repo / "ada").mkdir()
    (repo / "o/thesis").rename(repo / "ada/thesis")
    server.private.add("ada/thesis")
    server.rights[SECRET].add("ada/thesis")
    with pytest.raises(programs.Failed, match="submodule"):
        fetching.fetch(spec(server, named, tmp_path, key=key(server)), tmp_path / "tree")
    assert not [path for path, _, _ in server.shown if "ada" in path]


def test_a_redirect_to_another_host_is_shown_nothing(server: GitServer, commit: str, tmp_path: Path) -> None:
    with GitServer(tmp_path / "repos") as other:
        other.require = ("some", "body")
        server.private.clear()
        server.redirects["/o"] = f"{other.url}/o"
        with pytest.raises(programs.Failed):
            fetching.fetch(spec(server, commit, tmp_path, key=key(server)), tmp_path / "tree")
        assert other.requests
        assert not other.shown


def start(wanted: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """The builder as its agent starts it: the key by its standard input."""
    told = wanted.pop("key")
    file = folder / "spec.json"
    file.write_text(json.dumps({**wanted, "keyed": True}))
    process = subprocess.Popen(
        [sys.executable, "-I", str(FOLDER), str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps({"origin": told.origin, "user": told.user, "secret": told.secret}).encode())
    process.stdin.close()
    return process


def test_a_builder_that_is_killed_while_it_fetches_leaves_the_key_nowhere(
    server: GitServer, commit: str, tmp_path: Path
) -> None:
    """Looked at while the server holds its answer back: no command line, no environment, no file; and then killed."""
    server.gate.clear()
    process = start(spec(server, commit, tmp_path, key=key(server)), tmp_path)
    try:
        until(lambda: server.requests, seconds=30, what="the first question")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert any("git" in each.name() for each in family)
        for each in family:
            for what in ("cmdline", "environ"):
                assert SECRET.encode() not in Path(f"/proc/{each.pid}/{what}").read_bytes()
        assert holds(tmp_path) == []
    finally:
        process.kill()
        process.wait()
        server.gate.set()
    assert holds(tmp_path) == []
    until(lambda: not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE])


def test_what_was_built_from_a_private_repository_is_found_only_for_it(
    server: GitServer, commit: str, tmp_path: Path, small: None, said_nothing: None
) -> None:
    """Whoever has heard of the commit can have a server of their own say that it has it. Nothing of ours is found by that."""
    cache.build(spec(server, commit, tmp_path, key=key(server)))
    built = spec(server, commit, tmp_path)
    assert cache.found(built) is not None
    forged = make_repo(tmp_path / "repos", "evil/fork", FILES)
    assert forged == commit
    for stranger in (
        {**built, "private": ""},
        {**built, "private": "", "repo_url": f"{server.url}/evil/fork"},
        {**built, "private": "bob"},  # his rights to submodules may be others
        {**built, "repo_url": f"{server.url}/evil/fork"},
    ):
        assert cache.found(stranger) is None


def test_the_image_of_a_private_repository_has_a_name_that_nobody_can_know(
    server: GitServer, commit: str, tmp_path: Path
) -> None:
    engine = {"kind": "docker", "registry": "registry.example", "network": "open"}
    here = spec(server, commit, tmp_path, engine=engine)
    there = {**here, "cache": str(tmp_path / "elsewhere")}
    names = {
        name: images.wanted_by(each, "sha256:base").name
        for name, each in {
            "here": here,
            "there": there,
            "open": {**here, "private": ""},
            "bob": {**here, "private": "bob"},
        }.items()
    }
    assert len(set(names.values())) == 4
    assert images.wanted_by(here, "sha256:base").name == names["here"]
    assert images.wanted_by(here, "sha256:base").key != images.wanted_by(there, "sha256:base").key
    secret = tmp_path / "cache/images/private.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_text() not in str(images.wanted_by(here, "sha256:base").labels)


def test_threads_make_one_secret_for_their_images(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(images.own_secret, [tmp_path / "images"] * 8))) == 1
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["private.key"]


def test_a_key_cannot_be_written_down_by_mistake() -> None:
    with pytest.raises(TypeError):
        json.dumps({"key": unlocking.Key(origin="https://git.example", user="ada", secret=SECRET)})
    assert SECRET not in repr(unlocking.Key(origin="https://git.example", user="ada", secret=SECRET))


@pytest.fixture
def said_nothing(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert SECRET not in "".join(capfd.readouterr())


def test_storage_without_a_name_is_used_where_the_system_has_none_of_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with unlocking.offered(
        unlocking.Key(origin="https://git.example", user="ada", secret=SECRET), "https://git.example/o/secret"
    ) as offer:
        assert list(tmp_path.iterdir()) == []
        for _ in range(2):
            assert SECRET in unlocking.answer(offer.fds[0], "protocol=https\nhost=git.example\npath=o/secret\n")
