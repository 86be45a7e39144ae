"""The gateway forwards, streams and keeps alive."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.doors import ALPHA, Backend, House, Seen, request, websocket_key
from tests.waiting import until


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("h")) as opened:
        yield opened


@pytest.fixture
def alpha(house: House):
    return house.session(ALPHA)


def test_a_request_reaches_the_session_and_its_answer_comes_back(house, alpha):
    answer = house.get("/api/kernels?x=1&y=%20")
    assert (answer.status, answer.json["session"], answer.json["target"]) == (200, ALPHA, "/api/kernels?x=1&y=%20")


def test_the_session_sees_who_asked_and_the_token_of_its_own_server(house, alpha):
    answer = house.get("/", X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6", X_Real_IP="6.6.6.6", X_Other="kept")
    assert answer.sent("x-forwarded-for") == "127.0.0.1"
    assert answer.sent("x-forwarded-proto") == "http"
    assert answer.sent("x-forwarded-host") == answer.sent("host") == house.host()
    assert answer.sent("forwarded") is answer.sent("x-real-ip") is None
    assert answer.sent("x-other") == "kept"
    assert answer.sent("authorization") == f"token server-token-of-{ALPHA}"


def test_an_app_is_not_given_a_token_it_has_no_use_for(house):
    house.session(ALPHA, kind="app")
    assert house.get("/").sent("authorization") is None
    assert house.get("/", Authorization="Basic eDp5").sent("authorization") == "Basic eDp5"


def test_connections_are_kept_alive_on_both_sides(house, alpha):
    with house.client() as client:
        for n in range(20):
            client.send(request("GET", f"/{n}", {"Host": house.host(), "Cookie": house.cookie()}))
            assert client.answer().json["target"] == f"/{n}"
    assert len(alpha.connections) == 1


def test_requests_sent_ahead_are_answered_in_order(house, alpha):
    told = {"Host": house.host(), "Cookie": house.cookie()}
    with house.client() as client:
        client.send(b"".join(request("GET", f"/{n}", told) for n in range(30)))
        assert [client.answer().json["target"] for _ in range(30)] == [f"/{n}" for n in range(30)]


def test_requests_with_bodies_sent_ahead_are_answered_in_order(house, alpha):
    told = {"Host": house.host(), "Cookie": house.cookie()}
    one = request("POST", "/counted", {**told, "Content-Length": "5"}) + b"hello"
    other = (
        request("POST", "/chunked", {**told, "Transfer-Encoding": "chunked"})
        + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
    )
    with house.client() as client:
        client.send((one + other) * 5)
        seen = [(client.answer().json["body"], client.answer().json["body"]) for _ in range(5)]
    assert seen == [("hello", "abcde")] * 5


def test_a_request_that_comes_byte_by_byte(house, alpha):
    told = {"Host": house.host(), "Cookie": house.cookie(), "Transfer-Encoding": "chunked"}
    with house.client() as client:
        for byte in request("POST", "/slow", told) + b"3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n":
            client.send(bytes([byte]))
        assert client.answer().json["body"] == "abc0123456789abcdef"


@pytest.mark.parametrize("framed", [False, True], ids=["plain", "WebSocket"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_large_answer_arrives_whole(house, framing, framed):
    alpha = house.session(ALPHA, framed=framed)
    body = hashlib.sha256(b"x").digest() * 200_000
    heads = {
        "length": b"Content-Length: %d\r\n" % len(body),
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "close": b"Connection: close\r\n",
    }

    def reply(connection: Backend, _seen: Seen) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\n" + heads[framing] + b"\r\n")
        connection.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if framing == "chunked" else body)
        if framing == "close":
            connection.transport.close()

    alpha.replies["/big"] = reply
    assert house.get("/big").body == body
    assert house.get("/after").status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_sent_whole(house, alpha, chunked):
    size = 5_000_000
    told = {"Host": house.host(), "Cookie": house.cookie()}
    told |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
    with house.client() as client:
        client.send(request("PUT", "/up", told))
        client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"u" * size) if chunked else b"u" * size)
        assert client.answer().json["length"] == size


def test_a_browser_that_reads_slowly_slows_the_session(house, alpha):
    sent: list[int] = []

    def reply(connection: Backend, _seen: Seen) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000000\r\n\r\n")
        connection.transport.write(b"x" * 300_000_000)
        sent.append(1)

    alpha.replies["/flood"] = reply
    with house.client() as client:
        client.send(request("GET", "/flood", {"Host": house.host(), "Cookie": house.cookie()}))
        client.head()
        until(lambda: sent)
        until(lambda: any(connection._stalled for connection in house.doors.gateway.connections))
        buffered = house.at(lambda: max(c.transport.get_write_buffer_size() for c in house.doors.gateway.connections))
        assert buffered < 2_000_000
        assert alpha.connections[0].transport.get_write_buffer_size() > 200_000_000


def test_a_session_that_reads_slowly_slows_the_browser(house, alpha):
    size, got = 90_000_000, []
    house.get("/")  # now there is a kept stream

    def count(data: bytes) -> None:
        got.append(len(data))
        if sum(got) > size:
            alpha.connections[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    alpha.connections[0].spoken = count
    house.at(lambda: alpha.connections[0].transport.pause_reading())
    with house.client() as client:
        told = {"Host": house.host(), "Cookie": house.cookie(), "Content-Length": str(size)}
        client.send(request("POST", "/up", told))
        feeding = threading.Thread(target=lambda: client.send(b"u" * size), daemon=True)
        feeding.start()
        until(lambda: not house.at(lambda: all(c.transport.is_reading() for c in house.doors.gateway.connections)))
        assert feeding.is_alive()
        house.at(lambda: alpha.connections[0].transport.resume_reading())
        assert client.answer().body == b"ok"
        feeding.join(10)


def test_events_arrive_as_they_are_sent(house, alpha):
    def reply(connection: Backend, _seen: Seen) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        alpha.replies["more"] = lambda *_: connection.transport.write(b"data: 2\n\n")
        alpha.replies["end"] = lambda *_: connection.transport.close()

    alpha.replies["/events"] = reply
    with house.client() as client:
        client.send(request("GET", "/events", {"Host": house.host(), "Cookie": house.cookie()}))
        assert client.head().header("transfer-encoding") == "chunked"
        assert client.chunk() == b"data: 1\n\n"
        house.at(lambda: alpha.replies["more"](None, None))
        assert client.chunk() == b"data: 2\n\n"
        house.at(lambda: alpha.replies["end"](None, None))
        assert client.chunk() == b""


def test_a_websocket_is_spliced_both_ways(house, alpha):
    told = {
        "Host": house.host(),
        "Cookie": house.cookie(),
        "Origin": f"http://{house.host()}",
        "Sec-WebSocket-Key": websocket_key(),
    }
    with house.client() as client:
        client.send(request("GET", "/ws", {**told, "Connection": "keep-alive, Upgrade", "Upgrade": "websocket"}))
        answer = client.head()
        assert (answer.status, answer.header("upgrade"), answer.header("connection")) == (101, "websocket", "Upgrade")
        for n in range(100):
            client.send(b"%d" % n)
            assert client.until(b">") == b"<%d>" % n
        assert ALPHA in house.doors.gateway.activity
    until(lambda: len(alpha.lost) == 1, what="the session to hear that the browser left")


def test_a_websocket_that_the_session_refuses_is_answered(house, alpha):
    alpha.replies["/ws"] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    told = {"Host": house.host(), "Cookie": house.cookie(), "Origin": f"http://{house.host()}", "Connection": "Upgrade"}
    with house.client() as client:
        client.send(request("GET", "/ws", {**told, "Upgrade": "websocket"}) + b"GET /smuggled HTTP/1.1\r\n\r\n")
        assert client.answer().status == 404
        assert client.rest() == b""
    assert [seen.target for seen in alpha.requests] == ["/ws"]


def test_a_client_that_leaves_takes_its_request_with_it(house, alpha):
    alpha.replies["/hang"] = lambda *_: None
    with house.client() as client:
        client.send(request("GET", "/hang", {"Host": house.host(), "Cookie": house.cookie()}))
        until(lambda: alpha.requests)
    until(lambda: alpha.lost, what="the session's connection to end")


def test_a_session_that_dies_in_mid_answer_closes_the_browsers_connection(house, alpha):
    def reply(connection: Backend, _seen: Seen) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        connection.transport.close()

    alpha.replies["/half"] = reply
    with house.client() as client:
        client.send(request("GET", "/half", {"Host": house.host(), "Cookie": house.cookie()}))
        assert client.head().header("content-length") == "100"
        assert client.rest() == b"half"


def test_a_kept_stream_that_died_is_replaced_unseen(house, alpha):
    with house.client() as client:
        for n in range(5):
            client.send(request("GET", f"/{n}", {"Host": house.host(), "Cookie": house.cookie()}))
            assert client.answer().json["target"] == f"/{n}"
            house.at(lambda: alpha.connections[-1].transport.close())


def test_a_post_is_never_sent_twice(house, alpha):
    alpha.replies["/buy"] = lambda connection, _seen: connection.transport.abort()
    assert house.ask("POST", "/buy", b"x").status == 502
    assert len(alpha.requests) == 1


def test_a_get_that_kills_the_server_is_given_up(house, alpha):
    alpha.replies["/die"] = lambda connection, _seen: connection.transport.abort()
    assert house.get("/die", Accept="text/html").status == 502
    assert len(alpha.requests) <= 3


def test_expect_continue_is_passed_on(house, alpha):
    alpha.early["/up"] = b"HTTP/1.1 100 Continue\r\n\r\n"
    told = {"Host": house.host(), "Cookie": house.cookie(), "Content-Length": "4", "Expect": "100-continue"}
    with house.client() as client:
        client.send(request("POST", "/up", told))
        assert client.head().status == 100
        client.send(b"body")
        assert client.answer().json["body"] == "body"


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_answers_without_a_body_leave_the_connection_usable(house, alpha, reply):
    alpha.replies["/none"] = reply
    with house.client() as client:
        for _ in range(2):
            client.send(request("GET", "/none", {"Host": house.host(), "Cookie": house.cookie()}))
            assert client.answer().status in (200, 204, 304)
    assert len(alpha.connections) == 1


def test_head_is_answered_without_a_body(house, alpha):
    alpha.replies["/h"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    with house.client() as client:
        for _ in range(2):
            client.send(request("HEAD", "/h", {"Host": house.host(), "Cookie": house.cookie()}))
            assert client.answer("HEAD").header("content-length") == "5000"


def test_a_session_that_answers_before_the_body_is_sent_ends_the_connection(house, alpha):
    alpha.early["/full"] = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nfull"
    told = {"Host": house.host(), "Cookie": house.cookie(), "Content-Length": "1000"}
    with house.client() as client:
        client.send(request("POST", "/full", told) + b"some")
        answer = client.answer()
        assert (answer.status, answer.body, answer.header("connection")) == (413, b"full", "close")
        client.send(b"more" * 100)
        assert client.rest() == b""


def test_a_session_without_streams_is_waited_for(house, alpha, monkeypatch):
    monkeypatch.setattr("broker.gateway.connection.STREAM_SECONDS", 0.2)
    slow = house.session("cccccccccccc", tunnel=False)
    answer = house.get("/", session="cccccccccccc", Accept="text/html")
    assert (answer.status, answer.header("refresh")) == (503, "2")
    assert slow.requests == []


def test_a_table_out_of_reach_is_said_and_over_when_it_is_back(house):
    waiting = house.session(ALPHA, tunnel=False, state="starting")
    house.directory.fault = OSError("no table")
    assert house.get("/", Accept="text/html").status == 503
    with house.client() as client:
        told = {"Connection": "Upgrade", "Upgrade": "anybinder-tunnel", "X-Anybinder-Session": "zzzzzzzzzzzz"}
        client.send(request("GET", "/agent/tunnel", {"Host": f"127.0.0.1:{house.port}", **told}))
        assert client.answer().status == 503
    house.directory.fault = None
    house.directory.change(ALPHA, state="ready")
    house.dial(waiting)
    assert house.get("/").status == 200


def test_many_at_once_use_a_stream_each_and_share_none(house, alpha):
    clients = [house.client() for _ in range(40)]
    for n, client in enumerate(clients):
        client.send(request("GET", f"/{n}", {"Host": house.host(), "Cookie": house.cookie()}))
    for n, client in enumerate(clients):
        assert client.answer().json["target"] == f"/{n}"
        client.socket.close()


def test_an_old_client_gets_its_answer_and_the_end(house, alpha):
    with house.client() as client:
        client.send(f"GET /old HTTP/1.0\r\nHost: {house.host()}\r\nCookie: {house.cookie()}\r\n\r\n".encode())
        assert client.answer().json["target"] == "/old"
        assert client.rest() == b""


def test_the_server_stops_gracefully(house, alpha, tmp_path: Path):
    release: list[Backend] = []
    alpha.replies["/slow"] = lambda connection, _seen: release.append(connection)
    with house.client() as client, house.client() as idle:
        idle.send(request("GET", "/", {"Host": house.host(), "Cookie": house.cookie()}))
        idle.answer()
        client.send(request("GET", "/slow", {"Host": house.host(), "Cookie": house.cookie()}))
        until(lambda: release)
        house.uvicorn.should_exit = True
        assert idle.rest() == b""
        house.at(lambda: release[0].transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"))
        assert client.answer().body == b"done"
        house.thread.join(10)
        assert not house.thread.is_alive()
