"""`osf`: projects as they are today, registrations as they stay."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import OsfDouble


@pytest.fixture
def osf() -> Iterator[OsfDouble]:
    with OsfDouble() as double:
        yield double


@pytest.fixture
def resolve(osf, resolver):
    asking = resolver(hosts={"osf": {"api": osf.api, "url": osf.url}}, resolve_cache_seconds=0)
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "osf/ezcuj",
        "osf/EZCUJ",
        "https://osf.io/ezcuj/",
        "https://osf.io/ezcuj/files/osfstorage",
        "https://doi.org/10.17605/OSF.IO/EZCUJ",
        "doi:10.17605/osf.io/ezcuj",
    ],
)
def test_every_way_to_write_a_project_leads_to_its_files_in_all_folders(osf, resolve, text):
    osf.node("ezcuj", {"a.txt": b"a", "b.txt": b"b", "c.txt": b"c", "data/d.csv": b"d", "data/deep/e.csv": b"e"})
    found = resolve(text)
    assert {row["path"] for row in found.content["files"]} == {
        "a.txt",
        "b.txt",
        "c.txt",
        "data/d.csv",
        "data/deep/e.csv",
    }
    first = found.content["files"][0]
    assert first["sha256"] == hashlib.sha256(b"a").hexdigest()
    assert first["url"].endswith("/?version=3")
    assert (found.spec_string, found.commit) == ("osf/ezcuj", f"ezcuj.v{found.content['key'][:12]}")
    assert "no versions" in found.lasting


def test_a_registration_stays_as_it_is(osf, resolve):
    osf.node("abcde", {"a.txt": b"a"}, kind="registrations")
    assert resolve("osf/abcde").lasting == ""


def test_a_changed_file_is_another_version(osf, resolve):
    osf.node("ezcuj", {"a.txt": b"a"})
    first = resolve("osf/ezcuj")
    osf.node("ezcuj", {"a.txt": b"b"})
    assert resolve("osf/ezcuj").commit != first.commit


def test_what_is_no_project_is_a_sentence(osf, resolve):
    osf.node("fghij", {}, kind="files")
    with pytest.raises(errors.BadSpec, match="no project"):
        resolve("osf/fghij")
    osf.node("ezcuj", {}, kind="registrations", withdrawn=True)
    with pytest.raises(errors.NotFound, match="withdrawn"):
        resolve("osf/ezcuj")
    osf.node("ezcuk", {})
    with pytest.raises(errors.NotFound, match="no files"):
        resolve("osf/ezcuk")


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, errors.NotFound, "has no project"),
        (401, errors.NotFound, "public"),
        (410, errors.NotFound, "withdrawn"),
        (502, errors.HostUnavailable, "again"),
    ],
)
def test_what_osf_refuses_is_a_sentence(osf, resolve, status, error, words):
    osf.statuses["/v2/guids/ezcuj/"] = (status, {})
    with pytest.raises(error, match=words):
        resolve("osf/ezcuj")


@pytest.mark.parametrize(
    "told", [b"<html>", b"[]", b"{}", b'{"data": {"type": "nodes", "id": "../x", "attributes": {}}}']
)
def test_an_answer_of_another_form_is_the_hosts_fault(osf, resolve, told):
    osf.json["/v2/guids/ezcuj/"] = told
    with pytest.raises((errors.HostUnavailable, errors.BadSpec)):
        resolve("osf/ezcuj")
