"""What people may write that no data host has: each is one sentence that says what to do, never a fault of ours."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import repos
from broker.repos import base

OURS = ("zenodo", "figshare", "hydroshare", "dataverse", "ckan", "osf", "swh", "docker")
HEX = "8f7c2f0341ef4180b0dbe97f59130756"
SHA = "94dca98c006b80309704c717b5d83dff3c1af3a0"

NO_DOI = (
    "",
    "10.5281",
    "10.5281/",
    "zenodo.x",
    "10./zenodo.1",
    "10.52/zenodo.1",
    "11.5281/zenodo.1",
    "10.5281/zenodo 1",
    "10.5281/zenodo%201",
    "10.5281/zenodo.1%00",
    "10.5281/zenodo.1?x=1",
    "10.5281/zenodo.1#x",
    "10.5281/../1",
    "10.5281/./1",
    "10.5281%2F%2E%2E%2Fx",
    "10.5281/%FF",
    "doi.org/10.5281/zenodo.1",
    "https://doi.org/",
    "https://example.org/10.5281/zenodo.1",
    "10.5281/" + "z" * 400,
    "master/10.5281/x",
    "<10.5281/zenodo.1>",
    "10.5281/zenodo\\1",
    "../../etc/passwd",
)
MALFORMED = {
    "zenodo": (*NO_DOI, "https://zenodo.org/communities/x", "https://zenodo.org/", "records/x1"),
    "figshare": (
        *NO_DOI,
        "10.6084/m9.figshare",
        "10.6084/m9.figshare.v1",
        "10.6084/m9.figshare.abc",
        "https://figshare.com/browse",
    ),
    "dataverse": (*NO_DOI, "hdl:1902.1/12345", "https://dataverse.harvard.edu/dataset.xhtml", "@1.0", "10.7910/@1.0"),
    "hydroshare": (
        "",
        "x",
        HEX[:-1],
        HEX + "0",
        HEX.replace("8", "g"),
        "https://www.hydroshare.org/",
        "https://www.hydroshare.org/resource/",
        f"{HEX[:16]}-{HEX[16:]}",
        "%00",
        "%FF",
        "../x",
        "resource",
        "HEAD",
        "main",
        "10.4211/hs.1",
        "a" * 33,
        "1" * 31,
        "?",
        "resource/new/x",
        " ",
        "-",
    ),
    "ckan": (
        "",
        "x",
        "https://x.org",
        "https://x.org/",
        "https://x.org/dataset",
        "https://x.org/dataset/",
        "https://x.org/datasets/y",
        "https://x.org/dataset/..",
        "https://x.org/dataset/a b",
        "https%3A%2F%2Fx.org%2Fdataset%2F%20",
        "ftp://x.org/dataset/y",
        "file:///dataset/y",
        "https://user:pw@x.org/dataset/y",
        "https://x.org:99999/dataset/y",
        "https:///dataset/y",
        "https://x.org/dataset/y/history/a%252Fb",
        "https://x.org/dataset/y?activity_id=a/b",
        "javascript:alert(1)",
        "%00",
        "%FF",
        "https://x.org/dataset/" + "y" * 300,
        "dataset/y",
    ),
    "osf": (
        "",
        "x",
        "abcd",
        "abcdefghi",
        "abc-e",
        "abc/e",
        "ab%00c",
        "%FF%FF%FF%FF%FF",
        "https://osf.io",
        "https://osf.io/",
        "https://example.org/ezcuj",
        "10.17605/OSF.IO/",
        "10.17605/osf.io/x",
        "10.5281/zenodo.1",
        "ezcuj/files",
        "ezcuj/HEAD",
        "ezc uj",
        "..",
        "ézcuj",
        "ezcuj?x",
        "ezcuj#x",
    ),
    "swh": (
        "",
        "x",
        SHA,
        f"swh:2:dir:{SHA}",
        f"swh:1:xyz:{SHA}",
        f"swh:1:dir:{SHA[:-1]}",
        f"swh:1:dir:{SHA}0",
        f"swh:1:cnt:{SHA}",
        f"swh:1:cnt:{SHA};path=/x",
        f"swh:1:dir:{SHA};anchor=swh:1:cnt:{SHA};path=../../x",
        f"swh:1:dir:{SHA}x",
        f"swh:1:ori:{SHA}",
        "swh:1:dir:",
        "swh:1",
        "origin",
        "origin/",
        "origin/x",
        "origin/github.com/o/r",
        "origin/https%3A%2F%2F",
        "origin/https%3A%2F%2Fuser%3Apw%40x.org%2Fr",
        "%00",
        "%FF",
        f"https://archive.softwareheritage.org/swh:1:dir:{SHA}",
    ),
    "docker": (
        "",
        "UPPER/case",
        "a b",
        "python:",
        "python:-x",
        "python:" + "x" * 129,
        "python@",
        "python@sha256:",
        "python@sha256:abc",
        f"python@md5:{HEX}",
        f"python@sha512:{'a' * 128}",
        "python:3@12",
        "-python",
        "py--",
        "py..thon",
        "a//b",
        "quay.io//x",
        "quay.io/UPPER",
        "quay.io:port/x",
        "quay.io/../x",
        "%00",
        "%FF",
        "x" * 300,
        "https://quay.io/x/y",
        "a@b@c",
        "user:pw@quay.io/x",
    ),
}
SAYS_WHAT_TO_DO = re.compile(
    r"\b(write|paste|use|open|check|ask|take|look|shorten|leave|name|looks? like|it is the|those have|they|behind)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize(("prefix", "text"), [(prefix, text) for prefix, texts in MALFORMED.items() for text in texts])
def test_a_malformed_spec_is_a_sentence_that_says_what_to_do(prefix, text):
    with pytest.raises(repos.RepoError) as refusal:
        base.providers[prefix].parse(text)
    told = refusal.value
    assert 400 <= told.status_code < 500
    assert SAYS_WHAT_TO_DO.search(str(told)), str(told)
    assert str(told).endswith((".", "…"))
    assert "\n" not in str(told)
    assert "Traceback" not in str(told)


def test_there_are_twenty_of_each_at_least():
    assert {prefix: len(set(texts)) >= 20 for prefix, texts in MALFORMED.items()} == dict.fromkeys(OURS, True)


LIKELY = st.sampled_from(
    [
        *(
            "10.5281/zenodo.",
            "10.6084/m9.figshare.",
            "10.7910/DVN/",
            "1",
            "12345",
            ".v1",
            "@1.0",
            "@",
            ":",
            "/",
            "//",
            ";",
            "%2F",
            "%",
            "%25",
            "%00",
        ),
        *(
            "https://",
            "https%3A%2F%2F",
            "http:/",
            "x.org",
            "/dataset/",
            "/history/",
            "?activity_id=",
            "a",
            "b-c",
            "_",
            ".",
            "..",
            "ezcuj",
        ),
        *(
            HEX,
            "swh:1:dir:",
            "swh:1:rev:",
            SHA,
            "origin/",
            "anchor=",
            "path=/x",
            "python",
            "quay.io/",
            "localhost:5000/",
            "sha256:",
            "a1" * 32,
        ),
        *(
            "zenodo.org/records/",
            "figshare.com/articles/x/",
            "osf.io/",
            "doi:",
            "doi.org/",
            "library/",
            "é",
            "İ",
            "ß",
            "\u00a0",
            " ",
            "\n",
            "#",
            "-",
        ),
    ]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(LIKELY, max_size=9).map("".join))


@given(prefix=st.sampled_from(OURS), text=TEXTS)
@example(prefix="figshare", text="10.6084/m9.figshare.İ1")
@example(prefix="dataverse", text="10.7910/x@1.0@2.0")
@example(prefix="zenodo", text="10.5281/%2541")
@example(prefix="ckan", text="https://x.org/dataset/a%2541")
def test_whatever_is_written_is_refused_by_a_sentence_or_means_itself(prefix, text):
    try:
        spec = base.providers[prefix].parse(text)
    except repos.RepoError as refusal:
        assert refusal.status_code < 500
        return
    again = repos.RepoSpec.parse(str(spec))
    assert again == replace(spec, path="", urlpath="")
    assert str(again) == str(spec)
    assert str(spec).isprintable()


@given(text=TEXTS)
def test_whatever_is_pasted_is_refused_by_a_sentence_or_means_itself(text):
    for whole in (text, f"https://{text}", f"https://zenodo.org/{text}", f"https://x.org/dataset/{quote(text)}"):
        try:
            spec = repos.RepoSpec.parse(whole)
        except repos.RepoError:
            continue
        if spec.provider in OURS:
            assert str(repos.RepoSpec.parse(str(spec))) == str(spec)
