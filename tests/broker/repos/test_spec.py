"""What people type and paste, and what it means."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import repos
from broker.repos import errors

SHA = "0123456789abcdef0123456789abcdef01234567"
GIST = "8a658f7f63b13768d1e75fa2464f5092"


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
        ("https://gitlab.com/g/s/p/-/tree/main", "gl/g%2Fs%2Fp/main"),
        ("https://gitlab.com/g/p/-/tags/v1", "gl/g%2Fp/tags%2Fv1"),
        ("git/https%3A//github.com/o/r/feature/x", "git/https%3A%2F%2Fgithub.com%2Fo%2Fr/feature%2Fx"),
        (
            "https://git.example/g/p/-/merge_requests/3",
            "git/https%3A%2F%2Fgit.example%2Fg%2Fp%2F-%2Fmerge_requests%2F3/HEAD",
        ),
        ("https://ghe.example/o/r/tree/main", "git/https%3A%2F%2Fghe.example%2Fo%2Fr/main"),
        ("https://codeberg.org/o/r/releases/tag/v1", "git/https%3A%2F%2Fcodeberg.org%2Fo%2Fr/tags%2Fv1"),
        (
            "https://bb.example/projects/PRJ/repos/name/browse",
            "git/https%3A%2F%2Fbb.example%2Fscm%2Fprj%2Fname.git/HEAD",
        ),
        (
            "https://x.example/ctx/users/ada/repos/n/browse/a.py?at=refs%2Fheads%2Fdev",
            "git/https%3A%2F%2Fx.example%2Fctx%2Fscm%2F~ada%2Fn.git/refs%2Fheads%2Fdev",
        ),
        ("gl/g%2Fp/main", "gl/g%2Fp/main"),
        ("gl/g%2Fs%2Fp/feature%2Fx", "gl/g%2Fs%2Fp/feature%2Fx"),
        ("gl/g%2Fp/feature/x", "gl/g%2Fp/feature%2Fx"),
        ("gl/g%2Fp", "gl/g%2Fp/HEAD"),
        ("gl/g/p", "gl/g%2Fp/HEAD"),
        ("gl/g/p/main", "gl/g%2Fp/main"),
        ("gl/g%2Fp.git/main", "gl/g%2Fp/main"),
        ("https://gitlab.com/g/p", "gl/g%2Fp/HEAD"),
        ("https://gitlab.com/g/p.git", "gl/g%2Fp/HEAD"),
        ("git@gitlab.com:g/s/p.git", "gl/g%2Fs%2Fp/HEAD"),
        ("https://gitlab.com/g/p/tree/main", "gl/g%2Fp/main"),
        (f"https://gitlab.com/g/p/-/commit/{SHA}", f"gl/g%2Fp/{SHA}"),
        ("https://gitlab.com/g/p/-/merge_requests/7", "gl/g%2Fp/refs%2Fmerge-requests%2F7%2Fhead"),
        ("https://gitlab.com/g/p/-/issues/7", "gl/g%2Fp/HEAD"),
        ("bb/w/r/feature/x", "bb/w/r/feature/x"),
        ("bb/w/r", "bb/w/r/HEAD"),
        ("https://bitbucket.org/w/r", "bb/w/r/HEAD"),
        ("git@bitbucket.org:w/r.git", "bb/w/r/HEAD"),
        ("https://bitbucket.org/w/r/src/main/", "bb/w/r/main"),
        ("https://bitbucket.org/w/r/branch/feature/x", "bb/w/r/feature/x"),
        ("https://bitbucket.org/w/r/branch/feature%2Fx", "bb/w/r/feature/x"),
        ("https://bitbucket.org/w/r/commits/branch/dev", "bb/w/r/dev"),
        ("https://bitbucket.org/w/r/commits/tag/v1", "bb/w/r/tags/v1"),
        (f"https://bitbucket.org/w/r/commits/{SHA}", f"bb/w/r/{SHA}"),
        ("https://bitbucket.org/w/r/downloads/", "bb/w/r/HEAD"),
        (f"gist/ada/{GIST}", f"gist/ada/{GIST}/HEAD"),
        (f"gist/ada/{GIST}/master", f"gist/ada/{GIST}/HEAD"),
        (f"gist/ada/{GIST}/{SHA}", f"gist/ada/{GIST}/{SHA}"),
        (f"https://gist.github.com/ada/{GIST}", f"gist/ada/{GIST}/HEAD"),
        (f"https://gist.github.com/{GIST}.git", f"gist/anonymous/{GIST}/HEAD"),
        (f"git@gist.github.com:{GIST}.git", f"gist/anonymous/{GIST}/HEAD"),
        (f"https://gist.github.com/ada/{GIST}/{SHA}", f"gist/ada/{GIST}/{SHA}"),
        (f"https://gist.github.com/ada/{GIST}/revisions", f"gist/ada/{GIST}/HEAD"),
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
        ("https://gitlab.com/g/s/p/-/blob/dev/a/y.ipynb", "dev", "a/y.ipynb", False),
        ("https://gitlab.com/g/p/blob/dev/y.ipynb", "dev", "y.ipynb", False),
        ("https://bitbucket.org/w/r/src/dev/a/y.ipynb", "dev", "a/y.ipynb", False),
        (f"https://bitbucket.org/w/r/src/{SHA}/y.ipynb?at=feature%2Fx", "feature/x", "y.ipynb", True),
        (f"https://nbviewer.org/gist/ada/{GIST}/y.ipynb", "HEAD", "y.ipynb", True),
        (f"https://colab.research.google.com/gist/ada/{GIST}/y.ipynb", "HEAD", "y.ipynb", True),
        (f"https://gist.githubusercontent.com/ada/{GIST}/raw/{SHA}/y.ipynb", "HEAD", "y.ipynb", True),
        (f"https://gist.githubusercontent.com/ada/{GIST}/raw/y.ipynb", "HEAD", "y.ipynb", True),
        ("https://codeberg.org/g/p/raw/branch/dev/y.ipynb", "dev", "y.ipynb", False),
        ("https://ghe.example/o/r/blob/dev/y.ipynb", "dev", "y.ipynb", False),
        ("https://bb.example/projects/P/repos/n/browse/a/y.ipynb?at=dev", "dev", "a/y.ipynb", True),
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


def test_people_are_offered_hosts_in_binderhubs_own_order_and_git_is_shown_an_address_last():
    known = [
        "gh",
        "gist",
        "git",
        "gl",
        "bb",
        "zenodo",
        "figshare",
        "hydroshare",
        "dataverse",
        "ckan",
        "osf",
        "swh",
        "docker",
    ]
    shown = [each["id"] for each in repos.display()]
    assert shown == [each for each in known if each in shown]
    assert {"gh", "gist", "git", "gl", "bb"} <= set(shown)
    assert [each.prefix for each in repos.providers.values() if each.takes_every_address] == ["git"]


def test_the_providers_describe_themselves_as_binderhubs_do():
    shown = {each["id"]: each for each in repos.display()}
    assert all(set(each) - {"detect"} == {"displayName", "id", "spec", "repo", "ref"} for each in shown.values())
    assert all(set(each["repo"]) == {"label", "placeholder", "urlEncode"} for each in shown.values())
    assert shown["gh"]["ref"] == {"enabled": True, "default": "HEAD"}
    assert [prefix for prefix in ("gh", "gist", "git", "gl", "bb") if shown[prefix]["repo"]["urlEncode"]] == [
        "git",
        "gl",
    ]


@pytest.mark.parametrize(
    ("prefix", "typed", "repo"),
    [
        ("gh", "https://github.com/org/repo", "org/repo"),
        ("gh", "http://github.com/org/repo/", "org/repo"),
        ("gh", "org/repo", "org/repo"),
        ("gl", "https://gitlab.com/group/sub/repo/", "group/sub/repo"),
        ("gl", "group/repo/", "group/repo"),
        ("gist", "https://gist.github.com/user/12345", "user/12345"),
        ("gist", "user/12345/", "user/12345"),
        ("bb", "https://bitbucket.org/user/repo", "user/repo"),
    ],
)
def test_pages_of_others_take_the_repository_out_of_what_is_typed_as_with_binderhub(prefix, typed, repo):
    pattern = next(each["detect"]["regex"] for each in repos.display() if each["id"] == prefix)
    assert re.match(pattern.replace("(?<", "(?P<"), typed)["repo"] == repo
