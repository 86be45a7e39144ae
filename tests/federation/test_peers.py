"""Where a peer may send anybody: its own registered origins, spelled as they are."""

from __future__ import annotations

import pytest

from federation import peers

PEER = peers.Peer(name="mb", title="mybinder.org", url="https://mybinder.org", origins=("https://*.mybinder.org",))


@pytest.mark.parametrize(
    "url",
    ["https://mybinder.org/x", "https://hub.mybinder.org/user/a/", "https://hub.gesis.mybinder.org:443/user/a/",
     "HTTPS://HUB.MYBINDER.ORG/user/a/"],
)  # fmt: skip
def test_its_own_addresses_are_believed(url: str) -> None:
    assert PEER.owns(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.mybinder.org/user/a/",
        "https://mybinder.org.evil.example/user/a/",
        "https://evilmybinder.org/",
        "https://hub.mybinder.org:8443/",
        "https://hub.mybinder.org@evil.example/",
        "https://user@hub.mybinder.org/",
        "https://evil.example\\@hub.mybinder.org/",
        "https://evil.example#.mybinder.org",
        "https://hub.mybinder.org\t.evil.example/",
        "//hub.mybinder.org/",
        "javascript:alert(1)",
        "http://127.0.0.1/user/a/",
        "http://169.254.169.254/latest/",
        "https://[::1]/",
        "https://10.0.0.1/",
        "https://xn--mybinder.org:99999/",
        "https://hub。mybinder.org/",
        "",
    ],
)
def test_nothing_else_is(url: str) -> None:
    assert not PEER.owns(url)


def test_http_is_for_this_computer_only() -> None:
    assert peers.Peer(name="a", title="a", url="http://127.0.0.1:8000").owns("http://127.0.0.1:8000/user/a/")
    assert not peers.Peer(name="a", title="a", url="http://hub.example.org").owns("http://hub.example.org/user/a/")


@pytest.mark.parametrize("text", ["https://hub.example.org", "https://*.example.org", "http://localhost:8000"])
def test_origins_that_can_be_registered(text: str) -> None:
    assert peers.origin_problem(text) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hub.example.org", "is no origin"),
        ("https://hub.example.org/path", "is no origin"),
        ("https://a*.example.org", "is no origin"),
        ("http://hub.example.org", "https://"),
        ("https://*.org", "too wide"),
        ("https://*", "is no origin"),
    ],
)
def test_origins_that_cannot(text: str, said: str) -> None:
    assert said in peers.origin_problem(text)
