"""`gist`: public ones, at one of their revisions."""

from __future__ import annotations

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.gist_double import GistDouble
from tests.doubles.git_server import add_commit, make_repo

GIST = "8a658f7f63b13768d1e75fa2464f5092"
NOWHERE = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def gists(tmp_path):
    root = tmp_path / "gists"
    first = make_repo(root, f"ada/{GIST}.git", {"a.ipynb": "{}"}, branch="master")
    with GistDouble(root, GIST, owner="ada") as double:
        double.first = first
        double.newest = add_commit(double.repo, {"a.ipynb": "{} "}, branch="master", message="two")
        yield double


@pytest.fixture
def asking(gists, resolver):
    return resolver(hosts={"gist": {"api": gists.api, "url": gists.url}})


def look_up(asking, ref: str = "", text: str = f"gist/ada/{GIST}") -> repos.Resolved:
    return asking.resolve(repos.RepoSpec.parse(f"{text}/{ref}" if ref else text))


@pytest.mark.parametrize("ref", ["", "HEAD", "master", "main"])
def test_without_a_revision_the_newest_opens(gists, asking, ref):
    found = look_up(asking, ref)
    assert (found.commit, found.via, found.note) == (gists.newest, "GitHub API", "")
    assert (found.repo_url, found.web_url) == (f"{gists.url}/ada/{GIST}.git", f"{gists.url}/ada/{GIST}/{found.commit}")
    assert (found.spec_string, found.slug) == (f"gist/ada/{GIST}/{gists.newest}", f"gist-{GIST}")


def test_a_revision_in_its_history_opens_and_another_does_not(gists, asking):
    assert look_up(asking, gists.first).commit == gists.first
    assert look_up(asking, gists.first[:10]).commit == gists.first
    for ref in (NOWHERE, "dev", "v1"):
        with pytest.raises(errors.RefNotFound, match=ref):
            look_up(asking, ref)


def test_a_revision_older_than_the_list_is_asked_for_by_itself(gists, asking):
    gists.listed = 1
    assert look_up(asking, gists.first).commit == gists.first


def test_a_secret_gist_is_not_launched(gists, asking):
    gists.public = False
    with pytest.raises(errors.NotAllowed, match="secret"):
        look_up(asking)


def test_the_owner_is_who_the_api_says_whatever_the_link_says(gists, asking):
    assert look_up(asking, text=f"https://gist.github.com/{GIST}").spec_string == f"gist/ada/{GIST}/{gists.newest}"
    assert look_up(asking, text=f"gist/eve/{GIST}").spec.repo == f"ada/{GIST}"


def test_a_gist_that_is_not_there_is_not_found(asking):
    with pytest.raises(errors.NotFound, match="no gist"):
        look_up(asking, text="gist/ada/" + "0" * 32)


def test_an_unchanged_answer_costs_no_quota(gists, asking, clock):
    look_up(asking)
    clock.now += 60
    look_up(asking)
    assert (gists.asked, gists.quota) == (2, 59)


@pytest.mark.parametrize("trouble", [{"api_status": 503}, {"quota": 0}])
def test_while_the_api_is_silent_git_opens_what_was_seen_to_be_public(gists, asking, clock, trouble):
    look_up(asking)
    clock.now += 60
    for name, value in trouble.items():
        setattr(gists, name, value)
    newer = add_commit(gists.repo, {"a.ipynb": "{}  "}, branch="master", message="three")
    found = look_up(asking)
    assert (found.commit, found.via) == (newer, "git ls-remote")
    assert look_up(asking, gists.first).commit == gists.first


def test_while_the_api_is_silent_nothing_else_is_opened_as_it_may_be_secret(gists, asking):
    gists.api_status = 503
    with pytest.raises(errors.HostUnavailable):
        look_up(asking)
    gists.api_status, gists.quota = 0, 0
    with pytest.raises(errors.RateLimited):
        look_up(asking)


def test_what_was_seen_to_be_secret_stays_shut_while_the_api_is_silent(gists, asking, clock):
    gists.public = False
    with pytest.raises(errors.NotAllowed):
        look_up(asking)
    gists.api_status = 503
    with pytest.raises(errors.NotAllowed):
        look_up(asking)


def test_the_api_is_githubs_where_nobody_says_otherwise(gists, resolver):
    chosen = {"gh": {"api": gists.api, "token": "theirs"}, "gist": {"url": gists.url}}
    assert look_up(resolver(hosts=chosen)).commit == gists.newest
    assert [sent.get("Authorization") for sent in gists.headers] == ["Bearer theirs"]
