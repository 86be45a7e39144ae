"""No page elsewhere changes anything with the cookie of somebody who is signed in, whatever route it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from broker import app, service, settings
from broker.web import deps
from tests.broker import guests, routes
from tests.broker.conftest import Bench

HERE = "http://localhost:8000"
WITHOUT_COOKIES = {
    ("POST", "/agent/enrol"): "an agent's one-time token",
    ("POST", "/agent/report"): "an agent's token",
    ("POST", "/api/device"): "nothing: it only begins to wait for a person",
    ("POST", "/api/device/token"): "the code that it was given",
    ("POST", "/login/{provider}/backchannel"): "a token that the identity provider has signed",
}
"""What changes something and is asked by programs without a page, and what they show. No cookie counts there."""
ELSEWHERE: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:8001"},
    {"Origin": "https://localhost:8000.evil.example"},
    {"Origin": "http://abcdefghijkl.localhost:8000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example", "Authorization": "Basic YTpi"},
    {"Referer": f"{HERE}/account"},
)


@pytest.fixture
def made(make_bench: Callable[..., Bench]) -> FastAPI:
    return app.create(make_bench(identities=(guests.IDENTITY, guests.OTHER), binder_backend="desk").at)


@pytest.fixture
def browser(made: FastAPI) -> Iterator[TestClient]:
    """With both cookies there are."""
    at: service.Service = made.state.service
    with TestClient(made, base_url=HERE, follow_redirects=False, raise_server_exceptions=False) as client:
        client.cookies.set("anybinder-sign-in", guests.cookie(at))
        client.cookies.set("anybinder", made.state.door.cookie())
        yield client


def changing(made: FastAPI) -> list[tuple[str, str]]:
    return sorted(each for each in routes.named(made) if each[0] in routes.CHANGING)


def test_every_route_that_changes_something_refuses_another_origin(browser: TestClient, made: FastAPI) -> None:
    found = [each for each in changing(made) if each not in WITHOUT_COOKIES]
    assert len(found) > 15
    for method, path in found:
        for headers in ELSEWHERE:
            answer = browser.request(method, routes.filled(path), headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (403, "origin"), (method, path, headers)


def test_the_same_from_our_own_page_is_heard(browser: TestClient, made: FastAPI) -> None:
    for method, path in changing(made):
        if (method, path) not in WITHOUT_COOKIES and "sign-ins" not in path and path != "/logout":
            answer = browser.request(method, routes.filled(path), headers={"Origin": HERE})
            assert '"reason":"origin"' not in answer.text.replace(" ", ""), (method, path)


@pytest.mark.parametrize(("method", "path"), WITHOUT_COOKIES)
def test_what_needs_no_cookie_is_there_and_does_nothing_for_one(
    browser: TestClient, made: FastAPI, method: str, path: str
) -> None:
    assert (method, path) in changing(made)
    route = next(each for each in routes.of(made) if each.path == path)
    assert not routes.asks(route, deps.person, deps.in_person, deps.visitor)
    answer = browser.request(method, routes.filled(path).replace("provider", "campus"))
    assert answer.status_code in (200, 400, 401, 403, 422)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/api/device", "/api/device/token"])
def test_a_page_elsewhere_begins_nothing_either(browser: TestClient, path: str) -> None:
    for headers in ELSEWHERE:
        if {"Origin", "Sec-Fetch-Site"} & headers.keys():
            assert browser.post(path, data={"device_code": "x"}, headers=headers).status_code == 403, headers


def test_no_cookie_counts_beside_a_token_that_is_none(browser: TestClient, made: FastAPI) -> None:
    """A page may send any such header to its own site only; even so it gains nothing by it."""
    for method, path in changing(made):
        route = next(each for each in routes.of(made) if each.path == path and method in (each.methods or ()))
        if routes.asks(route, deps.person, deps.in_person, deps.visitor):
            answer = browser.request(method, routes.filled(path), headers={"Authorization": "Bearer x"})
            assert answer.status_code == 401, (method, path)


def test_reading_changes_nothing(browser: TestClient, made: FastAPI) -> None:
    """A GET that ends, revokes, makes or decides something would be one that a picture on any page can ask for."""
    telling = ("stop", "end", "revoke", "decide", "unlink", "remove", "logout")
    reading = {path for method, path in routes.named(made) if method in ("GET", "HEAD")}
    assert [path for path in reading if path.rstrip("/").rpartition("/")[2] in telling] == []


# --- cookies --------------------------------------------------------------------------------------------------------


def served(home: Any) -> settings.Settings:
    return settings.Settings(
        home=home, public_url="https://hub.example", session_domain="sessions.example", identities=(guests.IDENTITY,)
    )


def test_behind_https_a_page_in_clear_text_is_another(home: Any) -> None:
    """Whoever is on the way to the browser can make one up under the same name."""
    at = service.build(served(home))
    try:
        with TestClient(app.create(at), base_url="https://hub.example", follow_redirects=False) as client:
            client.cookies.set("__Host-anybinder", guests.cookie(at))
            for scheme, status in (("http", 403), ("https", 303)):
                sent = {"Origin": f"{scheme}://hub.example"}
                answer = client.post("/account/sign-ins/end-elsewhere", headers=sent)
                assert answer.status_code == status
    finally:
        at.close()


def attributes(header: str) -> set[str]:
    return {part.strip().lower() for part in header.split(";")[1:]}


def test_the_cookie_of_this_computer_is_for_this_host_and_no_script(made: FastAPI) -> None:
    with TestClient(made, base_url=HERE, follow_redirects=False) as client:
        header = client.get("/", params={"key": made.state.door.new_key()}).headers["set-cookie"]
    assert header.startswith("anybinder=")
    assert {"httponly", "samesite=lax", "path=/"} <= attributes(header)
    assert not any(part.startswith("domain") for part in attributes(header))


def test_behind_https_every_cookie_is_bound_to_its_host_and_to_https(home: Any) -> None:
    at = service.build(served(home))
    try:
        made = app.create(at)
        assert deps.sign_in_cookie(at.settings) == "__Host-anybinder"
        with TestClient(made, base_url="https://hub.example", follow_redirects=False) as client:
            secret = guests.cookie(at)
            header = client.get("/", params={"key": made.state.door.new_key()}).headers["set-cookie"]
            assert header.startswith("__Host-anybinder-key=")
            assert {"httponly", "samesite=lax", "path=/", "secure"} <= attributes(header)
            assert client.get("/api/me").json()["local"] is True
            client.cookies.clear()
            client.cookies.set("__Host-anybinder", secret)
            assert client.get("/api/me").json()["name"] == "Ada"
            out = client.post("/account/sign-ins/end-all", headers={"Origin": "https://hub.example"})
            assert out.headers["set-cookie"].startswith("__Host-anybinder=")
            assert {"httponly", "samesite=lax", "path=/", "secure"} <= attributes(out.headers["set-cookie"])
    finally:
        at.close()


def test_without_https_no_cookie_of_it_is_taken_for_one(made: FastAPI) -> None:
    secret = guests.cookie(made.state.service)
    with TestClient(made, base_url=HERE) as client:
        client.cookies.set("__Host-anybinder", secret)
        assert client.get("/api/me").status_code == 401
