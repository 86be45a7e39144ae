"""`swh`: what Software Heritage has archived, down to a directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import SwhDouble

DIR, REV, REL, SNP = ("d" * 40, "a" * 40, "b" * 40, "c" * 40)


@pytest.fixture
def swh() -> Iterator[SwhDouble]:
    with SwhDouble() as double:
        double.directory(DIR, b"bundle")
        double.revision(REV, DIR)
        double.release(REL, REV)
        double.snapshot(SNP, {"HEAD": ("alias", "refs/heads/trunk"), "refs/heads/trunk": ("revision", REV)})
        double.origin("https://github.com/o/r", SNP)
        yield double


@pytest.fixture
def resolve(swh, resolver):
    asking = resolver(hosts={"swh": {"api": swh.api, "url": swh.url}})
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "lasting"),
    [
        (f"swh/swh:1:dir:{DIR}", f"swh:1:dir:{DIR}"),
        (f"swh/swh:1:rev:{REV}", f"swh:1:rev:{REV}"),
        (f"swh:1:rel:{REL}", f"swh:1:rev:{REV}"),
        (f"SWH:1:SNP:{SNP.upper()}", f"swh:1:rev:{REV}"),
        (f"https://archive.softwareheritage.org/swh:1:rev:{REV}/", f"swh:1:rev:{REV}"),
        (
            f"https://archive.softwareheritage.org/swh:1:dir:{DIR};origin=https://github.com/o/r;visit=swh:1:snp:{SNP}/",
            f"swh:1:dir:{DIR}",
        ),
        (f"https://archive.softwareheritage.org/browse/revision/{REV}/?path=x", f"swh:1:rev:{REV}"),
        (
            "https://archive.softwareheritage.org/browse/origin/directory/?origin_url=https://github.com/o/r",
            f"swh:1:rev:{REV}",
        ),
        ("https://archive.softwareheritage.org/browse/origin/https://github.com/o/r/directory/", f"swh:1:rev:{REV}"),
        ("swh/origin/https%3A%2F%2Fgithub.com%2Fo%2Fr", f"swh:1:rev:{REV}"),
        ("swh/origin/https://github.com/o/r", f"swh:1:rev:{REV}"),
    ],
)
def test_every_id_leads_to_a_directory_which_is_computed_from_its_files(swh, resolve, text, lasting):
    found = resolve(text)
    assert (found.commit, found.spec_string) == (f"swh:1:dir:{DIR}", f"swh/{lasting}")
    vault = f"{swh.api}/vault/flat/swh:1:dir:{DIR}/"
    assert found.content["files"] == [{"url": f"{vault}raw/", "path": "bundle.tar.gz", "size": None, "cook": vault}]
    assert (found.content["unpack"], found.lasting) == (True, "")
    assert swh.asked("/vault/") == 0  # the instance asks for that


def test_the_same_directory_is_the_same_content_however_it_was_found(swh, resolve):
    keys = {resolve(text).content["key"] for text in (f"swh:1:dir:{DIR}", f"swh:1:rel:{REL}", f"swh:1:snp:{SNP}")}
    assert len(keys) == 1


def test_a_file_is_opened_in_the_revision_that_it_is_anchored_in():
    spec = repos.RepoSpec.parse(
        f"swh:1:cnt:{DIR};origin=https://x.org/r;anchor=swh:1:rev:{REV};path=/docs/a%20b.ipynb;lines=3"
    )
    assert (spec.repo, spec.path) == (f"swh:1:rev:{REV}", "docs/a b.ipynb")


def test_a_default_branch_beyond_the_first_page_is_asked_for(swh, resolve):
    branches = {f"a{number:03d}": ("revision", "e" * 40) for number in range(10)}
    swh.snapshot(SNP, {**branches, "refs/heads/main": ("release", REL)}, shown=3)
    assert resolve(f"swh:1:snp:{SNP}").commit == f"swh:1:dir:{DIR}"


def test_what_leads_to_no_directory_is_a_sentence(swh, resolve):
    swh.release("e" * 40, "f" * 40, kind="content")
    with pytest.raises(errors.BadSpec, match="leads to a content"):
        resolve(f"swh:1:rel:{'e' * 40}")
    swh.release("1" * 40, "1" * 40, kind="release")
    with pytest.raises(errors.HostUnavailable, match="on and on"):
        resolve(f"swh:1:rel:{'1' * 40}")
    swh.snapshot("2" * 40, {"refs/heads/x": ("revision", REV)})
    with pytest.raises(errors.NotFound, match="no default branch"):
        resolve(f"swh:1:snp:{'2' * 40}")


def test_what_is_not_archived_is_a_sentence(resolve):
    for text in (f"swh:1:dir:{'0' * 40}", f"swh:1:rev:{'0' * 40}", "swh/origin/https%3A%2F%2Fx.org%2Fy"):
        with pytest.raises(errors.NotFound, match="Software Heritage has no"):
            resolve(text)


@pytest.mark.parametrize("told", [b"<html>", b"[]", b"{}", b'{"directory": null}', b'{"directory": "x"}'])
def test_an_answer_of_another_form_is_the_hosts_fault(swh, resolve, told):
    swh.json[f"/api/1/revision/{REV}/"] = told
    with pytest.raises(errors.HostUnavailable, match="makes no sense"):
        resolve(f"swh:1:rev:{REV}")


def test_the_archives_own_limit_is_told(swh, resolve):
    swh.statuses[f"/api/1/revision/{REV}/"] = (429, {"Retry-After": "600", "X-RateLimit-Remaining": "0"})
    with pytest.raises(errors.RateLimited, match="10 minutes"):
        resolve(f"swh:1:rev:{REV}")
