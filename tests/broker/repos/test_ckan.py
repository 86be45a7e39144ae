"""`ckan`: data sets of any CKAN, by address."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import CkanDouble


@pytest.fixture
def ckan() -> Iterator[CkanDouble]:
    with CkanDouble() as double:
        yield double


@pytest.fixture
def resolve(resolver):
    asking = resolver(resolve_cache_seconds=0)
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


def rows(ckan, *paths):
    return [{"id": f"id-{at}", "url": ckan.serve(path, path.encode()), "hash": ""} for at, path in enumerate(paths)]


@pytest.mark.parametrize(
    "form",
    [
        "ckan/{quoted}",
        "{address}",
        "{address}/resource/0-1?x=1",
        "{address}#top",
        "ckan/{address}",
        "{site}/dataset/activity/rain",
    ],
)
def test_every_way_to_write_a_data_set_leads_to_its_files(ckan, resolve, form):
    ckan.package("rain", rows(ckan, "/download/a.csv", "/download/b%20c.csv", "/other/a.csv"))
    address = f"{ckan.url}/dataset/rain"
    found = resolve(form.format(address=address, quoted=quote(address, safe=""), site=ckan.url))
    assert (found.commit, found.web_url) == ("rain.v1709068554", address)
    assert found.spec_string == f"ckan/{quote(address, safe='')}"
    assert [row["path"] for row in found.content["files"]] == ["a.csv", "b c.csv", "a-2.csv"]
    assert "promises nothing" in found.lasting


@pytest.mark.parametrize("form", ["/history/0-9", "?activity_id=0-9", "/history/0-9?activity_id=0-8"])
def test_an_earlier_state_is_what_its_activity_says(ckan, resolve, form):
    ckan.package("rain", rows(ckan, "/old.csv"), activity="0-9", modified="2020-01-01T00:00:00")
    found = resolve(f"{ckan.url}/dataset/rain{form}")
    assert (found.commit, found.content["files"][0]["path"]) == ("rain.v1577836800", "old.csv")
    assert found.web_url.endswith("/dataset/rain/history/0-9")


def test_a_change_of_any_file_is_other_content(ckan, resolve):
    ckan.package("rain", rows(ckan, "/a.csv"))
    first = resolve(f"{ckan.url}/dataset/rain").content["key"]
    ckan.package("rain", [row | {"last_modified": "2025-01-01"} for row in rows(ckan, "/a.csv")])
    assert resolve(f"{ckan.url}/dataset/rain").content["key"] != first


def test_what_is_not_on_the_web_is_left_out_and_said(ckan, resolve):
    ckan.package("rain", [*rows(ckan, "/a.csv"), {"id": "1", "url": "ftp://x.org/b"}, {"id": "2", "url": ""}])
    assert resolve(f"{ckan.url}/dataset/rain").note == "2 resources are not on the web and left out."


def test_a_resource_without_a_name_is_called_by_its_id(ckan, resolve):
    ckan.package("rain", [{"id": "0-1", "url": f"{ckan.url}/"}])
    assert resolve(f"{ckan.url}/dataset/rain").content["files"][0]["path"] == "0-1"


def test_no_such_data_set_and_no_public_one_are_sentences(ckan, resolve):
    with pytest.raises(errors.NotFound, match="has no data set rain"):
        resolve(f"{ckan.url}/dataset/rain")
    ckan.statuses["/api/3/action/package_show"] = (403, {})
    with pytest.raises(errors.NotFound, match="owner to make it public"):
        resolve(f"{ckan.url}/dataset/rain")


@pytest.mark.parametrize("told", [b"<html>", b"[]", b"{}", b'{"success": true, "result": {"metadata_modified": "x"}}'])
def test_a_page_that_is_no_ckans_is_a_sentence(ckan, resolve, told):
    ckan.json["/api/3/action/package_show?id=rain"] = told
    with pytest.raises(errors.HostUnavailable, match="makes no sense"):
        resolve(f"{ckan.url}/dataset/rain")


@pytest.mark.parametrize(
    "text", ["https://git.example.org/dataset/x", "https://x.org/a/dataset/y.git", "https://gitlab.com/dataset/x"]
)
def test_a_repository_of_somebody_called_dataset_is_no_data_set(text):
    assert repos.RepoSpec.parse(text).provider != "ckan"


def test_a_served_broker_looks_into_no_private_network(ckan, resolver):
    ckan.package("rain", rows(ckan, "/a.csv"))
    served = {"public_url": "https://hub.example", "session_domain": "sessions.example"}
    spec = repos.RepoSpec.parse(f"{ckan.url}/dataset/rain")
    with pytest.raises(errors.NotAllowed):
        resolver(**served).resolve(spec)
    assert resolver(hosts={"ckan": {"url": ckan.url}}, **served).resolve(spec).commit  # the operator's own
