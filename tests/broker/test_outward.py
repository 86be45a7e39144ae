"""What is fetched for strangers beside the containers: from the internet, and from where the operator chose."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker import repos, settings
from broker.environments import fetching, outward, programs
from tests.doubles.git_repos import QUIET, add_commit, make_repo
from tests.doubles.git_server import GitServer


@pytest.fixture
def chosen(tmp_path: Path) -> Iterator[GitServer]:
    """The operator's own host of repositories, on a private network."""
    with GitServer(tmp_path / "chosen") as server:
        server.commit = make_repo(server.root, "o/r.git", {"a": "1" * 100_000})
        yield server


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[GitServer]:
    """What strangers shall not see."""
    with GitServer(tmp_path / "hidden") as server:
        make_repo(server.root, "o/secret.git", {"secret": "s3cret"})
        yield server


def place(server: GitServer) -> str:
    return server.url.removeprefix("http://")


def fetch(folder: Path, server: GitServer, **more: Any) -> Path:
    """For a visitor of a hub with containers."""
    home = folder / f"home{len(list(folder.iterdir()))}"
    (home / "home").mkdir(parents=True)
    told = {"repo_url": f"{server.url}/o/r.git", "commit": getattr(server, "commit", ""), "title": "o/r"}
    limits = {"clone_megabytes": 50, "build_seconds": 60}
    fetching.fetch(told | limits | {"engine": {"kind": "docker"}, "inner": [place(server)]} | more, home / "tree")
    return home / "tree"


def with_submodule(folder: Path, server: GitServer, url: str) -> None:
    """A new commit that names another repository."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(server.root / "o/r.git"), str(clone)], env=QUIET, check=True)
    (clone / ".gitmodules").write_text(f'[submodule "sub"]\n\tpath = sub\n\turl = {url}\n')
    link = ["update-index", "--add", "--cacheinfo", "160000", secret_commit(folder), "sub"]
    push = ["push", "--quiet", "origin", "HEAD:refs/heads/main"]
    for arguments in (["add", ".gitmodules"], link, ["commit", "--quiet", "-m", "x"], push):
        subprocess.run(["git", *arguments], cwd=clone, env=QUIET, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=clone, env=QUIET, check=True, capture_output=True, text=True
    )
    server.commit = head.stdout.strip()


def secret_commit(folder: Path) -> str:
    told = ["git", "--git-dir", str(folder / "hidden/o/secret.git"), "rev-parse", "HEAD"]
    return subprocess.run(told, env=QUIET, check=True, capture_output=True, text=True).stdout.strip()


def test_what_the_operator_chose_is_fetched_from_wherever_it_is(tmp_path, chosen, hidden):
    with_submodule(tmp_path, chosen, f"{hidden.url}/o/secret.git")
    tree = fetch(tmp_path, chosen, inner=[place(chosen), place(hidden)])
    assert (tree / "a").stat().st_size == 100_000
    assert (tree / "sub/secret").read_text() == "s3cret"
    assert programs.proxies == {}


def test_a_submodule_leads_into_no_private_network(tmp_path, chosen, hidden):
    with_submodule(tmp_path, chosen, f"{hidden.url}/o/secret.git")
    with pytest.raises(programs.Failed, match="A submodule could not be fetched"):
        fetch(tmp_path, chosen)
    assert hidden.requests == []


def test_a_redirect_leads_into_no_private_network(tmp_path, chosen, hidden):
    chosen.redirects["/o/r.git"] = f"{hidden.url}/o/secret.git"
    with pytest.raises(programs.Failed, match="could not be fetched"):
        fetch(tmp_path, chosen, commit=secret_commit(tmp_path))
    assert hidden.requests == []


def test_what_no_proxy_is_asked_for_is_no_way_around(tmp_path, chosen, hidden, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with_submodule(tmp_path, chosen, f"{hidden.url}/o/secret.git")
    with pytest.raises(programs.Failed, match="A submodule could not be fetched"):
        fetch(tmp_path, chosen)
    file = {"url": f"{hidden.url}/o/secret.git/HEAD", "path": "HEAD", "size": None}
    with pytest.raises(programs.Failed):
        fetch(tmp_path, chosen, content={"kind": "files", "files": [file]})
    assert hidden.requests == []


def test_no_key_of_this_computer_opens_anything_for_strangers(tmp_path, chosen, hidden, monkeypatch):
    """ssh looks for keys where the password file says that home is, whatever $HOME says."""
    asked = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(f"#!/bin/sh\ntouch {asked}\nexit 1\n")
    (tmp_path / "bin/ssh").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    with_submodule(tmp_path, chosen, "git@git.example.org:o/secret.git")
    with pytest.raises(programs.Failed, match="A submodule could not be fetched"):
        fetch(tmp_path, chosen)
    with pytest.raises(programs.Failed, match="only fetched by https"):
        fetch(tmp_path, chosen, repo_url="ssh://git@git.example.org/o/r.git")
    assert not asked.exists()


def test_files_come_from_where_the_operator_chose_and_from_no_other_private_place(tmp_path, chosen, hidden):
    def row(server: GitServer, path: str) -> dict[str, Any]:
        return {"url": f"{server.url}/{path}", "path": "HEAD", "size": None}

    with GitServer(chosen.root, smart=False) as plain:
        tree = fetch(tmp_path, plain, content={"kind": "files", "files": [row(plain, "o/r.git/HEAD")]})
        assert (tree / "HEAD").read_text().startswith("ref: ")
    with pytest.raises(programs.Failed):
        fetch(tmp_path, chosen, content={"kind": "files", "files": [row(hidden, "o/secret.git/HEAD")]})
    assert hidden.requests == []


def test_on_ones_own_computer_ones_own_network_is_asked(tmp_path, chosen, hidden):
    with_submodule(tmp_path, chosen, f"{hidden.url}/o/secret.git")
    assert (fetch(tmp_path, chosen, inner=None) / "sub/secret").exists()
    add_commit(chosen.root / "o/r.git", {"a": "2"})


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "224.0.0.1", "0.0.0.0", "::1",
     "fd00:ec2::254", "fe80::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:a00:1::"],
)  # fmt: skip
def test_what_is_not_the_internet(address):
    assert not outward.public(address)


def test_a_served_broker_tells_builders_where_they_may_look(tmp_path):
    hosts = {"gl": settings.HostSetting(url="https://gitlab.campus.example"), "gh": settings.HostSetting(token="t")}
    served = settings.Settings(
        home=tmp_path, public_url="https://hub.example.org", session_domain="x.example", hosts=hosts
    )
    assert repos.Resolver(served).inner == ["gitlab.campus.example:443"]
    assert repos.Resolver(settings.Settings(home=tmp_path, hosts=hosts)).inner is None
