"""API tokens: what one opens, for how long, and for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from broker import api_tokens, app, errors, people, sessions
from broker.models import ApiToken
from broker.web import deps
from tests.broker import guests, routes
from tests.broker.conftest import Bench, Clock

OWN = {"Origin": "http://localhost:8000"}
ADA = "ada0000000000000"


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(identities=(guests.IDENTITY,))


@pytest.fixture
def made(bench: Bench) -> FastAPI:
    guests.person(bench.at)
    return app.create(bench.at)


@pytest.fixture
def client(made: FastAPI) -> Iterator[TestClient]:
    """A script that shows nothing yet."""
    with TestClient(made, base_url="http://localhost:8000") as client:
        yield client


@pytest.fixture
def browser(made: FastAPI, bench: Bench) -> Iterator[TestClient]:
    """Ada's browser."""
    with TestClient(made, base_url="http://localhost:8000", headers=OWN) as client:
        client.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
        yield client


def token(bench: Bench, *scopes: str, **more: Any) -> str:
    return api_tokens.create(bench.at, people.of(ADA), name="t", scopes=scopes or ("read", "launch"), **more)[1]


def shown(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


# --- making and revoking --------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_kept_as_a_digest(browser: TestClient, bench: Bench) -> None:
    answer = browser.post("/api/tokens", json={"name": "nightly", "scopes": ["launch", "read"], "days": 3})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    text = answer.json()["token"]
    assert text.startswith("abt_")
    assert answer.json()["scopes"] == ["read", "launch"]
    assert text not in browser.get("/api/tokens").text
    with bench.at.db.reading() as session:
        row = session.scalars(sa.select(ApiToken)).one()
    assert row.digest == guests.digest(text)
    assert text not in str(vars(row))


def test_a_revoked_token_opens_nothing_at_once(browser: TestClient, client: TestClient) -> None:
    made = browser.post("/api/tokens", json={"name": "t", "scopes": ["read"]}).json()
    assert client.get("/api/me", headers=shown(made["token"])).json()["name"] == "Ada"
    for _ in range(2):
        assert browser.delete(f"/api/tokens/{made['id']}").status_code == 204
    assert client.get("/api/me", headers=shown(made["token"])).status_code == 401
    assert browser.get("/api/tokens").json() == []


def test_a_token_ends_when_it_says(client: TestClient, bench: Bench, clock: Clock) -> None:
    text = token(bench, days=2)
    clock.move(days=2, seconds=-1)
    assert client.get("/api/me", headers=shown(text)).status_code == 200
    clock.move(seconds=1)
    assert client.get("/api/me", headers=shown(text)).status_code == 401


def test_it_is_known_when_a_token_was_last_used(client: TestClient, bench: Bench, clock: Clock) -> None:
    text = token(bench)
    first = client.get("/api/tokens", headers=shown(text)).json()[0]
    assert first["used_at"] == clock().isoformat()
    clock.move(minutes=10)
    assert client.get("/api/tokens", headers=shown(text)).json()[0]["used_at"] == clock().isoformat()


@pytest.mark.parametrize("more", [{"scopes": []}, {"scopes": ["all"]}, {"scopes": ["read"], "days": 31}, {"days": 0}])
def test_a_token_that_may_not_be_is_refused(browser: TestClient, more: dict[str, Any]) -> None:
    answer = browser.post("/api/tokens", json={"name": "t", "scopes": ["read"], **more})
    assert answer.status_code in (400, 422)
    assert browser.get("/api/tokens").json() == []


def test_nobody_revokes_what_is_somebody_elses(browser: TestClient, bench: Bench) -> None:
    bob = people.of(guests.person(bench.at, "Bob"))
    theirs, text = api_tokens.create(bench.at, bob, name="t", scopes=["read"])
    assert browser.delete(f"/api/tokens/{theirs.id}").status_code == 404
    assert api_tokens.person_of(bench.at, text) is not None
    with pytest.raises(errors.NotSignedIn):
        api_tokens.create(bench.at, people.ANONYMOUS, name="t", scopes=["read"])


def test_a_token_revokes_itself_and_no_other(client: TestClient, bench: Bench) -> None:
    mine, other = token(bench, "read"), token(bench)
    ids = {one: client.get("/api/me", headers=shown(one)).json()["token"] for one in (mine, other)}
    assert client.delete(f"/api/tokens/{ids[other]}", headers=shown(mine)).status_code == 403
    assert client.delete(f"/api/tokens/{ids[mine]}", headers=shown(mine)).status_code == 204
    assert client.get("/api/me", headers=shown(mine)).status_code == 401
    assert client.get("/api/me", headers=shown(other)).status_code == 200


# --- what one opens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["abt_", "abt_wrong", "wrong", "abt_" + "x" * 5000, "abt_é"])
def test_a_token_that_is_none_gets_a_sentence(client: TestClient, text: str) -> None:
    answer = client.get("/api/launches", headers={"Authorization": f"Bearer {text}".encode()})
    assert answer.status_code == 401
    assert "wrong, has ended or was revoked" in answer.json()["detail"]


def test_a_token_in_an_address_is_none(client: TestClient, bench: Bench) -> None:
    text = token(bench)
    for name in ("token", "access_token", "key", "api_token", "authorization"):
        assert client.get("/api/launches", params={name: text}).status_code == 401


def test_a_token_in_a_cookie_or_as_a_password_is_none(client: TestClient, bench: Bench) -> None:
    text = token(bench)
    assert client.get("/api/launches", headers={"Cookie": f"anybinder-sign-in={text}"}).status_code == 401
    assert client.get("/api/launches", auth=("ada", text)).status_code == 401


def test_beside_a_wrong_token_no_cookie_counts(browser: TestClient) -> None:
    assert browser.get("/api/me").status_code == 200
    assert browser.get("/api/me", headers=shown("abt_wrong")).status_code == 401


READING = ("/api/me", "/api/launches", "/api/tokens", "/api/backends", "/sessions")


def test_who_may_read_may_not_launch(client: TestClient, bench: Bench) -> None:
    text = token(bench, "read")
    for path in READING:
        assert client.get(path, headers=shown(text)).status_code == 200, path
    wish = {"repo": bench.repo, "backend": "desk"}
    answer = client.post("/api/launches", json=wish, headers=shown(text))
    assert (answer.status_code, "launch" in answer.json()["detail"]) == (403, True)
    assert client.post("/launch", data=wish, headers=shown(text)).status_code == 403


def test_who_may_launch_may_not_read_unless_it_says_so(client: TestClient, bench: Bench) -> None:
    text = token(bench, "launch")
    answer = client.post("/api/launches", json={"repo": bench.repo, "backend": "desk"}, headers=shown(text))
    assert answer.status_code == 201
    for path in READING:
        assert client.get(path, headers=shown(text)).status_code == 403, path


def test_who_may_only_read_is_shown_no_way_into_a_session(client: TestClient, bench: Bench) -> None:
    both, read = token(bench), token(bench, "read")
    wish = {"repo": bench.repo, "backend": "desk"}
    launch = client.post("/api/launches", json=wish, headers=shown(both)).json()["id"]
    bench.run(bench.launch(launch))
    secret = sessions.launch_token(bench.at, launch)
    for path in (f"/api/launches/{launch}", "/api/launches", f"/api/launches/{launch}/events"):
        assert secret in client.get(path, headers=shown(both)).text, path
        assert secret not in client.get(path, headers=shown(read)).text, path
    entered = client.get(f"/launches/{launch}/open", headers=shown(read), follow_redirects=False)
    assert entered.status_code == 403
    assert (
        secret
        in client.get(f"/launches/{launch}/open", headers=shown(both), follow_redirects=False).headers["location"]
    )


def test_build_asks_for_the_right_to_launch(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(identities=(guests.IDENTITY,), binder_backend="desk")
    guests.person(bench.at)
    with TestClient(app.create(bench.at), base_url="http://localhost:8000") as client:
        headers = {**shown(token(bench, "read")), "Accept": "text/event-stream"}
        answer = client.get("/build/gh/o/r/HEAD", headers=headers)
    assert "lacks the scope" in answer.text


def test_no_token_does_what_is_for_the_person_alone(made: FastAPI, client: TestClient, bench: Bench) -> None:
    alone = routes.named(made, lambda route: routes.asks(route, deps.in_person, deps.at_home))
    assert {("POST", "/api/tokens"), ("POST", "/api/keys"), ("POST", "/api/reap"), ("GET", "/account"),
            ("POST", "/device/decide"), ("POST", "/account/tokens")} <= alone  # fmt: skip
    local = api_tokens.create(bench.at, people.LOCAL, name="t", scopes=list(api_tokens.SCOPES))[1]
    for text in (token(bench), local):
        for method, path in sorted(alone):
            answer = client.request(method, routes.filled(path), headers=shown(text))
            assert answer.status_code == 403, (method, path)


def test_only_whoever_runs_the_broker_signs_browsers_in_as_them(browser: TestClient) -> None:
    for path in ("/api/keys", "/api/reap"):
        assert browser.post(path).status_code == 403
    assert browser.get("/api/launches?everyone=true").status_code == 403
