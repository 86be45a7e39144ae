"""What gateway and tunnel know of a session, and where it leads."""

from __future__ import annotations

import asyncio
from urllib.parse import urljoin, urlsplit

import pytest

from broker import crypto, launches, sessions
from tests.broker.conftest import Bench


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("", "/"),
        ("index.ipynb", "/lab/tree/index.ipynb"),
        ("my notes/a b.ipynb", "/lab/tree/my%20notes/a%20b.ipynb"),
        ("/lab/tree/x.ipynb?reset", "/lab/tree/x.ipynb?reset"),
        ("/shiny/", "/shiny/"),
        ("../../etc/passwd", "/lab/tree/etc/passwd"),
        ("https://evil.example/x", "/lab/tree/https%3A/evil.example/x"),
    ],
)
def test_a_path_to_open_is_a_path_of_the_session(path: str, entry: str) -> None:
    assert sessions.entry(path) == entry


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "\\\\evil.example", "///evil.example/x", "/\\/evil.example", "/../../x",
     "https://evil.example/x", "javascript:alert(1)", "/a/../../b", "@evil.example", ".evil.example"],
)  # fmt: skip
def test_no_path_leads_out_of_the_session(path: str) -> None:
    there = urljoin("http://abc.localhost:8000/", sessions.entry(path).replace("\\", "/"))
    assert urlsplit(there).netloc == "abc.localhost:8000"
    assert sessions.entry(path).startswith("/")
    assert not sessions.entry(path).startswith(("//", "/\\"))
    assert ".." not in sessions.entry(path)


def test_the_token_of_a_launch_opens_that_session_only(bench: Bench) -> None:
    one, other = bench.ready(), bench.ready()
    token = sessions.launch_token(bench.at, one.id)
    assert sessions.read(bench.at, one.id).opened_by(token)  # type: ignore[union-attr]
    assert not sessions.read(bench.at, other.id).opened_by(token)  # type: ignore[union-attr]


def test_the_token_dies_with_the_launch_at_once(bench: Bench) -> None:
    launch = bench.ready()
    token, directory = sessions.launch_token(bench.at, launch.id), sessions.Directory(bench.at)
    gone: list[str] = []
    directory.on_gone.append(gone.append)
    before = asyncio.run(directory.load(launch.id))
    assert before is not None
    assert (before.state, before.opened_by(token)) == ("ready", True)
    launches.stop(bench.at, launch.id)
    after = directory.get(launch.id)
    assert after is not None
    assert after.state == "gone"
    assert gone == [launch.id]


def test_a_lost_wake_up_costs_a_moment(bench: Bench) -> None:
    launch, directory = bench.ready(), sessions.Directory(bench.at)
    asyncio.run(directory.load(launch.id))
    bench.at.fanout._calls.clear()  # type: ignore[attr-defined]
    launches.stop(bench.at, launch.id)
    directory.refresh()
    after = directory.get(launch.id)
    assert after is not None
    assert after.state == "gone"


def test_sessions_that_go_on_are_not_read_anew_one_by_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on, ended = bench.ready(name="one"), bench.ready(name="two")
    directory, read, inner = sessions.Directory(bench.at), [], sessions.read
    for launch in (going_on, ended):
        asyncio.run(directory.load(launch.id))
    bench.at.fanout._calls.clear()  # type: ignore[attr-defined]
    launches.stop(bench.at, ended.id)
    monkeypatch.setattr(sessions, "read", lambda at, each: read.append(each) or inner(at, each))  # type: ignore[func-returns-value]
    directory.refresh()
    assert read == [ended.id]


def test_the_tunnel_secret_of_an_earlier_order_opens_nothing(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    session = sessions.read(bench.at, launch.id)
    assert session is not None
    assert session.tunnelled_by(sessions.tunnel_secret(bench.at, bench.order(launch).id))
    assert not session.tunnelled_by(sessions.tunnel_secret(bench.at, "an-earlier-order"))


def test_an_agent_that_dials_in_a_moment_after_it_was_ordered_is_known(bench: Bench) -> None:
    """Somebody looked at the session before its order was written: what was read then must not turn the agent away."""
    launch = bench.request()
    directory = sessions.Directory(bench.at)
    asyncio.run(directory.load(launch.id))
    bench.at.fanout._calls.clear()  # type: ignore[attr-defined]  # the wake-up is late
    bench.advance(launch)
    session = asyncio.run(directory.load(launch.id))
    assert session is not None
    assert session.tunnelled_by(sessions.tunnel_secret(bench.at, bench.order(launch).id))


def test_an_unknown_name_is_nobody(bench: Bench) -> None:
    directory = sessions.Directory(bench.at)
    assert asyncio.run(directory.load("nosuchlaunch")) is None


def test_guessing_names_does_not_fill_the_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "KNOWN_MOST", 10)
    directory = sessions.Directory(bench.at)
    for number in range(50):
        asyncio.run(directory.load(f"guess{number}"))
    assert len(directory._known) <= 11


def test_a_session_shows_no_secret(bench: Bench) -> None:
    launch = bench.ready()
    session = sessions.read(bench.at, launch.id)
    assert session is not None
    assert session.server_token not in repr(session)
    assert crypto.digest(sessions.launch_token(bench.at, launch.id)).hex() not in repr(session)


def test_activity_only_moves_forward(bench: Bench) -> None:
    launch = bench.ready()
    bench.clock.move(minutes=5)
    sessions.active(bench.at, {launch.id: 60})
    first = bench.launch(launch.id).last_activity_at
    sessions.active(bench.at, {launch.id: 120})
    assert bench.launch(launch.id).last_activity_at == first
