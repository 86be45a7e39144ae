"""Small files at a commit: read from real git servers of three kinds, and from hosts of data."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from broker import repos
from broker.repos import errors, reading
from tests.doubles.git_server import GitHandler, GitServer, add_commit, git
from tests.waiting import until

PATHS = (".binder/resources.yaml", "binder/resources.yaml", ".devcontainer/devcontainer.json", ".devcontainer.json")


class Weighing(GitHandler):
    def answer(self, status, content, headers=None):
        self.double.bytes_sent += len(content)
        super().answer(status, content, headers)


class Weighed(GitServer):
    def __init__(self, root) -> None:
        self.bytes_sent = 0
        super().__init__(root, handler=Weighing)


@pytest.fixture
def wanting(known):
    """A commit that says what it needs, beside much that nobody asked for."""
    files = {
        "binder/resources.yaml": "required: {cpu: 2}\n",
        "large.bin": os.urandom(400_000),
        ".devcontainer.json": b"\xff{}",
    }
    return add_commit(known.root / "o/r", files, branch="wanting")


def found_at(resolver, server, ref: str) -> repos.Resolved:
    return resolver.resolve(repos.RepoSpec.parse(f"{server.url}/o/r", ref=ref))


def test_files_that_exist_are_read_and_others_are_not_there(server, resolver, wanting):
    asking = resolver()
    found = found_at(asking, server, "wanting")
    assert asking.read(found, PATHS) == {
        "binder/resources.yaml": b"required: {cpu: 2}\n",
        ".devcontainer.json": b"\xff{}",
    }


def test_a_commit_that_no_branch_names_is_read_as_well(server, resolver, known):
    asking = resolver()
    assert asking.read(found_at(asking, server, known.unnamed), ["README.md"]) == {"README.md": b"between"}


def test_no_more_than_folders_and_the_wanted_files_are_fetched(known, resolver, wanting):
    sent = []

    class Weighed(GitServer):
        pass

    with Weighed(known.root) as smart:
        asking = resolver()
        found = found_at(asking, smart, wanting)
        before = len(smart.requests)
        asking.read(found, PATHS)
        sent = smart.requests[before:]
    assert (
        sum(method == "POST" for method, _ in sent) <= 4
    )  # what there is, and the fetch: for the folders, for the files


def test_a_repository_without_such_files_costs_one_fetch(smart, resolver, known):
    asking = resolver()
    found = found_at(asking, smart, "main")
    before = len(smart.requests)
    assert asking.read(found, PATHS) == {}
    assert sum(method == "POST" for method, _ in smart.requests[before:]) <= 2


def test_what_was_read_is_kept_and_is_the_readers_own(smart, resolver, wanting):
    asking = resolver()
    found = found_at(asking, smart, "wanting")
    first = asking.read(found, PATHS)
    before = len(smart.requests)
    first.clear()
    assert asking.read(found, PATHS)
    assert len(smart.requests) == before


def test_readers_at_one_time_fetch_once(smart, resolver, wanting):
    asking = resolver()
    found = found_at(asking, smart, "wanting")
    before = len(smart.requests)
    smart.gate.clear()
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(asking.read, found, PATHS) for _ in range(6)]
        until(lambda: len(smart.requests) > before)
        smart.gate.set()
        assert all(each.result() for each in waiting)
    assert sum("info/refs" in path for _, path in smart.requests[before:]) <= 2


def test_links_folders_and_large_files_are_not_read(smart, resolver, known):
    repo = known.root / "o/r"
    add_commit(repo, {"binder/resources.yaml": "x" * (reading.LARGEST + 1), ".devcontainer.json": "{}"}, branch="odd")
    link = git(repo, "hash-object", "-w", "--stdin", given=b"../../etc/passwd")
    index = {"GIT_INDEX_FILE": str(known.root / "index")}
    git(repo, "read-tree", "refs/heads/odd", **index)
    git(repo, "update-index", "--add", "--cacheinfo", f"120000,{link},link", **index)
    commit = git(repo, "commit-tree", git(repo, "write-tree", **index), "-m", "x")
    git(repo, "update-ref", "refs/heads/odd", commit)
    asking = resolver()
    read = asking.read(
        found_at(asking, smart, "odd"), ["binder", "link", "binder/resources.yaml", ".devcontainer.json"]
    )
    assert read == {".devcontainer.json": b"{}"}


def test_a_server_that_leaves_nothing_out_is_read_too(known, resolver, wanting):
    git(known.root / "o/r", "config", "uploadpack.allowFilter", "false")
    with GitServer(known.root) as whole:
        asking = resolver()
        assert set(asking.read(found_at(asking, whole, "wanting"), PATHS)) == {
            "binder/resources.yaml",
            ".devcontainer.json",
        }


def test_what_cannot_be_read_is_said_and_tried_again(smart, resolver, wanting):
    asking = resolver()
    found = found_at(asking, smart, "wanting")
    smart.deny = 503
    with pytest.raises(errors.HostUnavailable):
        asking.read(found, PATHS)
    smart.deny = 0
    assert asking.read(found, PATHS)


def test_a_served_broker_reads_where_it_may_and_nowhere_else(smart, resolver, wanting):
    found = found_at(resolver(), smart, "wanting")
    served = {"public_url": "https://hub.example", "session_domain": "s.example"}
    assert resolver(**served, allowed=(ipaddress.ip_network("127.0.0.1/32"),)).read(found, PATHS)
    before = len(smart.requests)
    with pytest.raises(errors.NotAllowed):
        resolver(**served).read(found, PATHS)
    assert len(smart.requests) == before


def listing(server, *, unpack: bool = False, **changes) -> repos.Resolved:
    body = b"required: {cpu: 2}\n"
    row = {"url": f"{server.url}/o/r/file", "path": "binder/resources.yaml", "size": len(body), **changes}
    spec = repos.RepoSpec(provider="gh", repo="o/r")
    found = repos.Resolved(
        spec=spec,
        commit="7.v1",
        repo_url="https://data.example/7",
        web_url="",
        slug="x",
        ref="",
        path="",
        spec_string="",
    )
    other = {"url": f"{server.url}/never", "path": "data.csv", "size": 5}
    return replace(found, content={"kind": "files", "files": [row, other], "unpack": unpack, "key": "k"})


@pytest.fixture
def data(known):
    (known.root / "o/r/file").write_bytes(b"required: {cpu: 2}\n")
    with GitServer(known.root, smart=False) as server:
        yield server


@pytest.mark.parametrize("digest", [{}, {"sha256": hashlib.sha256(b"required: {cpu: 2}\n").hexdigest()}])
def test_of_listed_files_only_those_asked_for_are_downloaded(data, resolver, digest):
    read = resolver().read(listing(data, **digest), PATHS)
    assert read == {"binder/resources.yaml": b"required: {cpu: 2}\n"}
    assert [path for _, path in data.requests] == ["/o/r/file"]


def test_a_listed_file_that_is_another_or_gone_is_not_taken(data, resolver):
    with pytest.raises(errors.HostUnavailable, match="not the file"):
        resolver().read(listing(data, md5="0" * 32), PATHS)
    with pytest.raises(errors.HostUnavailable, match="no longer"):
        resolver().read(listing(data, url=f"{data.url}/gone"), PATHS)


def test_large_files_archives_and_images_are_not_opened(data, resolver):
    assert resolver().read(listing(data, size=reading.LARGEST + 1), PATHS) == {}
    assert resolver().read(listing(data, unpack=True), PATHS) == {}
    image = replace(listing(data), content={"kind": "image", "image": "x@sha256:0"})
    assert resolver().read(image, PATHS) == {}
    assert data.requests == []
