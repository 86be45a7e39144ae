"""`gh`: by the API while it answers, by git while it does not."""

from __future__ import annotations

import pytest

from broker import repos
from broker.repos import errors

NOWHERE = "0123456789abcdef0123456789abcdef01234567"


def parse(text: str, ref: str | None = None) -> repos.RepoSpec:
    return repos.RepoSpec.parse(text, ref=ref)


@pytest.mark.parametrize(
    ("ref", "commit"),
    [("HEAD", "main"), ("main", "main"), ("feature/x", "nested"), ("v1.0", "annotated"), ("refs/pull/7/head", "pull")],
)
@pytest.mark.parametrize("api", ["up", "limited", "down"])
def test_a_reference_is_found_whether_or_not_the_api_answers(github, resolver, known, ref, commit, api):
    github.quota = 0 if api == "limited" else 60
    github.api_status = 503 if api == "down" else 0
    found = resolver(github).resolve(parse("o/r", ref))
    assert found.commit == getattr(known, commit)
    assert found.via == ("GitHub API" if api == "up" else "git ls-remote")
    assert found.web_url == f"{github.url}/o/r/tree/{found.commit}"
    assert (found.repo_url, found.slug, found.spec_string) == (f"{github.url}/o/r", "o-r", f"gh/o/r/{found.commit}")


@pytest.mark.parametrize("api", ["up", "down"])
@pytest.mark.parametrize("which", ["main", "unnamed"])
def test_a_commit_is_known_to_exist_before_anything_is_bought(github, resolver, known, api, which):
    github.api_status = 503 if api == "down" else 0
    commit = getattr(known, which)
    assert resolver(github).resolve(parse("o/r", commit)).commit == commit
    with pytest.raises(errors.RefNotFound):
        resolver(github).resolve(parse("o/r", NOWHERE))


def test_a_shortened_commit_is_completed_by_the_api(github, resolver, known):
    assert resolver(github).resolve(parse("o/r", known.unnamed[:9])).commit == known.unnamed


def test_a_shortened_commit_waits_for_the_api(github, resolver, known, clock):
    github.quota, github.reset = 0, int(clock.now + 600)
    with pytest.raises(errors.RateLimited, match="10 minutes"):
        resolver(github).resolve(parse("o/r", known.unnamed[:9]))


@pytest.mark.parametrize(
    ("address", "ref", "path"),
    [
        ("tree/feature/x/notebooks", "feature/x", "notebooks"),
        ("blob/main/README.md", "main", "README.md"),
        ("tree/releases/2/docs/x", "releases/2", "docs/x"),
        ("tree/a/main/x", "a/main", "x"),
        ("tree/main/2/x", "main/2", "x"),
        ("tree/master/x", "master", "x"),
    ],
)
@pytest.mark.parametrize("by", ["git", "api"])
def test_the_branch_in_a_pasted_address_is_the_longest_that_exists(github, resolver, address, ref, path, by):
    options = {}
    if by == "api":  # a private repository: git may not see it, the token may
        github.private.add("o/r")
        options = {"gh": {"token": github.token}}
    found = resolver(github, **options).resolve(parse(f"https://github.com/o/r/{address}"))
    assert (found.ref, found.path) == (ref, path)


def test_a_pasted_address_may_name_a_reference_in_full(github, resolver, known):
    found = resolver(github).resolve(parse("https://github.com/o/r/blob/refs/heads/feature/x/notebooks/a.ipynb"))
    assert (found.commit, found.ref, found.path) == (known.nested, "refs/heads/feature/x", "notebooks/a.ipynb")


def test_a_pasted_address_costs_no_quota(github, resolver):
    resolver(github).resolve(parse("https://github.com/o/r/blob/feature/x/notebooks/a.ipynb"))
    assert github.quota == 60


def test_a_pasted_address_with_a_shortened_commit(github, resolver, known):
    found = resolver(github).resolve(parse(f"https://github.com/o/r/tree/{known.main[:8]}/docs"))
    assert (found.commit, found.path) == (known.main, "docs")


def test_a_pasted_address_of_no_branch_is_refused(github, resolver):
    with pytest.raises(errors.RefNotFound):
        resolver(github).resolve(parse("https://github.com/o/r/tree/nothing/x"))


def test_an_unchanged_answer_costs_no_quota(github, resolver, clock):
    asking = resolver(github)
    first = asking.resolve(parse("o/r"))
    clock.now += 60
    again = asking.resolve(parse("o/r"))
    assert (again.commit, github.asked, github.quota) == (first.commit, 2, 59)
    assert asking.api_remaining == 59


def test_a_repository_that_is_not_there_is_not_asked_for_again_for_five_minutes(github, resolver, clock):
    asking = resolver(github)
    for _ in range(3):
        with pytest.raises(errors.NotFound, match="o/nothing"):
            asking.resolve(parse("o/nothing"))
        clock.now += 90
    assert github.asked == 1
    clock.now += 90
    with pytest.raises(errors.NotFound):
        asking.resolve(parse("o/nothing"))
    assert github.asked == 2


def test_a_branch_that_is_not_there_is_asked_for_again(github, resolver):
    asking = resolver(github)
    for _ in range(2):
        with pytest.raises(errors.RefNotFound, match="nothing"):
            asking.resolve(parse("o/r", "nothing"))
    assert github.asked == 2


def test_while_the_limit_lasts_the_api_is_left_in_peace(github, resolver, clock, known):
    github.quota, github.reset = 0, int(clock.now + 600)
    asking = resolver(github)
    asking.resolve(parse("o/r"))
    asking.resolve(parse("o/r", "v1.0"))
    assert github.asked == 1
    clock.now += 601
    github.quota = 60
    assert asking.resolve(parse("o/r")).via == "GitHub API"


def test_a_request_to_come_back_later_is_heeded(github, resolver, known):
    github.retry_after = 120
    with pytest.raises(errors.RateLimited, match="2 minutes"):
        resolver(github).resolve(parse("o/r", known.main[:8]))


def test_the_limit_is_said_in_minutes_when_git_is_down_too(github, resolver, clock):
    github.quota, github.reset = 0, int(clock.now + 61)
    with pytest.raises(errors.RateLimited, match="2 minutes"):
        resolver(github, gh={"url": "http://127.0.0.1:9"}).resolve(parse("o/r"))


def test_the_token_opens_what_it_may_and_goes_to_the_api_only(github, resolver, known):
    github.private.add("o/r")
    with pytest.raises(errors.NotFound):
        resolver(github).resolve(parse("o/r"))
    assert resolver(github, gh={"token": github.token}).resolve(parse("o/r")).commit == known.main
    github.api_status = 503
    with pytest.raises(errors.NotFound):
        resolver(github, gh={"token": github.token}).resolve(parse("o/r"))
    told = [path for (_, path), sent in zip(github.requests, github.headers, strict=True) if "Authorization" in sent]
    assert told
    assert all(path.startswith("/api/") for path in told)


def test_a_renamed_repository_is_followed(github, resolver, known):
    github.moved["o/old"] = "o/r"
    assert resolver(github).resolve(parse("o/old")).commit == known.main


def test_a_redirect_away_from_the_api_is_not_followed(github, smart, resolver):
    github.redirects["/api/repos/o/r"] = f"{smart.url}/steal"
    with pytest.raises(errors.HostUnavailable):
        resolver(github, gh={"token": "secret", "url": "http://127.0.0.1:9"}).resolve(parse("o/r"))
    assert smart.requests == []


def test_odd_letters_in_a_branch_reach_the_api_whole(github, resolver, known):
    from tests.doubles.git_server import set_ref

    set_ref(known.root / "o/r", "refs/heads/50%25-#é+x", known.first)
    assert resolver(github).resolve(parse("o/r", "50%25-#é+x")).commit == known.first
