"""Pages on other origins: what they may read of the hub, and how they use a session by its token and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker import app
from tests.broker.conftest import Bench
from tests.broker.doors import ALPHA, Answer, Backend, FakeSession, House, Seen, request, websocket_key
from tests.broker.streams import Stream

BOOK = "https://book.example"
NEVER = "access-control-allow-credentials"


# --- the hub ------------------------------------------------------------------------------------------------------------


def ask(bench: Bench, path: str, method: str = "GET", **told: str) -> Stream:
    with Stream(app.create(bench.at), path, method=method, **{"origin": BOOK, "accept": "*/*", **told}) as answer:
        assert answer.ended.wait(20)
    assert NEVER not in answer.headers
    return answer


@pytest.mark.parametrize("path", ["/build/nope/x", "/health", "/api/repoproviders", "/api/launches/aaaaaaaaaaaa"])
def test_what_clients_use_is_readable_where_the_operator_says_so(make_bench: Callable[..., Bench], path: str) -> None:
    assert "access-control-allow-origin" not in ask(make_bench(), path).headers
    assert ask(make_bench(cors_allow_origin="*"), path).headers["access-control-allow-origin"] == "*"
    one = ask(make_bench(cors_allow_origin=BOOK), path, origin="https://other.example").headers
    assert (one["access-control-allow-origin"], one["vary"].split(", ")[0]) == (BOOK, "origin")


@pytest.mark.parametrize("path", ["/versions", "/badge.svg", "/badge_logo.svg", "/assets/images/badge.svg"])
def test_public_files_are_readable_by_all(bench: Bench, path: str) -> None:
    headers = ask(bench, path).headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    "path", ["/", "/api/launches", "/api/keys", "/api/backends", "/sessions", "/launches/aaaaaaaaaaaa"]
)
def test_nothing_else_is_readable(make_bench: Callable[..., Bench], path: str) -> None:
    bench = make_bench(cors_allow_origin="*")
    for method in ("GET", "POST", "OPTIONS"):
        headers = ask(bench, path, method, access_control_request_method="GET").headers
        assert "access-control-allow-origin" not in headers
        assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_preflight_of_build_allows_what_clients_send(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(cors_allow_origin="*", rate_limit=1)
    for _ in range(3):  # and is not counted
        answer = ask(bench, "/build/gh/o/r/HEAD", "OPTIONS", access_control_request_method="GET")
        assert answer.status == 204
        allowed = answer.headers["access-control-allow-headers"].split(", ")
        assert {"cache-control", "authorization", "x-xsrftoken", "last-event-id"} <= set(allowed)
        assert answer.text == ""


def test_a_preflight_is_refused_where_nobody_is_allowed(bench: Bench) -> None:
    assert ask(bench, "/build/gh/o/r/HEAD", "OPTIONS", access_control_request_method="GET").status == 405


def test_a_page_ends_the_session_it_was_given(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(cors_allow_origin="*")
    answer = ask(bench, "/api/launches/aaaaaaaaaaaa", "OPTIONS", access_control_request_method="DELETE")
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]


def test_the_rate_limit_is_readable(make_bench: Callable[..., Bench]) -> None:
    answer = ask(make_bench(cors_allow_origin="*"), "/build/nope/x", accept="text/event-stream")
    assert "x-ratelimit-remaining" in answer.headers["access-control-expose-headers"]
    assert answer.headers["x-ratelimit-remaining"]


# --- a session ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["*", BOOK])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("h"), settings={"cors_allow_origin": request.param}) as opened:
        opened.session(ALPHA)
        opened.allows = request.param  # type: ignore[attr-defined]
        yield opened


@pytest.fixture
def alpha(house: House) -> FakeSession:
    house.sessions[ALPHA].requests.clear()
    house.sessions[ALPHA].replies.clear()
    return house.sessions[ALPHA]


def allowed(answer: Answer) -> str | None:
    assert answer.header(NEVER) is None
    return answer.header("access-control-allow-origin")


def test_a_preflight_is_answered_and_never_reaches_the_session(house: Any, alpha: FakeSession) -> None:
    told = {"Origin": BOOK, "Access_Control_Request_Method": "POST", "Sec_Fetch_Site": "cross-site"}
    for session in (ALPHA, "zzzzzzzzzzzz"):
        answer = house.ask("OPTIONS", "/api/kernels", session=session, cookie=False, **told)
        assert (answer.status, allowed(answer)) == (204, house.allows)
        assert answer.header("access-control-allow-headers") == "accept, content-type, authorization, x-xsrftoken"
        assert "POST" in answer.header("access-control-allow-methods")
    assert alpha.requests == []


def test_a_preflight_leaves_the_connection_usable(house: Any, alpha: FakeSession) -> None:
    told = {"Host": house.host(), "Origin": BOOK}
    with house.client() as client:
        client.send(
            request("OPTIONS", "/api", {**told, "Access-Control-Request-Method": "GET"})
            + request("GET", "/api", {**told, "Authorization": f"token {alpha.token}"})
        )
        assert client.answer("OPTIONS").status == 204
        assert client.answer().json["target"] == "/api"


def test_with_the_token_a_page_elsewhere_reads_the_answer(house: Any, alpha: FakeSession) -> None:
    by_query = house.get(f"/api?token={alpha.token}", cookie=False, Origin=BOOK, Sec_Fetch_Site="cross-site")
    by_header = house.ask("POST", "/api", b"{}", cookie=False, Origin=BOOK, Authorization=f"token {alpha.token}")
    assert [(answer.status, allowed(answer)) for answer in (by_query, by_header)] == [(200, house.allows)] * 2


def test_what_the_session_says_of_readers_is_replaced(house: Any, alpha: FakeSession) -> None:
    alpha.replies["/api"] = (
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil.example\r\n"
        b"Access-Control-Allow-Credentials: true\r\nX-Own: kept\r\nContent-Length: 2\r\n\r\nok"
    )
    answer = house.get("/api", cookie=False, Origin=BOOK, Authorization=f"token {alpha.token}")
    assert (allowed(answer), answer.header("x-own"), answer.body) == (house.allows, "kept", b"ok")


def test_a_stream_of_events_is_readable_too(house: Any, alpha: FakeSession) -> None:
    def reply(connection: Backend, _seen: Seen) -> None:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        connection.transport.close()

    alpha.replies["/events"] = reply
    answer = house.get(f"/events?token={alpha.token}", cookie=False, Origin=BOOK)
    assert (allowed(answer), answer.body) == (house.allows, b"data: 1\n\n")


def test_a_page_that_is_not_allowed_reads_nothing(house: Any, alpha: FakeSession) -> None:
    answer = house.get("/api", cookie=False, Origin="https://other.example", Authorization=f"token {alpha.token}")
    assert allowed(answer) == ("*" if house.allows == "*" else None)


@pytest.mark.parametrize("site", ["cross-site", "same-site", None])
def test_the_cookie_is_still_refused_to_pages_elsewhere(house: Any, alpha: FakeSession, site: str | None) -> None:
    told = {"Origin": BOOK, **({"Sec_Fetch_Site": site} if site else {})}
    for method in ("GET", "POST", "DELETE"):
        assert house.ask(method, "/api", **told).status == 403
    assert alpha.requests == []


def test_a_wrong_token_is_refused_and_the_page_may_know(house: Any, alpha: FakeSession) -> None:
    answer = house.get("/api", cookie=False, Origin=BOOK, Authorization="token wrong")
    assert (answer.status, allowed(answer)) == (403, house.allows)
    assert alpha.requests == []


def test_the_sessions_own_page_is_told_nothing_of_it(house: Any, alpha: FakeSession) -> None:
    answer = house.get("/api", Origin=f"http://{house.host()}", Sec_Fetch_Site="same-origin")
    assert (answer.status, allowed(answer)) == (200, None)
    assert house.ask("OPTIONS", "/api", Origin=f"http://{house.host()}").json["method"] == "OPTIONS"


def test_a_websocket_of_a_page_elsewhere_opens_with_the_token_alone(house: Any, alpha: FakeSession) -> None:
    told = {"Host": house.host(), "Origin": BOOK, "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Key": websocket_key()}  # fmt: skip
    with house.client() as client:
        client.send(request("GET", f"/ws?token={alpha.token}", told))
        assert client.head().status == 101
        client.send(b"hello")
        assert client.until(b">") == b"<hello>"
    with house.client() as client:
        client.send(request("GET", "/ws", {**told, "Cookie": house.cookie()}))
        assert client.answer().status == 403


def test_without_the_setting_nothing_is_allowed(tmp_path: Any) -> None:
    with House(tmp_path) as house:
        alpha = house.session(ALPHA)
        told = {"Origin": BOOK, "Access_Control_Request_Method": "POST"}
        assert house.ask("OPTIONS", "/api", cookie=False, **told).status == 403
        answer = house.get("/api", cookie=False, Origin=BOOK, Authorization=f"token {alpha.token}")
        assert (answer.status, allowed(answer)) == (200, None)
