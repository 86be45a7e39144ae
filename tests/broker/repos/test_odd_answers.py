"""Data hosts that answer almost what they should: whichever part of an answer is another, a person reads a sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker import repos, settings
from tests.doubles import data_hosts

ODD = (None, -1, "", "../x", "http://[", [None], {"x": 1})
HEX = "8f7c2f0341ef4180b0dbe97f59130756"
DIR, REV, SNP = ("d" * 40, "a" * 40, "c" * 40)
FILES = {"a.txt": b"a", "data/b.csv": b"b"}


def zenodo() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.ZenodoDouble()
    site.record("1001", FILES, concept="1000")
    site.record("1002", FILES, native=True)
    return site, {"zenodo": {"api": site.api, "url": site.url}}, "zenodo/1001 zenodo/1002"


def figshare() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.FigshareDouble()
    site.article(9782777, {1: {"a.txt": b"a"}})
    return site, {"figshare": {"api": site.api, "url": site.url}}, "figshare/9782777"


def hydroshare() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.HydroShareDouble()
    site.resource(HEX, FILES)
    return site, {"hydroshare": {"api": site.api, "url": site.url}}, f"hydroshare/{HEX}"


def dataverse() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.DataverseDouble()
    site.dataset("10.7910/DVN/X", {"1.0": {"t.tab": b"t", **FILES}, "2.0": FILES})
    data_hosts.DoiDouble.lead(site, "10.7910/DVN/X", f"{site.url}/citation")
    return site, {"doi": {"url": site.url}}, "dataverse/10.7910/DVN/X dataverse/10.7910/DVN/X@1.0"


def ckan() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.CkanDouble()
    site.package("rain", [{"id": "1", "url": f"{site.url}/a.csv", "hash": "", "last_modified": None}])
    return site, {}, f"{site.url}/dataset/rain"


def osf() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.OsfDouble()
    site.node("ezcuj", FILES)
    return site, {"osf": {"api": site.api, "url": site.url}}, "osf/ezcuj"


def swh() -> tuple[data_hosts.Site, dict[str, Any], str]:
    site = data_hosts.SwhDouble()
    site.directory(DIR, b"")
    site.revision(REV, DIR)
    site.snapshot(SNP, {"HEAD": ("alias", "refs/heads/x"), "refs/heads/x": ("revision", REV)})
    site.origin("https://x.org/r", SNP)
    return site, {"swh": {"api": site.api, "url": site.url}}, "swh/origin/https%3A%2F%2Fx.org%2Fr"


def places(told: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each part of it is."""
    yield at
    if isinstance(told, dict | list):
        for key, value in told.items() if isinstance(told, dict) else enumerate(told):
            yield from places(value, (*at, key))


def changed(told: Any, at: tuple[Any, ...], odd: Any) -> Any:
    if not at:
        return odd
    told = copy.deepcopy(told)
    inner = told
    for key in at[:-1]:
        inner = inner[key]
    if odd is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = odd
    return told


@pytest.mark.parametrize("host", [zenodo, figshare, hydroshare, dataverse, ckan, osf, swh])
def test_whichever_part_of_an_answer_is_odd_it_is_a_record_or_a_sentence(host, home):
    site, hosts, texts = host()
    with site:
        specs = [repos.RepoSpec.parse(text) for text in texts.split()]
        chosen = settings.Settings(home=home, hosts=hosts, resolve_cache_seconds=0)
        asking = repos.Resolver(chosen)
        for spec in specs:
            assert asking.resolve(spec).content["files"], "the even answer"
        tried = 0
        for path, told in list(site.json.items()):
            for odd in variants(site, path, told):
                site.json[path] = odd
                for spec in specs:
                    looked_at(spec, asking)
                    tried += 1
            site.json[path] = told
        assert tried > 100


def variants(site: data_hosts.Site, path: str, told: Any) -> Iterator[Any]:
    """Every part of this answer left out, or exchanged for something odd."""
    seen = told(Asked(path)) if isinstance(told, Callable) else told
    for at in places(seen):
        for odd in (*ODD, ...):
            if at or odd is not ...:
                yield json.dumps(changed(seen, at, odd)).encode()


class Asked:
    """A question without a query."""

    def __init__(self, path: str) -> None:
        self.path = path

    def query(self, name: str) -> str:
        return ""


def looked_at(spec: repos.RepoSpec, asking: repos.Resolver) -> None:
    try:
        found = asking.resolve(spec)
    except repos.RepoError as refusal:
        assert str(refusal).endswith(".")
        return
    assert len(found.commit) <= 128
    assert json.loads(json.dumps(found.content)) == found.content
    assert all(isinstance(row["path"], str) and row["url"].startswith("http") for row in found.content["files"])
    repos.RepoSpec.parse(found.spec_string)
