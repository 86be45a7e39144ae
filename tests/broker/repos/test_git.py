"""`git`: looked up at real servers of three kinds: today's, one of before 2018, and plain files."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from broker import repos
from broker.repos import errors
from tests.doubles.git_server import GitServer, git, make_repo

NOWHERE = "0123456789abcdef0123456789abcdef01234567"


def spec_of(server: GitServer, ref: str = "HEAD", repo: str = "o/r") -> repos.RepoSpec:
    return repos.RepoSpec.parse(f"{server.url}/{repo}", ref=ref)


@pytest.mark.parametrize(
    ("ref", "commit"),
    [
        ("HEAD", "main"),
        ("main", "main"),
        ("feature/x", "nested"),
        ("both", "pull"),
        ("tags/both", "main"),
        ("refs/tags/both", "main"),
        ("refs/heads/both", "pull"),
        ("v1.0", "annotated"),
        ("releases/2", "main"),
    ],
)
def test_a_name_means_what_git_clone_would_take(server, resolver, known, ref, commit):
    found = resolver().resolve(spec_of(server, ref))
    assert found.commit == getattr(known, commit)
    assert (found.ref, found.repo_url) == (ref, f"{server.url}/o/r")
    assert found.spec_string == f"git/{quote(found.repo_url, safe='')}/{found.commit}"


def test_a_pull_request_is_found_by_its_full_name(smart, resolver, known):
    assert resolver().resolve(spec_of(smart, "refs/pull/7/head")).commit == known.pull


@pytest.mark.parametrize("ref", ["x", "mai", "r", "feature", "nothing", "refs/heads/nothing"])
def test_part_of_a_name_is_no_name(server, resolver, ref):
    with pytest.raises(errors.RefNotFound):
        resolver().resolve(spec_of(server, ref))


@pytest.mark.parametrize("which", ["main", "first", "unnamed"])
def test_a_commit_is_taken_once_the_repository_has_shown_it(server, resolver, known, which):
    commit = getattr(known, which)
    assert resolver().resolve(spec_of(server, commit)).commit == commit


def test_a_commit_in_a_pack_is_found_too(packed, server, resolver):
    assert resolver().resolve(spec_of(server, packed.unnamed)).commit == packed.unnamed


def test_a_commit_that_the_repository_does_not_hold_is_refused(server, resolver):
    with pytest.raises(errors.RefNotFound, match=NOWHERE):
        resolver().resolve(spec_of(server, NOWHERE))


def test_forty_digits_of_a_tag_mean_the_commit_it_points_at(smart, resolver, known):
    assert resolver().resolve(spec_of(smart, known.tag_object)).commit == known.annotated


def test_forty_digits_of_a_file_are_no_commit(server, resolver, known):
    blob = git(known.root / "o/r", "rev-parse", "HEAD:README.md")
    with pytest.raises(errors.RefNotFound):
        resolver().resolve(spec_of(server, blob))


def test_a_shortened_commit_is_refused_with_what_to_do(smart, resolver, known):
    with pytest.raises(errors.RefNotFound, match="all its 40 digits"):
        resolver().resolve(spec_of(smart, known.main[:10]))


@pytest.mark.parametrize(
    ("page", "ref", "path"),
    [
        ("-/tree/feature/x/notebooks/a.ipynb", "feature/x", "notebooks/a.ipynb"),
        ("-/blob/main/README.md", "main", "README.md"),
        ("src/branch/feature/x", "feature/x", ""),
    ],
)
def test_the_branch_in_a_pasted_address_is_the_longest_that_exists(smart, resolver, page, ref, path):
    found = resolver().resolve(repos.RepoSpec.parse(f"{smart.url}/o/r/{page}"))
    assert (found.ref, found.path, found.repo_url) == (ref, path, f"{smart.url}/o/r")
    assert found.spec.divided


def test_a_default_branch_renamed_meanwhile_is_forgiven_and_said(smart, resolver, known):
    found = resolver().resolve(spec_of(smart, "master"))
    assert (found.commit, found.ref) == (known.main, "master")
    assert "master" in found.note


def test_an_empty_repository_is_told_from_a_missing_one(smart, resolver, known):
    make_repo(known.root, "empty", {"x": "x"})
    git(known.root / "empty", "update-ref", "-d", "refs/heads/main")
    with pytest.raises(errors.RefNotFound, match="empty"):
        resolver().resolve(spec_of(smart, repo="empty"))


@pytest.mark.parametrize("ref", ["HEAD", NOWHERE])
def test_a_missing_repository_is_not_found(server, resolver, ref):
    with pytest.raises(errors.NotFound, match="no such repository"):
        resolver().resolve(spec_of(server, ref, repo="o/nothing"))


def test_a_repository_that_wants_a_password_is_private_and_nobody_is_asked(smart, resolver):
    smart.require = ("ada", "secret")
    with pytest.raises(errors.NotFound, match="private"):
        resolver().resolve(spec_of(smart))


@pytest.mark.parametrize(("status", "error"), [(500, "HostUnavailable"), (429, "RateLimited"), (403, "NotFound")])
def test_what_a_host_answers_becomes_a_sentence(smart, resolver, status, error):
    smart.deny = status
    with pytest.raises(getattr(errors, error)):
        resolver().resolve(spec_of(smart))


def test_a_host_that_is_down_is_said_to_be(smart, resolver):
    spec = spec_of(smart)
    smart.close()
    with pytest.raises(errors.HostUnavailable):
        resolver().resolve(spec)


def test_a_host_that_never_answers_costs_no_more_than_the_limit(smart, resolver):
    smart.gate.clear()
    with pytest.raises(errors.HostTimeout):
        resolver(git_seconds=0.4).resolve(spec_of(smart))


@pytest.mark.parametrize("ref", ["unnamed", "first"])
def test_a_repository_larger_than_allowed_is_not_fetched_for_a_commit(known, resolver, ref):
    git(known.root / "o/r", "config", "uploadpack.allowFilter", "false")
    with GitServer(known.root, protocol=0) as old, pytest.raises(errors.TooBig):
        resolver(clone_megabytes=0).resolve(spec_of(old, getattr(known, ref)))


def test_a_folder_is_a_repository_only_for_whoever_says_so(resolver, known):
    spec = repos.RepoSpec.parse(f"file://{known.root}/o/r")
    with pytest.raises(errors.NotAllowed):
        resolver().resolve(spec)
    assert resolver(allow_file=True).resolve(spec).commit == known.main


def test_the_configuration_of_whoever_runs_the_broker_changes_nothing(smart, resolver, known, tmp_path, monkeypatch):
    (tmp_path / ".gitconfig").write_text('[url "http://127.0.0.1:1/"]\n\tinsteadOf = http://127.0.0.1\n')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / ".gitconfig"))
    assert resolver().resolve(spec_of(smart)).commit == known.main


def test_names_are_short_and_plain(smart, resolver):
    assert resolver().resolve(spec_of(smart)).slug == "o-r"
