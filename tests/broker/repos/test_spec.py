"""What people type and paste, and what it means."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import repos
from broker.repos import errors

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("gh/o/r/main", "gh/o/r/main"),
        ("gh/o/r/feature/with/slash", "gh/o/r/feature/with/slash"),
        ("gh/o/r", "gh/o/r/HEAD"),
        ("gh/o/r/", "gh/o/r/HEAD"),
        ("gh/o/r.git/v1", "gh/o/r/v1"),
        ("gh/o/r/a%23b", "gh/o/r/a%23b"),
        (f"gh/o/r/{SHA.upper()}", f"gh/o/r/{SHA}"),
        ("o/r", "gh/o/r/HEAD"),
        ("  o/my.repo_x\n", "gh/o/my.repo_x/HEAD"),
        ("git/git", "gh/git/git/HEAD"),  # a repository, and a prefix with nothing behind it
        ("https://github.com/o/r", "gh/o/r/HEAD"),
        ("http://github.com/o/r.git", "gh/o/r/HEAD"),
        ("https://www.github.com/o/r/", "gh/o/r/HEAD"),
        ("https://GitHub.com/o/r?tab=readme-ov-file#install", "gh/o/r/HEAD"),
        ("github.com/o/r", "gh/o/r/HEAD"),
        ("https://github.com/o/r/tree/main", "gh/o/r/main"),
        (f"https://github.com/o/r/commit/{SHA}", f"gh/o/r/{SHA}"),
        ("https://github.com/o/r/pull/12", "gh/o/r/refs/pull/12/head"),
        ("https://github.com/o/r/pull/12/files", "gh/o/r/refs/pull/12/head"),
        (f"https://github.com/o/r/pull/12/commits/{SHA}", f"gh/o/r/{SHA}"),
        ("https://github.com/o/r/releases/tag/v1/rc", "gh/o/r/tags/v1/rc"),
        ("https://github.com/o/r/issues/4", "gh/o/r/HEAD"),
        ("git@github.com:o/r.git", "gh/o/r/HEAD"),
        ("ssh://git@github.com/o/r.git", "gh/o/r/HEAD"),
        ("git://github.com/o/r", "gh/o/r/HEAD"),
        ("git/https%3A%2F%2Fexample.org%2Fa%2Fb.git/dev%2Fx", "git/https%3A%2F%2Fexample.org%2Fa%2Fb.git/dev%2Fx"),
        ("git/https%3A%2F%2Fexample.org%2Fa/dev/x", "git/https%3A%2F%2Fexample.org%2Fa/dev%2Fx"),
        ("git/https%3A//example.org/a/b/main", "git/https%3A%2F%2Fexample.org%2Fa%2Fb/main"),
        ("git/https://example.org/a/b.git/dev/x", "git/https%3A%2F%2Fexample.org%2Fa%2Fb.git/dev%2Fx"),
        ("git/git%40example.org%3Aa%2Fb.git/main", "git/ssh%3A%2F%2Fgit%40example.org%2Fa%2Fb.git/main"),
        ("https://example.org:8443/a/b.git", "git/https%3A%2F%2Fexample.org%3A8443%2Fa%2Fb.git/HEAD"),
        ("https://example.org/a%20b/c/", "git/https%3A%2F%2Fexample.org%2Fa%2520b%2Fc/HEAD"),
        ("git@gitlab.example:g/p.git", "git/ssh%3A%2F%2Fgit%40gitlab.example%2Fg%2Fp.git/HEAD"),
        ("ssh://git@example.org:2222/p", "git/ssh%3A%2F%2Fgit%40example.org%3A2222%2Fp/HEAD"),
        ("git://example.org/p", "git/git%3A%2F%2Fexample.org%2Fp/HEAD"),
        ("http://[::1]:8080/p", "git/http%3A%2F%2F%5B%3A%3A1%5D%3A8080%2Fp/HEAD"),
        ("https://gitlab.com/g/s/p/-/tree/main", "git/https%3A%2F%2Fgitlab.com%2Fg%2Fs%2Fp/main"),
        ("https://gitlab.com/g/p/-/tags/v1", "git/https%3A%2F%2Fgitlab.com%2Fg%2Fp/tags%2Fv1"),
        ("https://mybinder.org/v2/gh/o/r/main", "gh/o/r/main"),
        ("https://hub.example/binder/v2/gh/o/r/a/b", "gh/o/r/a/b"),
        ("https://mybinder.org/v2/git/https%3A%2F%2Fx.org%2Fa/main", "git/https%3A%2F%2Fx.org%2Fa/main"),
    ],
)
def test_what_people_paste_becomes_binderhubs_own_string(text, means):
    spec = repos.RepoSpec.parse(text)
    assert str(spec) == means
    assert str(repos.RepoSpec.parse(means)) == means


@pytest.mark.parametrize(
    ("text", "ref", "path", "divided"),
    [
        ("https://github.com/o/r/blob/main/notebooks/a.ipynb", "main", "notebooks/a.ipynb", False),
        ("https://github.com/o/r/blob/main/a%20b%23c.ipynb#L3", "main", "a b#c.ipynb", False),
        (f"https://github.com/o/r/tree/{SHA}/folder/", SHA, "folder", True),
        ("https://github.com/o/r/tree/HEAD/folder", "HEAD", "folder", True),
        ("https://raw.githubusercontent.com/o/r/main/x/y.ipynb", "main", "x/y.ipynb", False),
        ("https://nbviewer.org/github/o/r/blob/main/y.ipynb", "main", "y.ipynb", False),
        ("https://colab.research.google.com/github/o/r/blob/main/y.ipynb", "main", "y.ipynb", False),
        ("https://gitlab.com/g/p/-/blob/dev/y.ipynb?ref_type=heads", "dev", "y.ipynb", False),
        ("https://codeberg.org/g/p/src/branch/dev/y.ipynb", "dev", "y.ipynb", False),
        (f"https://codeberg.org/g/p/src/commit/{SHA}/y.ipynb", SHA, "y.ipynb", True),
        ("https://mybinder.org/v2/gh/o/r/main?labpath=a%2Fb.ipynb", "main", "a/b.ipynb", True),
        ("https://mybinder.org/v2/gh/o/r/main?filepath=b.ipynb&urlpath=lab", "main", "b.ipynb", True),
        ("https://mybinder.org/v2/gh/o/r/main?urlpath=lab%2Ftree%2Fb.ipynb", "main", "b.ipynb", True),
    ],
)
def test_the_file_that_is_looked_at_is_the_file_that_opens(text, ref, path, divided):
    spec = repos.RepoSpec.parse(text)
    assert (spec.ref, spec.path, spec.divided) == (ref, path, divided)


@pytest.mark.parametrize(
    ("query", "urlpath"),
    [
        ("urlpath=rstudio", "rstudio"),
        ("urlpath=/shiny/bus/", "shiny/bus/"),
        ("urlpath=git-pull%3Frepo%3Dhttps%253A%252F%252Fx.org", "git-pull?repo=https%3A%2F%2Fx.org"),
        ("urlpath=https://evil.example/x", ""),
        ("urlpath=//evil.example/x", "evil.example/x"),
        ("urlpath=%5C%5Cevil.example", "evil.example"),
        ("", ""),
    ],
)
def test_what_a_launch_link_opens_besides_files_is_kept_and_leads_nowhere_else(query, urlpath):
    spec = repos.RepoSpec.parse(f"https://mybinder.org/v2/gh/o/r/main?{query}")
    assert (spec.urlpath, spec.path) == (urlpath, "")


def test_a_reference_given_beside_the_address_wins():
    assert str(repos.RepoSpec.parse("https://github.com/o/r/tree/main", ref="dev")) == "gh/o/r/dev"


def test_a_reference_given_beside_an_address_decides_where_the_path_begins():
    spec = repos.RepoSpec.parse("https://github.com/o/r/tree/feature/x/notebooks", ref="feature/x")
    assert (spec.ref, spec.path, spec.divided) == ("feature/x", "notebooks", True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", errors.BadSpec),
        ("numpy", errors.BadSpec),
        ("o/r/main", errors.BadSpec),
        ("gh/", errors.BadSpec),
        ("git/", errors.BadSpec),
        ("gh/../r", errors.BadSpec),
        ("gh/o/..", errors.BadSpec),
        ("gh/-o/r", errors.BadSpec),
        ("gh/o/r/--upload-pack=touch", errors.BadSpec),
        ("gh/o/r/a..b", errors.BadSpec),
        ("gh/o/r/main~1", errors.BadSpec),
        ("gh/o/r/a%0Ab", errors.BadSpec),
        ("gh/o/r/a%20b", errors.BadSpec),
        ("gh/o/r/%ff", errors.BadSpec),
        ("o/r\nx", errors.BadSpec),
        ("o r", errors.BadSpec),
        ("--upload-pack=x", errors.BadSpec),
        ("x" * 2001, errors.BadSpec),
        ("https://github.com/o", errors.BadSpec),
        ("https://github.com", errors.BadSpec),
        ("https://example.org", errors.BadSpec),
        ("https://", errors.BadSpec),
        ("https://exa mple.org/x", errors.BadSpec),
        ("https://example.org:port/x", errors.BadSpec),
        ("https://example.org/a/../b", errors.BadSpec),
        ("https://example.org/a/%2e%2e/b", errors.BadSpec),
        ("https://-oProxyCommand=x/a", errors.BadSpec),
        ("ssh://-oProxyCommand=x@host/a", errors.BadSpec),
        ("https://ⓔxample.org/a", errors.BadSpec),
        ("git/https%3A%2F%2Fexample.org%2Fa/-x", errors.BadSpec),
        ("https://user@example.org/a", errors.NotAllowed),
        ("https://user:secret@example.org/a", errors.NotAllowed),
        ("https://user:secret@github.com/o/r", errors.NotAllowed),
        ("ssh://git:secret@example.org/a", errors.NotAllowed),
        ("git/https%3A%2F%2Fu%3Ap%40example.org%2Fa/main", errors.NotAllowed),
        ("ext::sh%20-c%20x", errors.BadSpec),
        ("ftp://example.org/a", errors.NotAllowed),
        ("javascript://example.org/a", errors.NotAllowed),
    ],
)
def test_what_cannot_be_a_repository_is_refused_with_a_sentence(text, error):
    with pytest.raises(error) as refused:
        repos.RepoSpec.parse(text)
    assert re.fullmatch(r"[^\n]+[.…]", str(refused.value))
    assert "secret" not in str(refused.value)


PIECES = st.sampled_from(
    [
        *("gh/", "git/", "o", "r", "/", "https://", "http:", "github.com/", "git@", ":", "%2F", "%", "%00", ".."),
        *("tree/", "blob/", "main", "-", "@", "#", "?", "urlpath=", "/v2/", "-/tree/", "src/branch/", ".git", "[", "]"),
        *("pull/", "7", "file://", "raw.githubusercontent.com/", "x.org", "::1", "&", "=", "~", "+", "é", " "),
        *("\x00", "\u202e", "\ud800"),
    ]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=12).map("".join)))
@example("https://[::1")
@example("https://x.org/[")
@example("http://x.org:99999999/a")
@example("gh/o/r/\ud800")
@example("/v2/gh/")
@example("https://x/v2/gh/o/r?urlpath=%FF")
def test_whatever_is_typed_is_understood_or_refused_and_what_is_understood_says_itself_again(text):
    try:
        spec = repos.RepoSpec.parse(text)
    except repos.RepoError as refusal:
        assert str(refusal)
        return
    again = repos.RepoSpec.parse(str(spec))
    assert (again.provider, again.repo, again.ref) == (spec.provider, spec.repo, spec.ref)
    assert str(again) == str(spec)


REFS = st.from_regex(r"[A-Za-z0-9_.#%+éß][A-Za-z0-9_.#%+/éß-]{0,30}", fullmatch=True)


@given(REFS, st.sampled_from(["gh/o/r", "https://x.org/a/b.git", "git@x.org:a"]))
def test_any_reference_that_git_takes_survives_the_round_trip(ref, repo):
    try:
        spec = repos.RepoSpec.parse(repo, ref=ref)
    except repos.RepoError:
        return
    assert repos.RepoSpec.parse(str(spec)) == spec


def test_the_providers_describe_themselves_as_binderhubs_do():
    shown = repos.display()
    assert [each["id"] for each in shown] == ["gh", "git"]
    assert all(set(each) - {"detect"} == {"displayName", "id", "spec", "repo", "ref"} for each in shown)
    assert shown[0]["ref"] == {"enabled": True, "default": "HEAD"}
    assert [each["repo"]["urlEncode"] for each in shown] == [False, True]
