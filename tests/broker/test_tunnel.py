"""The broker's side of the tunnel: which streams it takes in, keeps, hands out and cuts."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import framing, wire
from tests.broker.doors import ALPHA, BETA, Client, House, request
from tests.waiting import until


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("h")) as opened:
        yield opened


def dial(house: House, session_id: str, secret: str, **told: str) -> Client:
    client = house.client()
    headers = {"Host": f"127.0.0.1:{house.port}", "Connection": "Upgrade", "Upgrade": "anybinder-tunnel"}
    headers |= {"Authorization": f"Bearer {secret}", "X-Anybinder-Session": session_id}
    client.send(
        request("GET", "/agent/tunnel", {**headers, **{key.replace("_", "-"): value for key, value in told.items()}})
    )
    return client


def test_streams_park_and_one_is_dialled_for_each_that_is_taken(house):
    alpha = house.session(ALPHA)
    house.get("/")
    until(lambda: len(house.doors.tunnel.parked[ALPHA]) >= 4)
    assert len(alpha.connections) == 1
    assert house.tunnelled == [(ALPHA, True)]


@pytest.mark.parametrize("wrong", ["another session's", "the launch's token", "none", "basic"])
def test_a_secret_opens_streams_of_its_own_session_only(house, wrong):
    alpha, beta = house.session(ALPHA, tunnel=False), house.session(BETA, tunnel=False)
    secret = {"another session's": beta.secret, "the launch's token": alpha.token}.get(wrong, "")
    told = {"Authorization": f"Basic {alpha.secret}"} if wrong == "basic" else {}
    with dial(house, ALPHA, secret, **told) as client:
        assert client.answer().status == 403
    assert house.doors.tunnel.streams == {}


def test_a_session_that_is_unknown_may_come_and_one_that_is_gone_may_not(house):
    with dial(house, "zzzzzzzzzzzz", "secret") as client:
        assert client.answer().status == 404
    with dial(house, "", "secret") as client:
        assert client.answer().status == 404
    alpha = house.session(ALPHA, tunnel=False)
    house.directory.change(ALPHA, state="gone")
    with dial(house, ALPHA, alpha.secret) as client:
        assert client.answer().status == 403


def test_a_tunnel_is_an_upgrade(house):
    alpha = house.session(ALPHA, tunnel=False)
    with dial(house, ALPHA, alpha.secret, Upgrade="h2c") as client:
        assert client.answer().status == 426
    with dial(house, ALPHA, alpha.secret, Content_Length="3") as client:
        assert client.answer().status == 400


def test_a_tunnel_is_not_dialled_on_a_sessions_own_host(house):
    alpha = house.session(ALPHA, tunnel=False)
    with dial(house, ALPHA, alpha.secret, Host=house.host()) as client:
        assert client.answer().status == 403
    with dial(house, ALPHA, alpha.secret, Host="evil.example") as client:
        assert client.answer().status == 421
    assert house.doors.tunnel.streams == {}


def parked(house: House, secret: str, **told: str) -> Client:
    client = dial(house, ALPHA, secret, **told)
    assert client.head().status == 101
    until(lambda: house.doors.tunnel.parked.get(ALPHA))
    return client


def test_a_parked_stream_is_pinged_and_one_that_does_not_answer_is_cut(house):
    alpha = house.session(ALPHA, tunnel=False)
    stream = lambda: house.doors.tunnel.parked[ALPHA][0]  # noqa: E731
    with parked(house, alpha.secret) as client:
        for _ in range(3):
            house.at(lambda: stream().ping(0))
            assert client.read(1) == b"\0"
            client.send(b"\0")
            until(lambda: stream()._pings == 0)
        for _ in range(3):
            house.at(lambda: stream().ping(0))
        assert client.rest() == b"\0\0"
    until(lambda: not house.doors.tunnel.streams)


def test_the_answer_to_a_ping_may_come_after_the_stream_was_taken(house):
    alpha = house.session(ALPHA, tunnel=False)
    with parked(house, alpha.secret) as client, house.client() as browser:
        house.at(lambda: house.doors.tunnel.parked[ALPHA][0].ping(0))
        browser.send(request("GET", "/", {"Host": house.host(), "Cookie": house.cookie()}))
        assert client.read(2) == b"\0\x01"
        client.until(b"\r\n\r\n")
        client.send(b"\0\x01HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert browser.answer().body == b"ok"


@pytest.mark.parametrize("said", [b"x", b"\0", b"\x01", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_parked_stream_that_talks_unasked_is_cut(house, said):
    alpha = house.session(ALPHA, tunnel=False)
    with parked(house, alpha.secret) as client:
        client.send(said)
        assert client.rest() == b""


def test_a_post_waits_until_the_server_is_reached_and_tries_another_stream_if_not(house):
    alpha = house.session(ALPHA, tunnel=False)
    with parked(house, alpha.secret) as first, house.client() as browser:
        told = {"Host": house.host(), "Cookie": house.cookie(), "Content-Length": "4"}
        browser.send(request("POST", "/", told) + b"body")
        assert first.read(1) == b"\x01"
        assert first.buffer == b""
        first.send(b"\x02")
        with dial(house, ALPHA, alpha.secret) as second:
            assert second.head().status == 101
            assert second.read(1) == b"\x01"
            second.send(b"\x01")
            assert second.until(b"body").startswith(b"POST / HTTP/1.1\r\n")
            second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert browser.answer().body == b"ok"


def test_a_get_goes_out_with_the_byte_that_takes_the_stream(house):
    alpha = house.session(ALPHA, tunnel=False)
    with parked(house, alpha.secret) as client, house.client() as browser:
        browser.send(request("GET", "/at-once", {"Host": house.host(), "Cookie": house.cookie()}))
        assert client.until(b"\r\n\r\n").startswith(b"\x01GET /at-once HTTP/1.1\r\n")


def test_frames_carry_the_same_bytes(house):
    alpha = house.session(ALPHA, tunnel=False)
    told = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": "anybinder-tunnel",
    }
    with parked(house, alpha.secret, **told) as client, house.client() as browser:
        browser.send(request("GET", "/framed", {"Host": house.host(), "Cookie": house.cookie()}))
        assert read_frame(client).startswith(b"\x01GET /framed HTTP/1.1\r\n")
        body = bytes(range(256)) * 1000
        sent = b"\x01HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for at in range(0, len(sent), 70_000):
            client.send(masked(sent[at : at + 70_000]))
        assert browser.answer().body == body


def test_an_answer_without_a_length_ends_with_the_frames(house):
    alpha = house.session(ALPHA, tunnel=False)
    told = {"Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    with parked(house, alpha.secret, **told) as client, house.client() as browser:
        browser.send(request("GET", "/framed", {"Host": house.host(), "Cookie": house.cookie()}))
        read_frame(client)
        client.send(
            masked(b"\x01HTTP/1.1 200 OK\r\n\r\nall of it") + b"\x88\x82mask" + framing.unmask(b"\x03\xe8", b"mask")
        )
        assert browser.answer().body == b"all of it"


@pytest.mark.parametrize("wrong", [b"\x82\x01x", b"\xc2\x81abcdx", b"\x82\xff" + b"\xff" * 12])
def test_wrong_frames_end_the_stream(house, wrong):
    alpha = house.session(ALPHA, tunnel=False)
    told = {"Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    with parked(house, alpha.secret, **told) as client:
        client.send(wrong)
        assert client.rest() == b""


def masked(payload: bytes) -> bytes:
    head = framing.frame(payload)[: -len(payload)]
    return bytes([head[0], head[1] | 0x80]) + head[2:] + b"mask" + framing.unmask(payload, b"mask")


def read_frame(client: Client) -> bytes:
    size = client.read(2)[1]
    if size > 125:
        size = int.from_bytes(client.read(2 if size == 126 else 8), "big")
    return client.read(size)


def test_an_agent_may_not_park_without_end(house, monkeypatch):
    monkeypatch.setattr("broker.tunnel.STREAM_LIMIT", 3)
    alpha = house.session(ALPHA, tunnel=False)
    clients = [parked(house, alpha.secret) for _ in range(3)]
    with dial(house, ALPHA, alpha.secret) as client:
        assert client.answer().status == 503
    for one in clients:
        one.socket.close()


def test_a_session_whose_last_stream_left_is_down_for_good_after_a_while(house):
    house.doors.tunnel._gone_seconds = 0.1
    alpha = house.session(ALPHA, tunnel=False)
    parked(house, alpha.secret).socket.close()
    until(lambda: house.tunnelled == [(ALPHA, True), (ALPHA, False)])
    with parked(house, alpha.secret):
        assert house.tunnelled[-1] == (ALPHA, True)


def test_an_agent_that_redials_soon_was_never_down(house):
    house.doors.tunnel._gone_seconds = 0.3
    alpha = house.session(ALPHA, tunnel=False)
    parked(house, alpha.secret).socket.close()
    until(lambda: not house.doors.tunnel.streams)
    with parked(house, alpha.secret):
        assert house.tunnelled == [(ALPHA, True)]


def test_a_session_that_ends_loses_every_stream(house):
    alpha = house.session(ALPHA)
    house.get("/")
    house.directory.change(ALPHA, state="gone")
    until(lambda: not house.doors.tunnel.streams)
    until(lambda: alpha.tunnel.done(), what="the agent to hear that its session is revoked")


def test_others_reach_a_session_by_its_socket(tmp_path: Path):
    with House(tmp_path, sockets=tmp_path / "t") as house:
        alpha = house.session(ALPHA)
        path = tmp_path / "t" / ALPHA
        until(path.exists)
        assert (tmp_path / "t").stat().st_mode & 0o777 == 0o700
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"GET /direct HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b'"target": "/direct"' in client.recv(65536)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b""
        assert len(alpha.connections) == 1
        house.directory.change(ALPHA, state="gone")
        until(lambda: not path.exists())


def test_what_comes_before_there_is_a_stream_is_kept_and_a_server_may_speak_first(tmp_path: Path):
    with House(tmp_path, sockets=tmp_path / "t") as house:
        alpha = house.session(ALPHA, tunnel=False)
        with parked(house, alpha.secret) as agent, socket.socket(socket.AF_UNIX) as client:
            until((tmp_path / "t" / ALPHA).exists)
            client.settimeout(10)
            client.connect(str(tmp_path / "t" / ALPHA))
            client.sendall(b"early")
            assert agent.read(1) == b"\x01"
            agent.send(b"\x01greeting")
            assert client.recv(100) == b"greeting"
            assert agent.read(5) == b"early"


def test_chunks_come_apart_however_they_are_cut():
    body = b"5\r\nhello\r\n1;x=y\r\n \r\n10\r\n0123456789abcdef\r\n0\r\nT: x\r\n\r\nnext"
    for step in (1, 2, 3, 7, len(body)):
        chunks, got, rest = wire.Chunks(), b"", b""
        for at in range(0, len(body), step):
            piece = body[at : at + step]
            if chunks.done:
                rest += piece
                continue
            got += b"".join(chunks.feed(piece))
            rest = chunks.rest
        assert (got, chunks.done, rest) == (b"hello 0123456789abcdef", True, b"next")
