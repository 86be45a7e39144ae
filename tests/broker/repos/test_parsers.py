"""What holds for every host, whatever people write and whatever hosts answer."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from broker import repos
from broker.repos import base, remotes, urls
from broker.settings import Settings

SHA = "0123456789abcdef0123456789abcdef01234567"
GIST = "8a658f7f63b13768d1e75fa2464f5092"
PREFIXES = list(base.providers)


def words(text: str) -> list[str]:
    return text.split()


PIECES = st.sampled_from(
    [
        *words("o r g / // %2F %2f %252F .git main HEAD - --x .. . ~ ^ : @ # ? & = + % %00 %0A %ff %F0%9F%99%82 é 🙂"),
        *words("https%3A%2F%2F https%3A// http:/ git%40 ssh:// x.org github.com [::1] :99999999 10.5281/zenodo.7"),
        *words("1 0 v1 tags/ refs/ heads/ history/ ?activity_id= sha256: swh:1:dir:"),
        *("\x00", "\u202e", "\ud800", " ", SHA, SHA[:7], GIST, "x" * 70, "y" * 1990),
    ]
)
WRITTEN = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=9).map("".join))
HOSTS = (
    *words("github.com gitlab.com bitbucket.org gist.github.com codeberg.org zenodo.org figshare.com osf.io doi.org"),
    *words("www.hydroshare.org dataverse.harvard.edu demo.ckan.org archive.softwareheritage.org hub.docker.com"),
    *words("quay.io nbviewer.org colab.research.google.com raw.githubusercontent.com x.org 127.0.0.1:8080"),
)
PAGES = st.sampled_from(
    [
        *words("tree blob - src branch commit commits raw tag tags releases pull pulls merge_requests 7 projects"),
        *words("users repos browse scm gist github records articles dataset history resource doi 10.5281"),
        *words("git-pull hub/lti/launch v2 gh git zenodo.7 o r main .. . %2e%2e %2F %ff é _ library"),
        *("a b", SHA, GIST),
    ]
)
KEYS = st.sampled_from(
    words("id hash public history version owner login values type name target mainbranch sha message error ref object")
)


@pytest.mark.parametrize("prefix", PREFIXES)
@settings(max_examples=300)
@given(WRITTEN)
@example("")
@example("/")
@example("o/r/" + "x" * 1990)
def test_every_host_reads_or_refuses_and_what_it_reads_says_itself_again(prefix, text):
    try:
        spec = repos.RepoSpec.parse(f"{prefix}/{text}")
    except repos.RepoError as refusal:
        assert len(str(refusal)) > 20
        assert refusal.status_code < 500
        return
    says_itself_again(spec)


def says_itself_again(spec: repos.RepoSpec) -> None:
    """What is not in BinderHub's string, such as the file to open, is not in it again."""
    again = repos.RepoSpec.parse(str(spec))
    assert again == replace(spec, path=again.path, urlpath="", divided=True, located=True)
    assert str(again) == str(spec)
    assert str(spec).isprintable()
    assert not re.search(r"\s", str(spec))


@settings(max_examples=1000)
@given(
    st.sampled_from(["https", "http", "ssh", "git", "HTTPS"]),
    st.sampled_from(HOSTS),
    st.lists(st.one_of(PAGES, st.text(max_size=6)), max_size=8),
    st.sampled_from(
        [
            "",
            "?at=main",
            "?h=x",
            "?persistentId=doi:10.7910/DVN/X",
            "?version=2",
            "#x",
            "?",
            "?a=%ff",
            "?repo=https://github.com/o/r&urlpath=tree/r/%2e%2e/x",
            "?repo=%5B",
            "?next=//[/git-pull",
            "?path=%00",
        ]
    ),
)
def test_any_address_on_any_host_is_understood_or_refused(scheme, host, parts, query):
    try:
        spec = repos.RepoSpec.parse(f"{scheme}://{host}/{'/'.join(parts)}{query}")
    except repos.RepoError as refusal:
        assert refusal.status_code < 500
        return
    says_itself_again(spec)
    assert ".." not in spec.path.split("/")
    assert urls.ref(spec.ref) == spec.ref or not base.providers[spec.provider].has_ref


@pytest.mark.parametrize("prefix", PREFIXES)
@given(
    scheme=st.sampled_from(["https", "http", "ssh", "git", "file", "ftp", ""]),
    host=st.one_of(st.sampled_from(HOSTS), st.text(max_size=8)),
    raw=st.lists(st.one_of(PAGES, st.text(min_size=1, max_size=6)), max_size=8),
)
def test_no_host_stumbles_over_an_address_of_another(prefix, scheme, host, raw):
    url = urls.Url(scheme=scheme, user="", host=host, port=None, raw=tuple(part for part in raw if "/" not in part))
    try:
        found = base.providers[prefix].detect(url)
    except repos.RepoError:
        return
    assert found is None or found.provider == prefix


@given(WRITTEN, st.one_of(st.none(), WRITTEN))
def test_a_reference_given_beside_a_link_is_taken_or_refused(text, ref):
    link = f"https://mybinder.org/v2/git/https%3A//x.org/a/b/c/{text}"
    try:
        spec = repos.RepoSpec.parse(link, ref=ref)
    except repos.RepoError:
        return
    assert spec.repo.startswith(("https://x.org", "http://", "ssh://")) or spec.provider != "git"
    if ref:
        assert spec.ref == urls.ref(ref.strip())


@given(st.lists(st.sampled_from(["a", "b", "feature", "1.0", SHA]), min_size=1, max_size=40), st.data())
def test_of_a_branch_and_a_path_the_longest_branch_that_exists_is_found(parts, data):
    text = "/".join(parts)
    length = data.draw(st.integers(1, min(len(parts), remotes.DEEPEST)))
    branch = "/".join(parts[:length])
    found = remotes.divided({f"refs/heads/{branch}": SHA}, text)
    assert found == (branch, "/".join(parts[length:]))


# --- what hosts answer ----------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just(SHA), st.just(SHA + SHA[:24])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["etag", "retry-after", "x-ratelimit-remaining", "x-ratelimit-reset", "location", "ratelimit-reset"]
    ),
    st.sampled_from(
        ["", "0", "-1", "999999999999", "x", '"tag"', "Wed, 21 Oct 2015 07:28:00 GMT", "/", "//", "http://[", "é"]
    ),
    max_size=3,
)
ASKED = [
    "gh/o/r/main",
    "gl/g%2Fp/main",
    "bb/w/r/main",
    "bb/w/r/HEAD",
    "bb/w/r/0123abcd",
    f"gist/ada/{GIST}",
    f"gist/ada/{GIST}/{SHA}",
]


@pytest.mark.parametrize("text", ASKED)
@settings(max_examples=60, deadline=None)
@given(
    status=st.sampled_from([200, 201, 204, 301, 302, 304, 400, 401, 403, 404, 409, 410, 422, 429, 451, 500, 503]),
    headers=HEADERS,
    body=st.one_of(JSON.map(lambda row: json.dumps(row).encode()), st.binary(max_size=50), st.just(SHA.encode())),
)
@example(status=301, headers={"location": "http://["}, body=b"")
def test_whatever_a_host_answers_becomes_a_commit_or_a_sentence(text, status, headers, body):
    sent = {name: value.encode().decode("latin-1") for name, value in headers.items()}

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=sent, stream=httpx.ByteStream(body))

    asking = resolver_over(answer)
    spec = repos.RepoSpec.parse(text)
    assume(spec)
    try:
        found = asking.resolve(spec)
    except repos.RepoError as refusal:
        assert len(str(refusal)) > 20
        return
    assert re.fullmatch(r"[0-9a-f]{40}", found.commit)
    assert (
        found.spec_string
        == f"{spec.provider}/{base.providers[spec.provider].spec(replace(found.spec, ref=found.commit))}"
    )
    assert re.fullmatch(r"[a-z0-9-]{1,40}", found.slug)


def resolver_over(answer: Any) -> repos.Resolver:
    """Every API is this function; git finds nobody at home."""
    hosts = {
        prefix: {"api": "http://api.example", "url": "http://127.0.0.1:9"} for prefix in ("gh", "gl", "bb", "gist")
    }
    home = Path(tempfile.gettempdir())
    transport = httpx.MockTransport(answer)
    return repos.Resolver(
        Settings(home=home, hosts=hosts),
        http=lambda **options: httpx.Client(**{**options, "transport": transport, "verify": False}),
    )
