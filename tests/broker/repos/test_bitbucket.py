"""`bb`: by the API while it answers, by git while it does not."""

from __future__ import annotations

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.bitbucket_double import BitbucketDouble
from tests.doubles.git_server import git, make_repo, set_ref

NOWHERE = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def bitbucket(known):
    with BitbucketDouble(known.root) as double:
        yield double


@pytest.fixture
def look_up(bitbucket, resolver):
    def ask(text: str, ref: str | None = None, **chosen) -> repos.Resolved:
        own = {"api": bitbucket.api, "url": bitbucket.url, **chosen}
        return resolver(hosts={"bb": own}).resolve(repos.RepoSpec.parse(text, ref=ref))

    return ask


@pytest.mark.parametrize(
    ("ref", "commit"),
    [
        ("HEAD", "main"),
        ("main", "main"),
        ("feature/x", "nested"),
        ("both", "pull"),
        ("tags/both", "main"),
        ("refs/heads/both", "pull"),
        ("v1.0", "annotated"),
    ],
)
@pytest.mark.parametrize("api", ["up", "limited", "down"])
def test_a_reference_is_found_whether_or_not_the_api_answers(bitbucket, look_up, known, ref, commit, api):
    bitbucket.limited = api == "limited"
    bitbucket.api_status = 503 if api == "down" else 0
    found = look_up("bb/o/r", ref)
    assert found.commit == getattr(known, commit)
    assert found.via == ("Bitbucket API" if api == "up" else "git ls-remote")
    assert (found.repo_url, found.slug, found.spec_string) == (f"{bitbucket.url}/o/r", "o-r", f"bb/o/r/{found.commit}")
    assert found.web_url == f"{bitbucket.url}/o/r/src/{found.commit}"


@pytest.mark.parametrize("api", ["up", "down"])
@pytest.mark.parametrize("which", ["main", "unnamed"])
def test_a_commit_is_known_to_exist(bitbucket, look_up, known, api, which):
    bitbucket.api_status = 503 if api == "down" else 0
    assert look_up("bb/o/r", getattr(known, which)).commit == getattr(known, which)
    with pytest.raises(errors.RefNotFound):
        look_up("bb/o/r", NOWHERE)


def test_the_api_completes_a_commit_unless_a_branch_is_called_so(look_up, known):
    assert look_up("bb/o/r", known.unnamed[:9]).commit == known.unnamed
    set_ref(known.root / "o/r", "refs/heads/cafe", known.first)
    assert look_up("bb/o/r", "cafe").commit == known.first


@pytest.mark.parametrize("hidden", [False, True])
def test_the_branch_in_a_pasted_address_may_have_slashes(bitbucket, look_up, known, hidden):
    bitbucket.private |= {"o/r"} if hidden else set()
    found = look_up("https://bitbucket.org/o/r/src/feature/x/notebooks/a.ipynb", token=bitbucket.token)
    assert (found.commit, found.ref, found.path) == (known.nested, "feature/x", "notebooks/a.ipynb")


def test_odd_letters_in_a_branch_reach_the_api_whole(look_up, known):
    set_ref(known.root / "o/r", 'refs/heads/50%25-"é+&x', known.first)
    found = look_up("bb/o/r", '50%25-"é+&x')
    assert (found.commit, found.via) == (known.first, "Bitbucket API")


@pytest.mark.parametrize(("text", "error"), [("bb/o/nothing", errors.NotFound), ("bb/o/r/soon", errors.RefNotFound)])
def test_what_is_not_there_is_named(look_up, text, error):
    with pytest.raises(error, match=text.rpartition("/")[2]) as refused:
        look_up(text)
    assert type(refused.value) is error


def test_an_empty_repository_is_told_from_a_missing_one(look_up, known):
    make_repo(known.root, "o/empty", {"x": "x"})
    git(known.root / "o/empty", "update-ref", "-d", "refs/heads/main")
    with pytest.raises(errors.RefNotFound, match="empty"):
        look_up("bb/o/empty")


def test_the_token_goes_to_the_api_and_nowhere_else(bitbucket, look_up, known):
    bitbucket.private.add("o/r")
    with pytest.raises(errors.NotFound, match="not private"):
        look_up("bb/o/r")
    assert look_up("bb/o/r", token=bitbucket.token).commit == known.main
    bitbucket.api_status = 503
    with pytest.raises(errors.NotFound):
        look_up("bb/o/r", token=bitbucket.token)
    told = [
        path for (_, path), sent in zip(bitbucket.requests, bitbucket.headers, strict=True) if "Authorization" in sent
    ]
    assert told
    assert all(path.startswith("/2.0/") for path in told)


def test_a_token_that_is_no_longer_good_does_not_close_public_repositories(bitbucket, look_up, known):
    bitbucket.revoked = True
    found = look_up("bb/o/r", token=bitbucket.token)
    assert (found.commit, found.via) == (known.main, "git ls-remote")


def test_the_limit_is_said_when_git_does_not_help(bitbucket, look_up, known):
    bitbucket.limited = True
    with pytest.raises(errors.RateLimited, match="1 minute"):
        look_up("bb/o/r", known.unnamed[:9])
