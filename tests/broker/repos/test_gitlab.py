"""`gl`: by the API while it answers, by git while it does not."""

from __future__ import annotations

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.git_server import add_commit, make_repo
from tests.doubles.gitlab_double import GitLabDouble

NOWHERE = "0123456789abcdef0123456789abcdef01234567"
PROJECT = "group/sub/project"


@pytest.fixture
def gitlab(known):
    """`o/r` as everywhere, and a project in a group in a group."""
    (known.root / "o/r").rename(known.root / "o/r.git")
    make_repo(known.root, f"{PROJECT}.git", {"README.md": "deep"})
    add_commit(known.root / f"{PROJECT}.git", {"x": "x"}, branch="feature/x")
    with GitLabDouble(known.root) as double:
        yield double


@pytest.fixture
def look_up(gitlab, resolver):
    def ask(text: str, ref: str | None = None, asking: repos.Resolver | None = None, **chosen) -> repos.Resolved:
        return (asking or resolver(**own(gitlab, **chosen))).resolve(repos.RepoSpec.parse(text, ref=ref))

    return ask


def own(gitlab, **chosen):
    return {"hosts": {"gl": {"api": gitlab.api, "url": gitlab.url, **chosen}}}


@pytest.mark.parametrize(
    ("ref", "commit"),
    [("HEAD", "main"), ("main", "main"), ("feature/x", "nested"), ("v1.0", "annotated"), ("releases/2", "main")],
)
@pytest.mark.parametrize("api", ["up", "limited", "down"])
def test_a_reference_is_found_whether_or_not_the_api_answers(gitlab, look_up, known, ref, commit, api):
    gitlab.limited = 60 if api == "limited" else 0
    gitlab.api_status = 503 if api == "down" else 0
    found = look_up("gl/o%2Fr", ref)
    assert found.commit == getattr(known, commit)
    assert found.via == ("GitLab API" if api == "up" else "git ls-remote")
    assert (found.repo_url, found.slug) == (f"{gitlab.url}/o/r.git", "o-r")
    assert found.web_url == f"{gitlab.url}/o/r/-/tree/{found.commit}"
    assert found.spec_string == f"gl/o%2Fr/{found.commit}"


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("gl/group%2Fsub%2Fproject/feature%2Fx", "feature/x"),
        ("gl/group%2Fsub%2Fproject/feature/x", "feature/x"),
        ("gl/group/sub/project/feature/x", "feature/x"),
        ("gl/group/sub/project/main", "main"),
        ("https://gitlab.com/group/sub/project", "HEAD"),
        ("https://gitlab.com/group/sub/project/-/tree/feature/x", "feature/x"),
    ],
)
@pytest.mark.parametrize("api", ["up", "down"])
def test_a_project_in_a_subgroup_is_found_however_it_is_written(gitlab, look_up, text, ref, api):
    gitlab.api_status = 503 if api == "down" else 0
    found = look_up(text)
    assert (found.spec.repo, found.ref, found.spec.divided) == (PROJECT, ref, True)
    assert found.spec_string == f"gl/group%2Fsub%2Fproject/{found.commit}"


def test_a_default_branch_renamed_meanwhile_is_forgiven(look_up, known):
    found = look_up("gl/o/r/master")
    assert (found.commit, found.spec.repo) == (known.main, "o/r")
    assert "master" in found.note


def test_a_file_in_a_branch_with_slashes_is_found_in_a_private_project(gitlab, look_up, known):
    gitlab.private.add("o/r")
    found = look_up("https://gitlab.com/o/r/-/blob/feature/x/notebooks/a.ipynb", token=gitlab.token)
    assert (found.commit, found.ref, found.path) == (known.nested, "feature/x", "notebooks/a.ipynb")


@pytest.mark.parametrize("api", ["up", "down"])
@pytest.mark.parametrize("which", ["main", "unnamed"])
def test_a_commit_is_known_to_exist(gitlab, look_up, known, api, which):
    gitlab.api_status = 503 if api == "down" else 0
    assert look_up("gl/o%2Fr", getattr(known, which)).commit == getattr(known, which)
    with pytest.raises(errors.RefNotFound):
        look_up("gl/o%2Fr", NOWHERE)


def test_the_api_completes_a_commit(look_up, known):
    assert look_up("gl/o%2Fr", known.unnamed[:9]).commit == known.unnamed


def test_an_unchanged_answer_is_revalidated(gitlab, resolver, look_up, clock):
    asking = resolver(**own(gitlab))
    first = look_up("gl/o%2Fr", asking=asking)
    clock.now += 60
    assert look_up("gl/o%2Fr", asking=asking).commit == first.commit
    assert [sent.get("If-None-Match") is not None for sent in gitlab.headers] == [False, True]


def test_a_missing_project_is_remembered_a_missing_branch_is_not(gitlab, resolver, look_up):
    asking = resolver(**own(gitlab))
    for _ in range(2):
        with pytest.raises(errors.NotFound, match="o/nothing"):
            look_up("gl/o%2Fnothing", asking=asking)
    assert gitlab.asked == 1
    for _ in range(2):
        with pytest.raises(errors.RefNotFound, match="“soon”"):
            look_up("gl/o%2Fr/soon", asking=asking)
    assert gitlab.asked == 3


def test_the_token_goes_to_the_api_and_nowhere_else(gitlab, look_up, known):
    gitlab.private.add("o/r")
    with pytest.raises(errors.NotFound, match="not private"):
        look_up("gl/o%2Fr")
    assert look_up("gl/o%2Fr", token=gitlab.token).commit == known.main
    gitlab.api_status = 503
    with pytest.raises(errors.NotFound):
        look_up("gl/o%2Fr", token=gitlab.token)
    told = [path for (_, path), sent in zip(gitlab.requests, gitlab.headers, strict=True) if "Authorization" in sent]
    assert told
    assert all(path.startswith("/api/v4/") for path in told)


def test_a_token_that_is_no_longer_good_does_not_close_public_projects(gitlab, look_up, known):
    gitlab.revoked = True
    found = look_up("gl/o%2Fr", token=gitlab.token)
    assert (found.commit, found.via) == (known.main, "git ls-remote")


def test_the_limit_is_said_in_minutes_when_git_does_not_help(gitlab, look_up, known):
    gitlab.limited = 120
    with pytest.raises(errors.RateLimited, match="2 minutes"):
        look_up("gl/o%2Fr", known.unnamed[:9])


def test_a_gitlab_of_ones_own_needs_its_address_only(gitlab, resolver, known):
    asking = resolver(hosts={"gl": {"url": gitlab.url}})
    found = asking.resolve(repos.RepoSpec.parse("gl/o%2Fr/main"))
    assert (found.commit, found.via) == (known.main, "GitLab API")


def test_an_answer_without_a_commit_is_no_answer(gitlab, look_up, known):
    gitlab.api_status = 200  # a page of a proxy, with a body that says nothing
    assert look_up("gl/o%2Fr").via == "git ls-remote"
