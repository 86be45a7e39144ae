"""The JSON interface, and who may use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import app, bootstrap, launches, people, sessions, wishes
from tests.broker.conftest import AGENT, Bench

OWN = {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    """Somebody who holds the key of the state folder."""
    made = TestClient(app.create(bench.at), base_url="http://localhost:8000", raise_server_exceptions=False)
    made.headers["Authorization"] = f"Bearer {made.app.state.door.bearer}"  # type: ignore[attr-defined]
    with made:
        yield made


@pytest.fixture
def browser(bench: Bench) -> Iterator[TestClient]:
    """Somebody's browser, with the cookie and no key."""
    made = TestClient(app.create(bench.at), base_url="http://localhost:8000", raise_server_exceptions=False)
    made.cookies.set("anybinder", made.app.state.door.cookie())  # type: ignore[attr-defined]
    with made:
        yield made


def wish(bench: Bench, **more: Any) -> dict[str, Any]:
    return {"repo": bench.repo, "backend": "desk", **more}


def data(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


# --- what it does ---------------------------------------------------------------------------------------------------


def test_a_launch_is_created_then_reconnected(client: TestClient, bench: Bench) -> None:
    first = client.post("/api/launches", json=wish(bench, name="a"))
    again = client.post("/api/launches", json=wish(bench, name="a"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]


def test_a_plain_size_says_what_no_exact_figure_says(client: TestClient, bench: Bench) -> None:
    medium = client.post("/api/launches", json=wish(bench, name="a", size="medium", memory="3G")).json()
    assert (medium["cpu"], medium["memory_mb"]) == (2, 3072)
    refused = client.post("/api/launches", json=wish(bench, name="b", size="<b>"))
    assert (refused.status_code, refused.json()["reason"]) == (400, "bad_request")
    assert "There are: small, medium, large." in refused.json()["detail"]


def test_the_way_in_is_shown_only_while_it_is_ready(client: TestClient, bench: Bench) -> None:
    launch = bench.ready()
    shown = client.get(f"/api/launches/{launch.id}").json()
    assert shown["url"] == f"http://127.0.0.1:8000/s/{launch.id}/"
    assert shown["token"] == sessions.launch_token(bench.at, launch.id)
    client.delete(f"/api/launches/{launch.id}")
    assert "token" not in client.get(f"/api/launches/{launch.id}").json()


def test_events_resume_by_last_event_id(client: TestClient, bench: Bench) -> None:
    launch = bench.ready()
    whole = data(client.get(f"/api/launches/{launch.id}/events").text)
    rest = data(client.get(f"/api/launches/{launch.id}/events", headers={"Last-Event-ID": "2"}).text)
    assert rest == whole[2:]
    assert (whole[-1]["phase"], whole[-1]["launch"]) == ("ready", launch.id)
    assert whole[-1]["token"]


def test_whoever_has_seen_all_is_told_not_to_come_back(client: TestClient, bench: Bench) -> None:
    launch = bench.ready()
    last = str(len(bench.said(launch)))
    assert client.get(f"/api/launches/{launch.id}/events", headers={"Last-Event-ID": last}).status_code == 204


def test_events_as_a_list_carry_no_token(client: TestClient, bench: Bench) -> None:
    launch = bench.ready()
    listed = client.get(f"/api/launches/{launch.id}/events", headers={"Accept": "application/json"})
    assert listed.json()[-1]["phase"] == "ready"
    assert sessions.launch_token(bench.at, launch.id) not in listed.text


def test_resolving_starts_nothing(client: TestClient, bench: Bench) -> None:
    found = client.get("/api/resolve", params={"repo": bench.repo}).json()
    assert len(found["commit"]) == 40
    assert client.get("/api/launches").json() == []


def test_health_and_metrics_answer_without_a_key(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.get("/health").json()["ok"] is True
    assert "anybinder_launch_seconds" in client.get("/metrics").text


# --- bad input ------------------------------------------------------------------------------------------------------


def test_what_was_typed_wrong_is_told_without_a_word_for_programmers(client: TestClient) -> None:
    told = client.post("/api/launches", json={"repo": "gh/o/r", "budget": "abc"}).json()["detail"]
    assert (
        told
        == "That cannot be used: budget: “abc” is no budget. Write it like 2.50, or like 500 SU where service units are counted."
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"repo": ""}, 422),
        ({"repo": "x" * 3000}, 422),
        ({"repo": "gh/o/r", "nonsense": 1}, 422),
        ({"repo": "gh/o/r", "name": "a/b"}, 422),
        ({"repo": "gh/o/r", "hours": -1}, 422),
        ({"repo": "not a repository"}, 400),
        ({"repo": "file:///etc"}, 400),
        ({"repo": "http://127.0.0.1:9/x"}, 502),
    ],
)
def test_bad_input_gets_a_sentence(client: TestClient, body: dict[str, Any], status: int) -> None:
    answer = client.post("/api/launches", json=body)
    assert answer.status_code == status
    assert len(answer.json()["detail"]) > 20
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/api/launches/nosuchlaunch", "/api/launches/nosuchlaunch/events", "/api/nothing"])
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["detail"]


def test_a_fault_of_our_own_shows_a_reference_and_nothing_else(
    client: TestClient, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(launches, "listed", broken)
    answer = client.get("/api/launches")
    assert answer.status_code == 500
    assert "reference" in answer.json()["detail"]
    assert "canary" not in answer.text


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/launches"),
        ("POST", "/api/launches"),
        ("GET", "/api/launches/x"),
        ("DELETE", "/api/launches/x"),
        ("GET", "/api/launches/x/events"),
        ("GET", "/api/resolve?repo=gh/o/r"),
        ("GET", "/api/backends"),
        ("GET", "/api/running"),
        ("POST", "/api/keys"),
        ("POST", "/api/reap"),
    ],
)
@pytest.mark.parametrize("key", ["", "Bearer wrong", "Bearer ", "token 0"])
def test_nothing_is_answered_without_the_key(client: TestClient, method: str, path: str, key: str) -> None:
    client.headers["Authorization"] = key
    answer = client.request(method, path, json={"repo": "gh/o/r"} if method == "POST" else None, headers=OWN)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://abcdefghijkl.localhost:8000"},
        {"Origin": "http://localhost:8001"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://evil.example", "Authorization": "Basic YTpi"},
        {},
    ],
)
def test_another_page_with_the_persons_cookie_starts_nothing(
    browser: TestClient, bench: Bench, headers: dict[str, str]
) -> None:
    answer = browser.post("/api/launches", json=wish(bench), headers=headers)
    assert answer.status_code == 403
    assert browser.get("/api/launches").json() == []


def test_our_own_page_with_the_cookie_may(browser: TestClient, bench: Bench) -> None:
    assert browser.post("/api/launches", json=wish(bench), headers=OWN).status_code == 201


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost", "localhost:8001", "localhost.evil.example:8000", "", "127.0.0.1",
     "user@localhost:8000", "localhost:8000.evil.example", "abcdefghijkl.localhost:8000", "LOCALHOST.:8000"],
)  # fmt: skip
def test_a_host_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/api/launches", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.headers["connection"] == "close"


def test_a_cookie_is_not_honoured_beside_the_paths_of_sessions(browser: TestClient) -> None:
    assert browser.get("/api/launches", headers={"Host": "127.0.0.1:8000"}).status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "9999999999.", "9999999999.00", "1.x", "..", "٣.x"])
def test_a_forged_cookie_is_refused(browser: TestClient, cookie: str) -> None:
    browser.cookies.clear()
    answer = browser.get("/api/launches", headers={"Cookie": f"anybinder={cookie}".encode()})
    assert answer.status_code == 401


def test_a_sign_in_key_works_once(client: TestClient) -> None:
    door = client.app.state.door  # type: ignore[attr-defined]
    key = door.new_key()
    assert (door.spend(key), door.spend(key), door.spend("other")) == (True, False, False)


def test_every_answer_carries_the_headers_that_keep_others_out(client: TestClient) -> None:
    headers = client.get("/api/launches").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


# --- agents ---------------------------------------------------------------------------------------------------------


def test_an_agent_needs_its_token(client: TestClient, bench: Bench) -> None:
    launch = bench.advance(bench.request())
    order = bench.order(launch)
    body = {"order": order.id, "agent": AGENT, "nonce": "00"}
    assert client.post("/agent/enrol", json=body, headers={"Authorization": "Bearer x"}).status_code == 403
    token = bootstrap.enrolment_token(bench.at, order.id)
    assert client.post("/agent/enrol", json=body, headers={"Authorization": f"Bearer {token}"}).status_code == 200
    report = {"order": order.id, "first": 1}
    assert client.post("/agent/report", json=report, headers={"Authorization": "Bearer x"}).status_code == 403
    assert client.post("/agent/report", json=report, headers={"Authorization": f"Bearer {AGENT}"}).status_code == 200


def test_whoever_runs_the_broker_sees_and_ends_what_visitors_launched_and_does_not_enter(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(binder_backend="desk")
    launch = bench.run(launches.request(bench.at, people.ANONYMOUS, wishes.Wish(repo=bench.repo))[0])
    made = app.create(bench.at)
    with TestClient(made, base_url="http://localhost:8000") as operator:
        operator.headers["Authorization"] = f"Bearer {made.state.door.bearer}"
        assert operator.get("/api/launches").json() == []
        (seen,) = operator.get("/api/launches?everyone=true").json()
        assert (seen["id"], seen["person"], seen["state"]) == (launch.id, "anonymous", "ready")
        told = [seen, operator.get(f"/api/launches/{launch.id}").json()]
        told += data(operator.get(f"/api/launches/{launch.id}/events").text)
        assert not any({"token", "url", "browser_url"} & set(one) for one in told)
        assert operator.get(f"/launches/{launch.id}/open", follow_redirects=False).status_code == 404
        assert operator.delete(f"/api/launches/{launch.id}").status_code == 202
        operator.headers["Authorization"] = f"Bearer {sessions.launch_token(bench.at, launch.id)}"
        assert operator.get("/api/launches?everyone=true").status_code == 401
