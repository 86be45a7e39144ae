"""Twenty malformed references and twenty malformed repositories of each host that has git: each a sentence to act on."""

from __future__ import annotations

import pytest

from broker import repos
from tests.broker.repos.malformed import BAD_REFS, refused, refused_to_parse
from tests.doubles.bitbucket_double import BitbucketDouble
from tests.doubles.gist_double import GistDouble
from tests.doubles.git_server import make_repo
from tests.doubles.gitlab_double import GitLabDouble

GIST = "8a658f7f63b13768d1e75fa2464f5092"
NOWHERE = "0123456789abcdef0123456789abcdef01234567"
GOOD = {
    "gh": "gh/o/r",
    "gl": "gl/g%2Fp",
    "bb": "bb/w/r",
    "git": "git/https%3A%2F%2Fexample.org%2Fa%2Fb",
    "gist": f"gist/ada/{GIST}",
}
LONG = "o" * 300

BAD = {
    "gh": [
        *("gh/", "gh//r", "gh/-o/r", "gh/_o/r", "gh/o/..", "gh/../r", "gh/./r", "gh/o/.git", "gh/o%2Fr/main", "gh/o/r%2Fs/main"),
        *("gh/%00/r", "gh/ö/r", "gh/o/r%20s", "gh/o/r%ff", f"gh/{LONG}/r", f"gh/o/{LONG}", "gh/o@x/r", "gh/o/r:1"),
        *("https://github.com/o", "https://github.com/", "https://user:secret@github.com/o/r", "https://github.com:port/o/r"),
        *("https://github.com/o/r/tree/a..b", "https://github.com/o/r/releases/tag/a..b", "https://github.com/o/%2e%2e/r"),
    ],
    "gl": [
        *("gl/", "gl/%2F/main", "gl/g%2F/main", "gl/%2Fp/main", "gl/g%2F%2Fp/main", "gl/g%2F..%2Fp/main"),
        "gl/.%2Fp/main",
        *("gl/g%2Fp%20q/main", "gl/-g%2Fp/main", "gl/g%2Fp.atom/main", "gl/g%2Fp%ff/main", "gl/g%2Fp%00/main", "gl/g%2Fp#/x"),
        *(f"gl/{LONG}%2Fp/main", f"gl/{'g%2F' * 30}p/main", "gl/ö%2Fp/main", "gl/g%2Fp%3Fx/main", "gl/g@x%2Fp/main"),
        *("https://gitlab.com/", "https://gitlab.com/g", "https://gitlab.com/explore/projects", "https://gitlab.com/-/tree/main"),
        *("https://u:secret@gitlab.com/g/p", "https://gitlab.com/g/p/-/tree/a..b", "https://gitlab.com/g/p/-/commit/-x"),
    ],
    "bb": [
        *("bb/", "bb//r", "bb/-w/r", "bb/w/-r", "bb/w/..", "bb/../r", "bb/./r", "bb/w/.git", "bb/w%2Fr/main", "bb/w/r%2Fs/main"),
        *("bb/%00/r", "bb/ö/r", "bb/w/r%20s", "bb/w/r%ff", f"bb/{LONG}/r", f"bb/w/{LONG}", "bb/w@x/r", "bb/w/r:1"),
        *("https://bitbucket.org/w", "https://bitbucket.org/", "https://u:secret@bitbucket.org/w/r"),
        *("https://bitbucket.org/w/r/src/a..b", "https://bitbucket.org/w/r/branch/-x", "https://bitbucket.org/w/r/src/x/y?at=a..b"),
    ],
    "git": [
        *("git/", "git//main", "git/https%3A%2F%2F/main", "git/https%3A%2F%2Fexample.org/main", "git/https%3A//example.org/main"),
        *("git/ftp%3A%2F%2Fx.org%2Fa/main", "git/javascript%3A%2F%2Fx%2Fa/main", "git/ext%3A%3Ash%20-c%20x/main"),
        "git/a%20b/main",
        *("git/%2Fetc%2Fpasswd/main", "git/-oProxyCommand%3Dx/main", "git/https%3A%2F%2Fu%3Asecret%40x.org%2Fa/main"),
        *("git/https%3A%2F%2Fx.org%3A99999999%2Fa/main", "git/https%3A%2F%2Fx.org%3Aport%2Fa/main", "git/%ff/main"),
        *("git/https%3A%2F%2Fx.org%2F..%2Fa/main", "git/https%3A%2F%2F%5B%3A%3A1%2Fa/main", "git/https%3A%2F%2Fⓔ.org%2Fa/main"),
        *("git/ssh%3A%2F%2F-oProxyCommand%3Dx%40h%2Fa/main", "git/https%3A%2F%2Fx.org%2F%00/main", "git/..%2F..%2Fx/main"),
        *("git/https%3A%2F%2F-x%2Fa/main", "git/https%3A%2F%2Fx.org%2F-a/main", "git/ssh%3A%2F%2Fgit%3Asecret%40x.org%2Fa/main"),
        *("https://", "https://example.org", "https:///a/b", "https://example.org:port/a", "https://exa mple.org/a"),
    ],
    "gist": [
        *("gist/", "gist/ada/xyz", "gist/ada/0x12", "gist/ada/..", "gist/../" + GIST, "gist/-ada/" + GIST, "gist//" + GIST),
        *(f"gist/ada/{GIST}x", f"gist/ada/{GIST * 2}", "gist/ada/%00", "gist/ada/%ff", f"gist/a%2Fb/{GIST}", f"gist/ö/{GIST}"),
        *(f"gist/{LONG}/{GIST}", "gist/ada/master", "gist/ada/-" + GIST, f"gist/a%20b/{GIST}", "gist/ada/12345g", "gist/ada/🙂"),
        *("https://gist.github.com/", "https://gist.github.com/ada", "https://gist.github.com/ada/starred"),
        *(f"https://u:secret@gist.github.com/ada/{GIST}", "https://gist.github.com/discover"),
    ],
}  # fmt: skip
NOT_THERE = {
    "gh": ["gh/o/nothing", "gh/nobody/r", "gh/o/r/nothing", f"gh/o/r/{NOWHERE}", "gh/o/r/refs/pull/99/head"],
    "gl": ["gl/g%2Fnothing", "gl/nobody%2Fp", "gl/g%2Fp/nothing", f"gl/g%2Fp/{NOWHERE}", "gl/g/s/t/u/main", "gl/g%2Fp/0123abcd"],
    "bb": ["bb/o/nothing", "bb/nobody/r", "bb/o/r/nothing", f"bb/o/r/{NOWHERE}", "bb/o/r/0123abcd", "bb/o/r/tags/nothing"],
    "git": ["git/{}%2Fo%2Fnothing", "git/{}%2Fo%2Fr/nothing", f"git/{{}}%2Fo%2Fr/{NOWHERE}", "git/{}%2Fo%2Fr/0123abcd"],
    "gist": ["gist/ada/" + "0" * 32, f"gist/ada/{GIST}/nothing", f"gist/ada/{GIST}/{NOWHERE}", f"gist/ada/{GIST}/0123abcd"],
}  # fmt: skip


def test_there_are_twenty_of_each_kind():
    assert len(BAD_REFS) >= 20
    assert all(len(set(texts)) >= 20 for texts in BAD.values())


@pytest.mark.parametrize("ref", BAD_REFS, ids=lambda ref: ref[:20])
@pytest.mark.parametrize("prefix", GOOD)
def test_a_malformed_reference_is_refused_with_what_to_do(prefix, ref):
    refused_to_parse(f"{GOOD[prefix]}/{ref}")


@pytest.mark.parametrize(("text"), [text for texts in BAD.values() for text in texts], ids=lambda text: text[:60])
def test_a_malformed_repository_is_refused_with_what_to_do(text):
    refused_to_parse(text)


@pytest.mark.parametrize("served", [False, True])
@pytest.mark.parametrize(("prefix", "text"), [(prefix, text) for prefix, texts in NOT_THERE.items() for text in texts])
def test_what_is_not_there_is_refused_with_what_to_do(hosts, resolver, prefix, text, served):
    options = {"public_url": "https://hub.example", "session_domain": "s.example"} if served and prefix != "git" else {}
    asking = resolver(hosts=hosts.settings, **options)
    refused(lambda: asking.resolve(repos.RepoSpec.parse(text.format(hosts.git))))


@pytest.fixture
def hosts(known, github, smart, tmp_path):
    """All five hosts at once."""
    make_repo(known.root, "g/p.git", {"x": "x"})
    make_repo(tmp_path / "gists", f"ada/{GIST}.git", {"x": "x"})
    with (
        GitLabDouble(known.root) as gitlab,
        BitbucketDouble(known.root) as bitbucket,
        GistDouble(tmp_path / "gists", GIST, owner="ada") as gists,
    ):
        doubles = {"gh": github, "gl": gitlab, "bb": bitbucket, "gist": gists}
        smart.settings = {prefix: {"api": double.api, "url": double.url} for prefix, double in doubles.items()}
        smart.git = smart.url.replace(":", "%3A").replace("/", "%2F")
        yield smart
