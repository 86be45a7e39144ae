"""Hosts of the operator's own, instead of the public ones."""

from __future__ import annotations

import httpx
import pytest

from broker import repos
from tests.doubles.git_server import make_repo
from tests.doubles.gitlab_double import GitLabDouble

HOMES = {"gh": "https://ghe.example", "gl": "https://campus.example:8443/gitlab", "gist": "https://ghe.example/gist"}


@pytest.mark.parametrize(
    ("text", "means", "path"),
    [
        ("https://ghe.example/o/r/blob/dev/a.ipynb", "gh/o/r/dev", "a.ipynb"),
        ("git@ghe.example:o/r.git", "gh/o/r/HEAD", ""),
        ("https://campus.example:8443/gitlab/g/s/p/-/tree/main", "gl/g%2Fs%2Fp/main", ""),
        ("https://github.com/o/r/tree/dev", "git/https%3A%2F%2Fgithub.com%2Fo%2Fr/dev", ""),
        ("https://gitlab.com/g/p/-/tree/main", "git/https%3A%2F%2Fgitlab.com%2Fg%2Fp/main", ""),
        ("https://campus.example/gitlab/g/p", "git/https%3A%2F%2Fcampus.example%2Fgitlab%2Fg%2Fp/HEAD", ""),
        ("https://bitbucket.org/w/r", "bb/w/r/HEAD", ""),
        ("o/r", "gh/o/r/HEAD", ""),
        ("https://any.example/v2/gl/g%2Fp/main", "gl/g%2Fp/main", ""),
    ],
)
def test_a_pasted_address_belongs_to_the_host_it_names(text, means, path):
    found = repos.RepoSpec.parse(text, homes=HOMES)
    assert (str(found), found.path) == (means, path)


def test_the_resolver_knows_the_operators_hosts(resolver, tmp_path):
    commit = make_repo(tmp_path, "g/s/p.git", {"x": "x"})
    with GitLabDouble(tmp_path) as gitlab:
        asking = resolver(hosts={"gl": {"url": gitlab.url}})
        found = asking.resolve(asking.parse(f"{gitlab.url}/g/s/p/-/tree/main"))
    assert (found.spec_string, found.via) == (f"gl/g%2Fs%2Fp/{commit}", "GitLab API")


@pytest.mark.parametrize(
    ("text", "hosts", "asked"),
    [
        ("gh/o/r/main", {}, "https://api.github.com/repos/o/r/commits/main"),
        ("gh/o/r/main", {"gh": {"url": "https://ghe.example/"}}, "https://ghe.example/api/v3/repos/o/r/commits/main"),
        ("gh/o/r/main", {"gh": {"api": "https://a.example/v3/"}}, "https://a.example/v3/repos/o/r/commits/main"),
        ("gl/g%2Fp/a%2Fb", {}, "https://gitlab.com/api/v4/projects/g%2Fp/repository/commits/a%2Fb"),
        (
            "gl/g%2Fp/x",
            {"gl": {"url": "https://l.example/gl"}},
            "https://l.example/gl/api/v4/projects/g%2Fp/repository/commits/x",
        ),
        ("bb/w/r/0123abcd", {}, "https://api.bitbucket.org/2.0/repositories/w/r/commit/0123abcd?fields=hash"),
        ("gist/ada/12345", {}, "https://api.github.com/gists/12345"),
        ("gist/ada/12345", {"gh": {"url": "https://ghe.example"}}, "https://ghe.example/api/v3/gists/12345"),
    ],
)
def test_where_a_host_is_asked_follows_from_its_address(resolver, text, hosts, asked):
    questions: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        questions.append(str(request.url))
        return httpx.Response(410, stream=httpx.ByteStream(b"{}"))

    transport = httpx.MockTransport(answer)
    asking = resolver(hosts=hosts, http=lambda **options: httpx.Client(**{**options, "transport": transport}))
    with pytest.raises(repos.RepoError):
        asking.resolve(repos.RepoSpec.parse(text))
    assert questions[0] == asked
