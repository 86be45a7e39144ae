"""Letting a command line in, by RFC 8628: who may, how often, and once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import strategies as st

from broker import api_tokens, app, crypto, devices, people
from broker.models import ApiToken, DeviceLogin
from broker.web import account
from tests.broker import guests
from tests.broker.conftest import Bench, Clock

HERE = "http://localhost:8000"


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(identities=(guests.IDENTITY,))


@pytest.fixture
def browser(bench: Bench) -> Iterator[TestClient]:
    """Ada's."""
    with TestClient(app.create(bench.at), base_url=HERE, headers={"Origin": HERE}) as client:
        client.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
        yield client


@pytest.fixture
def line(browser: TestClient) -> Iterator[TestClient]:
    """A command line that shows nothing."""
    with TestClient(browser.app, base_url=HERE) as client:
        yield client


def begin(line: TestClient, **more: str) -> dict[str, Any]:
    answer = line.post("/api/device", data={"name": "laptop", **more})
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    return dict(answer.json())


def poll(
    line: TestClient, begun: dict[str, Any], clock: Clock | None = None, **more: str
) -> tuple[int, dict[str, Any]]:
    if clock:
        clock.move(seconds=begun["interval"])
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    answer = line.post("/api/device/token", data={"device_code": begun["device_code"], "grant_type": grant, **more})
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()


def decide(browser: TestClient, begun: dict[str, Any], answer: str = "yes") -> Any:
    return browser.post("/device/decide", data={"code": begun["user_code"], "let_in": answer})


# --- the way it goes ------------------------------------------------------------------------------------------------


def test_who_is_let_in_gets_a_token_once(line: TestClient, browser: TestClient, clock: Clock) -> None:
    begun = begin(line, scope="read")
    assert begun["verification_uri"] == f"{HERE}/device"
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", begun["user_code"])
    assert poll(line, begun, clock)[1]["error"] == "authorization_pending"
    assert decide(browser, begun).status_code == 200
    status, told = poll(line, begun, clock)
    assert (status, told["token_type"], told["scope"]) == (200, "Bearer", "read")
    assert told["expires_in"] == 30 * 24 * 3600
    me = line.get("/api/me", headers={"Authorization": f"Bearer {told['access_token']}"}).json()
    assert (me["name"], me["scopes"], me["token"]) == ("Ada", ["read"], told["token_id"])
    assert poll(line, begun, clock)[1]["error"] == "invalid_grant"
    assert [one["name"] for one in browser.get("/api/tokens").json()] == ["laptop"]


def test_who_is_refused_gets_nothing(line: TestClient, browser: TestClient, clock: Clock) -> None:
    begun = begin(line)
    assert "refused" in decide(browser, begun, "no").text
    status, told = poll(line, begun, clock)
    assert (status, told["error"], told["reason"]) == (400, "access_denied", "access_denied")
    assert decide(browser, begun).status_code == 400
    assert browser.get("/api/tokens").json() == []


def test_nothing_but_the_word_yes_lets_in(line: TestClient, browser: TestClient, clock: Clock) -> None:
    begun = begin(line)
    decide(browser, begun, "")
    assert poll(line, begun, clock)[1]["error"] == "access_denied"


def test_who_asks_too_often_is_told_to_slow_down(line: TestClient, clock: Clock) -> None:
    begun = begin(line)
    assert poll(line, begun)[1]["error"] == "authorization_pending"
    assert poll(line, begun)[1]["error"] == "slow_down"
    clock.move(seconds=5)
    assert poll(line, begun)[1]["error"] == "authorization_pending"


def test_a_code_that_nobody_typed_in_time_is_over(line: TestClient, browser: TestClient, clock: Clock) -> None:
    begun = begin(line)
    clock.move(seconds=begun["expires_in"])
    assert poll(line, begun)[1]["error"] == "expired_token"
    assert decide(browser, begun).status_code == 400


def test_one_that_was_let_in_and_never_came_is_over_too(line: TestClient, browser: TestClient, clock: Clock) -> None:
    begun = begin(line)
    decide(browser, begun)
    clock.move(minutes=16)
    assert poll(line, begun)[1]["error"] == "expired_token"


@pytest.mark.parametrize("code", ["", "x", "é", "x" * 200])
def test_a_code_that_is_none_is_no_grant(line: TestClient, code: str) -> None:
    assert poll(line, {"device_code": code})[0] in (400, 422)


def test_only_this_kind_of_grant_is_taken(line: TestClient) -> None:
    assert poll(line, begin(line), grant_type="password")[1]["error"] == "unsupported_grant_type"


def test_of_many_who_come_with_one_code_one_gets_a_token(line: TestClient, browser: TestClient, bench: Bench) -> None:
    begun = begin(line)
    decide(browser, begun)
    together = threading.Barrier(8)

    def collect(_: int) -> str:
        together.wait()
        try:
            return devices.collect(bench.at, begun["device_code"])[0].id
        except (devices.Unknown, devices.TooSoon):
            return ""

    with ThreadPoolExecutor(8) as threads:
        got = [one for one in threads.map(collect, range(8)) if one]
    with bench.at.db.reading() as session:
        assert got == list(session.scalars(sa.select(ApiToken.id)))
    assert len(got) <= 1


# --- what the person sees -------------------------------------------------------------------------------------------


def test_the_person_sees_who_asks_for_what_since_when(line: TestClient, browser: TestClient, clock: Clock) -> None:
    begun = begin(line, name="<b>Grace's</b>\n laptop", scope="launch")
    shown = browser.post("/device", data={"code": begun["user_code"].lower().replace("-", " ")})
    assert shown.status_code == 200
    assert "&lt;b&gt;Grace&#39;s&lt;/b&gt; laptop" in shown.text
    assert api_tokens.SCOPES["launch"] in shown.text
    assert api_tokens.SCOPES["read"] not in shown.text
    assert clock().isoformat() in shown.text
    assert "Only if you started this yourself" in shown.text
    assert poll(line, begun, clock)[1]["error"] == "authorization_pending"  # looking lets nobody in


def test_a_wrong_code_is_said_beside_it(browser: TestClient) -> None:
    answer = browser.post("/device", data={"code": "BBBB-BBBB"})
    assert (answer.status_code, 'role="alert"' in answer.text) == (400, True)


def test_no_address_carries_a_code(line: TestClient, browser: TestClient) -> None:
    begun = begin(line)
    assert "verification_uri_complete" not in begun
    assert browser.get("/device", params={"code": begun["user_code"]}).text.count(begun["user_code"]) == 0


def test_guessing_codes_ends_soon(line: TestClient, browser: TestClient) -> None:
    begun = begin(line)
    said = [browser.post("/device", data={"code": "BBBB-BBBB"}).status_code for _ in range(account.GUESSES + 1)]
    assert said == [400] * account.GUESSES + [429]
    assert browser.post("/device", data={"code": begun["user_code"]}).status_code == 429
    assert decide(browser, begun).status_code == 429


def test_whoever_is_not_signed_in_lets_nobody_in(line: TestClient, bench: Bench, clock: Clock) -> None:
    begun = begin(line)
    line.headers["Origin"] = HERE
    for path in ("/device", "/device/decide"):
        assert line.post(path, data={"code": begun["user_code"], "let_in": "yes"}).status_code == 401
    del line.headers["Origin"]
    assert poll(line, begun, clock)[1]["error"] == "authorization_pending"


def test_one_network_has_so_many_waiting_and_no_more(bench: Bench, clock: Clock) -> None:
    for _ in range(devices.OPEN_MOST):
        devices.begin(bench.at, name="x", scopes=["read"], asked_from="192.0.2.1")
    with pytest.raises(devices.TooMany):
        devices.begin(bench.at, name="x", scopes=["read"], asked_from="192.0.2.1")
    devices.begin(bench.at, name="x", scopes=["read"], asked_from="192.0.2.2")
    clock.move(minutes=31)
    devices.begin(bench.at, name="x", scopes=["read"], asked_from="192.0.2.1")
    with bench.at.db.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(DeviceLogin)) == 1


def test_the_table_holds_no_code_and_no_address(bench: Bench) -> None:
    begun = devices.begin(bench.at, name="x", scopes=["read"], asked_from="192.0.2.77")
    with bench.at.db.reading() as session:
        row = str(vars(session.scalars(sa.select(DeviceLogin)).one()))
    for secret in (begun.device_code, begun.user_code, begun.user_code.replace("-", ""), "192.0.2.77"):
        assert secret not in row
    assert begun.device_code not in repr(begun)
    assert begun.user_code not in repr(begun)


def test_the_one_local_person_lets_their_command_line_in_too(bench: Bench) -> None:
    begun = devices.begin(bench.at, name="x", scopes=["read"], asked_from="here")
    devices.decide(bench.at, people.LOCAL, begun.user_code, let_in=True)
    token, text = devices.collect(bench.at, begun.device_code)
    found = api_tokens.person_of(bench.at, text)
    assert found is not None
    assert (found.id, found.scopes, token.digest) == ("local", frozenset({"read"}), crypto.digest(text))


@pytest.mark.parametrize("scope", ["", "all", "read all", "admin"])
def test_what_no_token_may_do_is_not_asked_for(line: TestClient, scope: str) -> None:
    answer = line.post("/api/device", data={"name": "x", "scope": scope or " "})
    assert answer.status_code == 400


@hypothesis.given(st.text(max_size=200))
@hypothesis.settings(deadline=None, derandomize=True)
def test_a_computer_may_call_itself_anything(name: str) -> None:
    shown = devices.shown_name(name)
    assert 0 < len(shown) <= 64
    assert shown.isprintable()


def test_on_postgresql_of_many_at_once_one_gets_a_token(make_bench: Callable[..., Bench], postgres_url: str) -> None:
    at = make_bench(database_url=postgres_url).at
    begun = devices.begin(at, name="x", scopes=["read"], asked_from="here")
    with pytest.raises(devices.Waiting):
        devices.collect(at, begun.device_code)
    devices.decide(at, people.LOCAL, begun.user_code, let_in=True)
    with at.db.transaction() as session:
        session.execute(sa.update(DeviceLogin).values(polled_at=None))
    together = threading.Barrier(6)

    def collect(_: int) -> int:
        together.wait()
        try:
            return len([devices.collect(at, begun.device_code)])
        except (devices.Unknown, devices.TooSoon):
            return 0

    with ThreadPoolExecutor(6) as threads:
        got = sum(threads.map(collect, range(6)))
    assert got <= 1
    assert len(api_tokens.of(at, people.LOCAL)) == got
    for token in api_tokens.of(at, people.LOCAL):
        api_tokens.revoke(at, people.LOCAL, token.id)
        api_tokens.revoke(at, people.LOCAL, token.id)
    assert api_tokens.of(at, people.LOCAL) == []
