"""`hydroshare`: resources, which change without leaving versions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.data_hosts import HydroShareDouble, md5

ID = "8f7c2f0341ef4180b0dbe97f59130756"


@pytest.fixture
def hydroshare() -> Iterator[HydroShareDouble]:
    with HydroShareDouble() as double:
        yield double


@pytest.fixture
def resolve(hydroshare, resolver):
    asking = resolver(hosts={"hydroshare": {"api": hydroshare.api, "url": hydroshare.url}}, resolve_cache_seconds=0)
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        f"hydroshare/{ID}",
        f"hydroshare/{ID.upper()}",
        f"https://www.hydroshare.org/resource/{ID}/",
        f"http://hydroshare.org/resource/{ID}/data/contents/a.ipynb",
        f"hydroshare/https%3A%2F%2Fwww.hydroshare.org%2Fresource%2F{ID}",
        f"https://doi.org/10.4211/hs.{ID}",
        f"10.4211/hs.{ID}",
    ],
)
def test_every_way_to_write_a_resource_leads_to_its_files(hydroshare, resolve, text):
    hydroshare.resource(ID, {"a.ipynb": b"{}", "data/b c.csv": b"1,2", "data/d.csv": b"3"})
    found = resolve(text)
    assert found.commit == f"{ID}.v1569427757"  # what BinderHub makes of this day
    assert (found.spec_string, found.repo_url) == (f"hydroshare/{ID}", f"{hydroshare.url}/resource/{ID}")
    assert [row["path"] for row in found.content["files"]] == ["a.ipynb", "data/b c.csv", "data/d.csv"]
    assert found.content["files"][1] == {
        "url": f"{hydroshare.url}/resource/{ID}/data/contents/data/b%20c.csv",
        "path": "data/b c.csv",
        "size": 3,
        "md5": md5(b"1,2"),
    }


def test_that_nothing_is_kept_is_said_and_changed_files_are_other_content(hydroshare, resolve):
    hydroshare.resource(ID, {"a": b"a"})
    first = resolve(f"hydroshare/{ID}")
    assert "no earlier versions" in first.lasting
    hydroshare.resource(ID, {"a": b"b"})
    again = resolve(f"hydroshare/{ID}")
    assert again.commit == first.commit  # its time has a day's grain
    assert again.content["key"] != first.content["key"]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, errors.NotFound, "has no resource"),
        (403, errors.NotFound, "make it public"),
        (500, errors.HostUnavailable, "again"),
    ],
)
def test_what_hydroshare_refuses_is_a_sentence(hydroshare, resolve, status, error, words):
    hydroshare.statuses[f"/hsapi/resource/{ID}/scimeta/elements/"] = (status, {})
    with pytest.raises(error, match=words):
        resolve(f"hydroshare/{ID}")


@pytest.mark.parametrize(
    "told", [b"no", b"{}", b'{"dates": []}', b'{"dates": [{"type": "modified", "start_date": "x"}]}']
)
def test_an_answer_of_another_form_is_the_hosts_fault(hydroshare, resolve, told):
    hydroshare.json[f"/hsapi/resource/{ID}/scimeta/elements/"] = told
    with pytest.raises(errors.HostUnavailable, match="makes no sense"):
        resolve(f"hydroshare/{ID}")
