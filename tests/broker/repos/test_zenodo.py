"""`zenodo`: records by DOI, concept DOIs, other InvenioRDM, and what is not for everybody."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import DoiDouble, ZenodoDouble, md5


@pytest.fixture
def zenodo() -> Iterator[ZenodoDouble]:
    with ZenodoDouble() as double:
        yield double


@pytest.fixture
def doi() -> Iterator[DoiDouble]:
    with DoiDouble() as double:
        yield double


@pytest.fixture
def resolve(zenodo, doi, resolver):
    asking = resolver(hosts={"zenodo": {"api": zenodo.api, "url": zenodo.url}, "doi": {"url": doi.url}})
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "zenodo/10.5281/zenodo.1001",
        "zenodo/10.5281/ZENODO.1001",
        "zenodo/1001",
        "10.5281/zenodo.1001",
        "doi:10.5281/zenodo.1001",
        "https://doi.org/10.5281/zenodo.1001",
        "https://zenodo.org/records/1001",
        "https://zenodo.org/record/1001#.X",
        "https://zenodo.org/records/1001/files/repo.zip?download=1",
        "https://zenodo.org/doi/10.5281/zenodo.1001",
        "https://zenodo.org/badge/DOI/10.5281/zenodo.1001.svg",
        "https://mybinder.org/v2/zenodo/10.5281/zenodo.1001/",
        "zenodo/https%3A%2F%2Fzenodo.org%2Frecords%2F1001",
    ],
)
def test_every_way_to_write_a_record_leads_to_its_files(zenodo, doi, resolve, text):
    zenodo.record("1001", {"repo.zip": b"zip"})
    found = resolve(text)
    assert (found.commit, found.spec_string, found.slug) == ("1001", "zenodo/10.5281/zenodo.1001", "zenodo-1001")
    assert (found.web_url, found.repo_url) == (f"{zenodo.url}/records/1001", "https://doi.org/10.5281/zenodo.1001")
    assert (found.lasting, found.via) == ("", "Zenodo API")
    (file,) = found.content["files"]
    assert file == {
        "url": f"{zenodo.api}/records/1001/files/repo.zip/content",
        "path": "repo.zip",
        "size": 3,
        "md5": md5(b"zip"),
    }
    assert found.content["kind"] == "files"
    assert found.content["unpack"] is True
    assert doi.requests == []  # Zenodo's own DOIs say the number themselves


def test_a_doi_of_all_versions_leads_to_the_newest(zenodo, resolve):
    zenodo.record("1002", {"a.txt": b"a"}, concept="1000")
    found = resolve("10.5281/zenodo.1000")
    assert (found.commit, found.spec_string) == ("1002", "zenodo/10.5281/zenodo.1002")


def test_several_files_are_not_unpacked_and_the_key_is_of_what_they_are(zenodo, resolve):
    zenodo.record("1001", {"a.zip": b"a", "b b.txt": b"b"})
    found = resolve("zenodo/1001").content
    assert found["unpack"] is False
    assert found["files"][1]["url"].endswith("/files/b%20b.txt/content")
    zenodo.record("1002", {"a.zip": b"a", "b b.txt": b"c"})
    assert resolve("zenodo/1002").content["key"] != found["key"]


def test_a_record_of_another_inveniordm_is_found_where_its_doi_leads(doi, resolve):
    with ZenodoDouble() as elsewhere:
        elsewhere.record("ab1cd-2ef34", {"a.txt": b"a"}, native=True)
        doi.lead("10.22002/ab1cd-2ef34", f"{elsewhere.url}/records/ab1cd-2ef34")
        found = resolve("zenodo/10.22002/ab1cd-2ef34")
    assert (found.commit, found.spec_string) == ("ab1cd-2ef34", "zenodo/10.22002/ab1cd-2ef34")
    assert found.content["files"][0]["url"] == f"{elsewhere.api}/records/ab1cd-2ef34/files/a.txt/content"


def test_a_doi_that_leads_elsewhere_is_a_sentence(doi, resolve):
    doi.lead("10.1000/182", "https://example.org/handbook")
    with pytest.raises(errors.BadSpec, match=r"example\.org"):
        resolve("zenodo/10.1000/182")
    with pytest.raises(errors.NotFound, match="no DOI"):
        resolve("zenodo/10.1000/183")


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (404, {}, errors.NotFound, "has no record"),
        (410, {}, errors.NotFound, "withdrawn"),
        (403, {}, errors.NotFound, "owner to make it public"),
        (401, {}, errors.NotFound, "owner to make it public"),
        (429, {"Retry-After": "120"}, errors.RateLimited, "2 minutes"),
        (503, {}, errors.HostUnavailable, "Try again"),
        (418, {}, errors.HostUnavailable, "Try again"),
    ],
)
def test_what_zenodo_refuses_is_a_sentence_that_says_what_to_do(zenodo, resolve, status, headers, error, words):
    zenodo.statuses["/api/records/1001"] = (status, headers)
    with pytest.raises(error, match=words):
        resolve("zenodo/1001")


@pytest.mark.parametrize("told", [b"<html>", b"[]", b'{"id": "../x", "files": []}', b'{"id": 1, "files": [7]}', b"7"])
def test_an_answer_of_another_form_is_the_hosts_fault(zenodo, resolve, told):
    zenodo.json["/api/records/1001"] = told
    with pytest.raises(errors.HostUnavailable, match="makes no sense"):
        resolve("zenodo/1001")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"access_right": "embargoed", "embargo_date": "2030-01-01"}, "embargo until 2030-01-01"),
        ({"access_right": "restricted"}, "restricted"),
        ({}, "no files"),
    ],
)
def test_a_record_without_public_files_says_why(zenodo, resolve, metadata, words):
    zenodo.record("1001", {}, **metadata)
    with pytest.raises(errors.NotFound, match=words):
        resolve("zenodo/1001")


def test_names_that_lead_out_and_records_that_are_too_big_cost_nobody_a_machine(zenodo, resolve):
    zenodo.record("1001", {"../x": b"x"})
    with pytest.raises(errors.NotAllowed, match="leads out"):
        resolve("zenodo/1001")
    zenodo.record("1002", {"x": b"x"})
    zenodo.json["/api/records/1002"]["files"][0]["size"] = 10**12
    with pytest.raises(errors.TooBig):
        resolve("zenodo/1002")


def test_a_served_broker_lists_no_file_on_a_private_network(zenodo, resolver):
    zenodo.record("1001", {"x": b"x"})
    rows = zenodo.json["/api/records/1001"]["files"]
    options = {
        "hosts": {"zenodo": {"api": zenodo.api, "url": zenodo.url}},
        "public_url": "https://hub.example",
    }
    asking = resolver(session_domain="sessions.example", **options)
    assert asking.resolve(repos.RepoSpec.parse("zenodo/1001")).commit == "1001"  # the operator's own host is trusted
    rows[0]["links"]["self"] = "http://169.254.169.254/latest/content"
    numeric = lambda host, port, **_: [(None, None, None, "", (host, port))]  # noqa: E731
    asking = resolver(session_domain="sessions.example", lookup=numeric, **options)
    with pytest.raises(errors.NotAllowed, match="public internet"):
        asking.resolve(repos.RepoSpec.parse("zenodo/1001"))


def test_the_operators_token_goes_to_the_api(zenodo, resolver):
    zenodo.record("1001", {"x": b"x"})
    own = {"api": zenodo.api, "url": zenodo.url, "token": "the-token"}
    found = resolver(hosts={"zenodo": own}).resolve(repos.RepoSpec.parse("zenodo/1001"))
    assert zenodo.requests[-1][2]["Authorization"] == "Bearer the-token"
    assert "the-token" not in repr(found)
