"""The front against clients that try to be read in two ways, or never to be done."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from broker import wire
from tests.broker.doors import ALPHA, BETA, Backend, House, Seen, request
from tests.waiting import until


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("h")) as opened:
        opened.session(ALPHA)
        opened.session(BETA)
        yield opened


@pytest.fixture(autouse=True)
def clean(house: House) -> None:
    house.app_saw.clear()
    for session in house.sessions.values():
        session.requests.clear()
        session.replies.clear()
        del session.raw[:]


# ---- smuggling ----------------------------------------------------------------------------------------------------

# Each begins as a request of A's client. {smuggled} is a whole request for B, with everything that would open it.
CORPUS = {
    "CL.TE": "POST / HTTP/1.1\r\n{a}Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE.CL": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{hex}\r\n{smuggled}\r\n0\r\n\r\n",
    "two lengths": "POST / HTTP/1.1\r\n{a}Content-Length: 0\r\nContent-Length: {size}\r\n\r\n{smuggled}",
    "two same lengths": "POST / HTTP/1.1\r\n{a}Content-Length: 0\r\nContent-Length: 0\r\n\r\n{smuggled}",
    "a list of lengths": "POST / HTTP/1.1\r\n{a}Content-Length: 0, {size}\r\n\r\n{smuggled}",
    "a signed length": "POST / HTTP/1.1\r\n{a}Content-Length: +0\r\n\r\n{smuggled}",
    "a negative length": "POST / HTTP/1.1\r\n{a}Content-Length: -1\r\n\r\n{smuggled}",
    "a hexadecimal length": "POST / HTTP/1.1\r\n{a}Content-Length: 0x0\r\n\r\n{smuggled}",
    "a spaced length": "POST / HTTP/1.1\r\n{a}Content-Length: 1 0\r\n\r\n{smuggled}",
    "an empty length": "POST / HTTP/1.1\r\n{a}Content-Length:\r\n\r\n{smuggled}",
    "an endless length": "POST / HTTP/1.1\r\n{a}Content-Length: 99999999999999999999999\r\n\r\n{smuggled}",
    "a length that wraps": "POST / HTTP/1.1\r\n{a}Content-Length: 18446744073709551616\r\n\r\n{smuggled}",
    "TE xchunked": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: xchunked\r\n\r\n{smuggled}",
    "TE identity": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: identity\r\n\r\n{smuggled}",
    "TE gzip, chunked": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE chunked, identity": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{smuggled}",
    "TE twice": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n{smuggled}",
    "TE with a vertical tab": "POST / HTTP/1.1\r\n{a}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE with a quote": 'POST / HTTP/1.1\r\n{a}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n{smuggled}',
    "TE with a space before the colon": "POST / HTTP/1.1\r\n{a}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE behind a bare line feed": "POST / HTTP/1.1\r\n{a}X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE behind a bare return": "POST / HTTP/1.1\r\n{a}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE folded": "POST / HTTP/1.1\r\n{a}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "TE in HTTP/1.0": "POST / HTTP/1.0\r\n{a}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
    "a folded header": "GET / HTTP/1.1\r\n{a}X: y\r\n z: {smuggled}",
    "a first line that is folded": "GET / HTTP/1.1\r\n X: y\r\n{a}\r\n{smuggled}",
    "bare line feeds": "GET / HTTP/1.1\n{a}\n\n{smuggled}",
    "a space before the colon": "GET / HTTP/1.1\r\n{a}X : y\r\n\r\n{smuggled}",
    "no colon": "GET / HTTP/1.1\r\n{a}X\r\n\r\n{smuggled}",
    "no name": "GET / HTTP/1.1\r\n{a}: x\r\n\r\n{smuggled}",
    "a NUL in a value": "GET / HTTP/1.1\r\n{a}X: y\0z\r\n\r\n{smuggled}",
    "a NUL in a name": "GET / HTTP/1.1\r\n{a}X\0: y\r\n\r\n{smuggled}",
    "a NUL in the target": "GET /\0 HTTP/1.1\r\n{a}\r\n{smuggled}",
    "an absolute target": "GET http://{b_host}/ HTTP/1.1\r\n{a}\r\n{smuggled}",
    "an absolute target of its own": "GET http://{a_host}/ HTTP/1.1\r\n{a}\r\n{smuggled}",
    "an authority": "CONNECT {b_host} HTTP/1.1\r\n{a}\r\n{smuggled}",
    "an authority with a path": "GET {b_host} HTTP/1.1\r\n{a}\r\n{smuggled}",
    "CONNECT a path": "CONNECT / HTTP/1.1\r\n{a}\r\n{smuggled}",
    "an asterisk": "OPTIONS * HTTP/1.1\r\n{a}\r\n{smuggled}",
    "TRACE": "TRACE / HTTP/1.1\r\n{a}\r\n{smuggled}",
    "no target": "GET  HTTP/1.1\r\n{a}\r\n{smuggled}",
    "two spaces": "GET  / HTTP/1.1\r\n{a}\r\n{smuggled}",
    "a tab": "GET\t/ HTTP/1.1\r\n{a}\r\n{smuggled}",
    "a space in the target": "GET / x HTTP/1.1\r\n{a}\r\n{smuggled}",
    "a fragment": "GET /#x HTTP/1.1\r\n{a}\r\n{smuggled}",
    "an unknown method": "GETS / HTTP/1.1\r\n{a}\r\n{smuggled}",
    "a small method": "get / HTTP/1.1\r\n{a}\r\n{smuggled}",
    "HTTP/0.9": "GET /\r\n{smuggled}",
    "HTTP/0.9 with a version": "GET / HTTP/0.9\r\n{a}\r\n{smuggled}",
    "HTTP/1.2": "GET / HTTP/1.2\r\n{a}\r\n{smuggled}",
    "HTTP/2.0": "GET / HTTP/2.0\r\n{a}\r\n{smuggled}",
    "HTTP/11": "GET / HTTP/11\r\n{a}\r\n{smuggled}",
    "small http": "GET / http/1.1\r\n{a}\r\n{smuggled}",
    "another protocol": "GET / RTSP/1.0\r\n{a}\r\n{smuggled}",
    "HTTP/2's greeting": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{smuggled}",
    "a TLS greeting": "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n{smuggled}",
    "an empty first line": "\r\nGET / HTTP/1.1\r\n{a}\r\n{smuggled}",
    "only line ends": "\r\n\r\n\r\n\r\n{smuggled}",
    "two hosts": "GET / HTTP/1.1\r\n{a}Host: {b_host}\r\n\r\n{smuggled}",
    "two hosts in one": "GET / HTTP/1.1\r\nHost: {a_host}, {b_host}\r\n\r\n{smuggled}",
    "a WebSocket with a body": "GET / HTTP/1.1\r\n{a}{websocket}Content-Length: {size}\r\n\r\n{smuggled}",
    "a WebSocket by post": "POST / HTTP/1.1\r\n{a}{websocket}\r\n{smuggled}",
    "an unknown expectation": "POST / HTTP/1.1\r\n{a}Expect: 200-ok\r\nContent-Length: {size}\r\n\r\n{smuggled}",
}

# These are read in one way only: the smuggled request is a body, or a request of its own that must show its own pass.
CHUNKED = "POST / HTTP/1.1\r\n{a}Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "a size of no digits": "\r\n{smuggled}",
    "a size that is no number": "xyz\r\n{smuggled}",
    "a signed size": "+3\r\nabc\r\n0\r\n\r\n{smuggled}",
    "a negative size": "-1\r\n{smuggled}",
    "a size with 0x": "0x3\r\nabc\r\n0\r\n\r\n{smuggled}",
    "a size with an underscore": "1_0\r\n{smuggled}",
    "a size with a space": "3 \r\nabc\r\n0\r\n\r\n{smuggled}",
    "a space before the size": " 3\r\nabc\r\n0\r\n\r\n{smuggled}",
    "an endless size": "ffffffffffffffffff\r\n{smuggled}",
    "a bare line feed after the size": "3\nabc\r\n0\r\n\r\n{smuggled}",
    "a bare line feed after the data": "3\r\nabc\n0\r\n\r\n{smuggled}",
    "a bare return after the size": "3\rabc\r\n0\r\n\r\n{smuggled}",
    "data longer than said": "3\r\nabcd\r\n0\r\n\r\n{smuggled}",
    "data shorter than said": "5\r\nabc\r\n0\r\n\r\n{smuggled}",
    "a bare line feed in an extension": "3;a\nb\r\nabc\r\n0\r\n\r\n{smuggled}",
    "an endless extension": "3;" + "x" * 5000 + "\r\nabc\r\n0\r\n\r\n{smuggled}",
    "endless trailers": "0\r\n" + "X: y\r\n" * 3000 + "\r\n{smuggled}",
    "a bare line feed in a trailer": "0\r\nX: y\n\r\n\r\n{smuggled}",
}


UPGRADES = {
    "{websocket}": "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "{h2c}": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
}


def attack(house: House, shape: str) -> bytes:
    """What the client gets back, to its end. The smuggled request names B and has no pass."""
    a = f"Host: {house.host(ALPHA)}\r\nCookie: {house.cookie(ALPHA)}\r\n"
    smuggled = f"GET /stolen HTTP/1.1\r\nHost: {house.host(BETA)}\r\nCookie: {house.cookie(BETA)}\r\n\r\n"
    told = {"{a}": a, "{a_host}": house.host(ALPHA), "{b_host}": house.host(BETA), "{smuggled}": smuggled}
    told |= {"{size}": str(len(smuggled)), "{hex}": f"{len(smuggled):x}"}
    for mark, text in {**UPGRADES, **told}.items():
        shape = shape.replace(mark, text)
    with house.client() as client:
        client.send(shape.encode("latin-1"))
        client.socket.shutdown(socket.SHUT_WR) if "endless" in shape else None
        return client.rest()


@pytest.mark.parametrize("name", CORPUS)
def test_what_could_be_read_twice_is_refused_and_nothing_behind_it_is_read(house, name):
    got = attack(house, CORPUS[name])
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 505")), got
    assert got.count(b"HTTP/1.1 ") == 1
    assert BETA.encode() not in got
    assert not house.sessions[BETA].raw
    assert not house.sessions[ALPHA].raw
    assert not house.app_saw


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_body_that_could_be_read_twice_ends_both_connections(house, name):
    got = attack(house, CHUNKED + BAD_CHUNKS[name])
    assert got.startswith(b"HTTP/1.1 400"), got
    assert got.count(b"HTTP/1.1 ") == 1
    assert not house.sessions[BETA].raw
    assert not house.sessions[ALPHA].requests
    assert b"stolen" not in house.sessions[ALPHA].raw


@pytest.mark.parametrize(
    "shape",
    [
        "POST / HTTP/1.1\r\n{a}Content-Length: {size}\r\n\r\n{smuggled}",
        "POST / HTTP/1.1\r\n{a}Transfer-Encoding: CHUNKED\r\n\r\n{hex};x\r\n{smuggled}\r\n000\r\nT: y\r\n\r\n",
        "POST / HTTP/1.1\r\n{a}{h2c}HTTP2-Settings: x\r\nContent-Length: {size}\r\n\r\n{smuggled}",
    ],
)
def test_a_request_within_a_body_is_a_body(house, shape):
    a = f"Host: {house.host(ALPHA)}\r\nCookie: {house.cookie(ALPHA)}\r\n"
    smuggled = f"GET /stolen HTTP/1.1\r\nHost: {house.host(BETA)}\r\nCookie: {house.cookie(BETA)}\r\n\r\n"
    told = {"{a}": a, "{smuggled}": smuggled, "{size}": str(len(smuggled)), "{hex}": f"{len(smuggled):x}"}
    for mark, text in {**UPGRADES, **told}.items():
        shape = shape.replace(mark, text)
    with house.client() as client:
        client.send(shape.encode() + request("GET", "/next", {"Host": house.host(), "Cookie": house.cookie()}))
        assert client.answer().json["length"] == len(smuggled)
        assert client.answer().json["target"] == "/next"
    assert [seen.target for seen in house.sessions[ALPHA].requests] == ["/", "/next"]
    assert not house.sessions[BETA].raw
    seen = house.sessions[ALPHA].requests[0]
    assert seen.header("upgrade") is seen.header("http2-settings") is seen.header("connection") is None


@pytest.mark.parametrize(
    "shape",
    [
        "POST /x HTTP/1.1\r\nHost: {app}\r\n{h2c}Content-Length: {size}\r\n\r\n{smuggled}",
        "POST /x HTTP/1.1\r\nHost: {app}\r\n{websocket}Content-Length: {size}\r\n\r\n{smuggled}",
        "POST /x HTTP/1.1\r\nHost: {app}\r\nContent-Length: {size}\r\n\r\n{smuggled}",
        "POST /x HTTP/1.1\r\nHost: {app}\r\nTransfer-Encoding: chunked\r\n\r\n{hex}\r\n{smuggled}\r\n0\r\n\r\n",
    ],
)
def test_the_application_reads_a_body_as_one_too(house, shape):
    smuggled = f"DELETE /stolen HTTP/1.1\r\nHost: localhost:{house.port}\r\n\r\n"
    told = {"{app}": f"localhost:{house.port}", "{smuggled}": smuggled}
    told |= {"{size}": str(len(smuggled)), "{hex}": f"{len(smuggled):x}"}
    for mark, text in {**UPGRADES, **told}.items():
        shape = shape.replace(mark, text)
    with house.client() as client:
        client.send(shape.encode())
        assert client.answer().body == b"app"
    assert house.app_saw == [("POST", "/x", smuggled.encode())]


def test_headers_that_connection_names_are_taken_out_and_ours_stay(house):
    told = {
        "Host": house.host(),
        "Cookie": house.cookie(),
        "Connection": "close, X-Secret, Cookie, X-Forwarded-For, Host",
    }
    with house.client() as client:
        client.send(
            request(
                "GET", "/", {**told, "X-Secret": "1", "X_Forwarded_For": "6.6.6.6", "Keep-Alive": "x", "TE": "trailers"}
            )
        )
        answer = client.answer()
        assert client.rest() == b""
    assert (
        answer.sent("x-secret")
        is answer.sent("keep-alive")
        is answer.sent("te")
        is answer.sent("x_forwarded_for")
        is None
    )
    assert answer.sent("x-forwarded-for") == "127.0.0.1"
    assert answer.sent("host") == house.host()


# ---- what a session answers ---------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.mark.parametrize(
    "reply",
    [
        OK + POISON,
        b"HTTP/1.1 204 No Content\r\n\r\n" + POISON,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n" + POISON,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + POISON,
    ],
)
def test_what_a_session_sends_ahead_is_never_an_answer(house, reply):
    house.sessions[ALPHA].replies["/ahead"] = reply
    told = {"Host": house.host(), "Cookie": house.cookie()}
    with house.client() as client:
        for _ in range(3):
            client.send(request("GET", "/ahead", told) + request("GET", "/next", told))
            assert client.answer().body in (b"ok", b"")
            assert client.answer().json["target"] == "/next"


def test_what_an_idle_session_sends_is_never_an_answer(house):
    told = {"Host": house.host(), "Cookie": house.cookie()}
    alpha = house.sessions[ALPHA]
    with house.client() as client:
        for n in range(3):
            client.send(request("GET", f"/{n}", told))
            assert client.answer().json["target"] == f"/{n}"
            lost = len(alpha.lost)
            house.at(lambda: alpha.connections[-1].transport.write(POISON))
            until(lambda lost=lost: len(alpha.lost) > lost, what="the stream to be dropped")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 8\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b=c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b=c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
        b"HTTP/1.1 999 No\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/2 200\r\nContent-Length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + OK,
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70000,
    ],
)
def test_an_answer_that_could_be_read_twice_is_replaced(house, reply):
    house.sessions[ALPHA].replies["/bad"] = reply
    with house.client() as client:
        client.send(request("GET", "/bad", {"Host": house.host(), "Cookie": house.cookie()}))
        assert client.answer().status == 502
        assert client.rest() == b""
    assert house.get("/after").status == 200


def test_a_wrong_chunk_in_an_answer_cuts_it_short(house):
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokHTTP/1.1 200 OK\r\n\r\n"
    house.sessions[ALPHA].replies["/bad"] = reply
    with house.client() as client:
        client.send(request("GET", "/bad", {"Host": house.host(), "Cookie": house.cookie()}))
        assert b"0\r\n\r\n" not in client.rest().partition(b"\r\n\r\n")[2]


def test_a_stream_never_serves_another_session(house):
    for n in range(20):
        one = (ALPHA, BETA)[n % 2]
        assert house.get(f"/{n}", session=one).json["session"] == one
    for one in (ALPHA, BETA):
        assert all(seen.header("host") == house.host(one) for seen in house.sessions[one].requests)


# ---- never to be done ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["first", "kept"])
def test_a_head_that_does_not_end_is_given_up(house, where, monkeypatch):
    monkeypatch.setattr("broker.front.HEAD_SECONDS", 0.2)
    monkeypatch.setattr("broker.gateway.connection.HEAD_SECONDS", 0.2)
    with house.client() as client:
        if where == "kept":
            client.send(request("GET", "/", {"Host": house.host(), "Cookie": house.cookie()}))
            client.answer()
        client.send(b"GET / HTTP/1.1\r\nHost: ")
        assert client.answer().status == 408
        assert client.rest() == b""


def test_a_connection_that_says_nothing_is_closed(house, monkeypatch):
    monkeypatch.setattr("broker.front.SILENT_SECONDS", 0.2)
    with house.client() as client:
        assert client.rest() == b""


def test_a_body_that_stops_coming_is_given_up(house, monkeypatch):
    monkeypatch.setattr("broker.gateway.connection.BODY_SECONDS", 0.2)
    with house.client() as client:
        told = {"Host": house.host(), "Cookie": house.cookie(), "Content-Length": "100"}
        client.send(request("POST", "/", told) + b"some")
        assert client.answer().status == 408
    until(lambda: not house.doors.gateway.connections)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_head_that_is_too_large_is_refused(house, kept, ended):
    with house.client() as client:
        told = {"Host": house.host(), "Cookie": house.cookie()}
        if kept:
            client.send(request("GET", "/", told))
            client.answer()
        head = request("GET", "/", {**told, "X": "y" * wire.REQUEST_HEAD_LIMIT})
        client.send(head if ended else head[:-4])
        assert client.answer().status == 431


def test_a_head_of_nearly_the_limit_passes(house):
    assert house.get("/", X="y" * 30_000).status == 200


def test_a_client_that_leaves_early_leaves_nothing(house):
    for n in (1, 20, 60):
        with house.client() as client:
            client.send(request("GET", "/", {"Host": house.host(), "Cookie": house.cookie()})[:n])
    until(lambda: not house.doors.reading and not house.doors.gateway.connections)


# ---- the application ----------------------------------------------------------------------------------------------


def test_the_brokers_own_hosts_reach_the_application(house):
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        with house.client() as client:
            client.send(request("GET", "/health", {"Host": f"{host}:{house.port}"}))
            assert client.answer().body == b"app"


def test_requests_sent_ahead_to_application_and_sessions_are_answered_in_order(house):
    app = {"Host": f"localhost:{house.port}"}
    session = {"Host": house.host(), "Cookie": house.cookie()}
    with house.client() as client:
        for n in range(5):
            client.send(
                request("POST", f"/app/{n}", {**app, "Content-Length": "4"}) + b"body" + request("GET", f"/{n}", session)
                + request("GET", "/never-reads", app) + request("GET", "/evil", {"Host": "evil.example"}) * (n == 4)
            )  # fmt: skip
            assert client.answer().body == b"app"
            assert client.answer().json["target"] == f"/{n}"
            assert client.answer().body == b"app"
        assert client.answer().status == 421
    assert [path for _, path, _ in house.app_saw if path != "/never-reads"] == [f"/app/{n}" for n in range(5)]


def test_a_large_body_reaches_the_application(house):
    with house.client() as client:
        told = {"Host": f"localhost:{house.port}", "Content-Length": "3000000"}
        client.send(request("POST", "/up", told) + b"u" * 3_000_000)
        assert client.answer().body == b"app"
    assert house.app_saw == [("POST", "/up", b"u" * 3_000_000)]


def test_an_answer_is_streamed_while_a_large_one_waits(house):
    def flood(connection: Backend, _seen: Seen) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000)

    house.sessions[ALPHA].replies["/flood"] = flood
    with house.client() as stuck:
        stuck.send(request("GET", "/flood", {"Host": house.host(), "Cookie": house.cookie()}))
        stuck.head()
        for n in range(20):
            assert house.get(f"/{n}").json["target"] == f"/{n}"
