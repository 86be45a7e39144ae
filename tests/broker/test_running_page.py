"""“What am I paying for right now, everywhere?”: the page and its JSON, from the clouds' own lists."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from broker import app, connections, holdings, launches, people, uses, wishes
from broker.models import Event, Launch, Order
from providers import base
from providers.errors import BadCredential, ProviderUnavailable
from providers.fake.driver import KINDS
from tests.broker import guests
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud
from tests.waiting import until

HERE = "http://localhost:8000"
ADA, KEY = "ada0000000000000", "a-key-of-adas-own"


class Lent(DeskCloud):
    """A cloud on the desk that people bring their own accounts to. It keeps what each sign-in was for."""

    kinds = (KINDS["kept"],)

    def instances(self, credential: base.Credential, broker: str) -> list[base.Instance]:
        found = super().instances(credential, broker)
        return [replace(each, parts=("disk-1", "address-1"), created_at=each.created_at) for each in found]


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Iterator[Bench]:
    yield make_bench(Lent(), identities=(guests.IDENTITY,), sign_in_idle_hours=24)
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("round-")], seconds=10)


@pytest.fixture
def ada(bench: Bench) -> TestClient:
    client = TestClient(app.create(bench.at), base_url=HERE, headers={"Origin": HERE, "Accept": "text/html"})
    client.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
    return client


def connect(bench: Bench, who: str = ADA) -> None:
    kinds = Lent.kinds
    connections.connect(bench.at, people.known(bench.at, who), "backend:desk", kinds, "kept", {"key": KEY})


@pytest.fixture
def running(bench: Bench, ada: TestClient) -> Launch:
    """A session of Ada's, in her own account."""
    connect(bench)
    wish = wishes.Wish(repo=bench.repo, backend="desk", name="mine")
    return bench.run(launches.request(bench.at, people.known(bench.at, ADA), wish)[0])


def words(page: str) -> str:
    shown = re.sub(r"<[^>]+>", " ", page[page.index("<main") : page.index("</main>")])
    return " ".join(shown.split())


def told(ada: TestClient, query: str = "") -> dict[str, Any]:
    return ada.get(f"/api/running{query}").raise_for_status().json()


def test_the_page_is_there_at_once_and_asks_no_cloud(
    ada: TestClient, bench: Bench, running: Launch, clock: Clock
) -> None:
    bench.cloud.calls.clear()
    clock.move(hours=2)
    said = words(ada.get("/running").text)
    assert bench.cloud.calls == []
    assert "$0.50 an hour, $1.00 so far" in said
    assert "By what this hub wrote down, until the clouds have answered" in said
    assert "mine" in said


def test_without_a_script_each_cloud_is_asked_by_its_link(ada: TestClient, bench: Bench, running: Launch) -> None:
    page = ada.get("/running").text
    assert 'href="/running?look=desk"' in page
    bench.cloud.calls.clear()
    said = words(ada.get("/running?look=desk").text)
    assert "instances" in bench.cloud.calls
    assert "As its cloud lists it now" in said
    assert "with disk-1" in said
    assert "By the clouds’ own lists" in said


def test_it_is_what_the_cloud_lists_and_not_what_the_table_says(
    ada: TestClient, bench: Bench, running: Launch, clock: Clock
) -> None:
    """A machine that nobody remembers is shown with what becomes of it; one that is gone is not."""
    (mine,) = bench.cloud.instances_by_order.values()
    until_ = clock() + dt.timedelta(hours=1)
    tag = base.Tag(broker=bench.at.keys.broker_id, launch="gone", order="stray", until=until_)
    bench.cloud.instances_by_order["stray"] = base.Instance(
        id="i-stray", tag=tag, state=base.InstanceState.RUNNING, created_at=clock()
    )
    things = {thing["instance"]: thing for thing in told(ada)["places"][0]["things"]}
    assert set(things) == {mine.id, "i-stray"}
    assert (things[mine.id]["launch"], things[mine.id]["verdict"]) == (running.id, "wanted")
    assert (things["i-stray"]["launch"], things["i-stray"]["price_per_hour"]) == (None, None)
    assert things["i-stray"]["fate"] == "No launch of yours knows this."
    assert things["i-stray"]["ends_at"] == (until_ + dt.timedelta(minutes=2)).isoformat()
    assert told(ada)["unpriced"] == 1
    assert "1 without a known price" in words(ada.get("/running?look=desk").text)
    bench.cloud.ends()
    assert told(ada)["places"][0]["things"] == []
    assert "Nothing is there" in words(ada.get("/running?look=desk").text)


def test_after_the_table_was_lost_it_is_still_shown(ada: TestClient, bench: Bench, running: Launch) -> None:
    with bench.at.db.transaction() as session:
        for table in (Event, Order, Launch):
            session.execute(sa.delete(table))
    said = words(ada.get("/running?look=desk").text)
    assert "No launch of yours knows this." in said
    assert "if it has not ended by itself" in said


def test_what_could_not_be_asked_is_said_with_its_reason(
    ada: TestClient, bench: Bench, running: Launch, clock: Clock
) -> None:
    told(ada)
    clock.move(hours=3)
    bench.cloud.refuse("instances", ProviderUnavailable("The desk is closed."))
    bench.cloud.refuse("sign_in", *[BadCredential("The key was revoked.")] * 2)
    (place,) = told(ada)["places"]
    assert place["asked"] is False
    assert place["trouble"] == "The desk is closed."
    assert [thing["launch"] for thing in place["things"]] == [running.id], "what should be there"
    bench.at.accounts.clear()
    said = words(ada.get("/running?look=desk").text)
    assert "It could not be asked, since" in said
    assert "The key was revoked." in said
    assert "$0.50 an hour, $1.50 so far" in said


def test_an_account_that_hangs_does_not_hold_the_page_up(
    ada: TestClient, bench: Bench, running: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdings, "SECONDS", 0.2)
    let_go, as_before = threading.Event(), bench.cloud.instances

    def hang(credential: base.Credential, broker: str) -> list[base.Instance]:
        assert let_go.wait(60)
        return as_before(credential, broker)

    monkeypatch.setattr(bench.cloud, "instances", hang)
    assert told(ada)["places"][0]["trouble"] == "Desk has not answered yet."
    assert told(ada)["places"][0]["trouble"] == "Desk is being asked at this moment."
    let_go.set()


def test_looking_is_a_use_by_the_grant_that_ends(ada: TestClient, bench: Bench, running: Launch, clock: Clock) -> None:
    clock.move(hours=13)
    before = len(bench.cloud.signed_in)
    ada.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
    told(ada)
    told(ada)
    person = people.known(bench.at, ADA)
    assert [use.what for use in uses.of(bench.at, person)][:2] == ["look", "look"]
    assert {connection.purpose for connection, _ in bench.cloud.signed_in[before:]} <= {base.Purpose.REAP}


def test_nobody_sees_what_is_somebody_elses(ada: TestClient, bench: Bench, running: Launch) -> None:
    client = TestClient(app.create(bench.at), base_url=HERE, headers={"Origin": HERE}, follow_redirects=False)
    assert client.get("/api/running").status_code == 401
    client.cookies.set("anybinder-sign-in", guests.cookie(bench.at, "Eve"))
    shown = client.get("/api/running").json()
    assert shown["places"] == []
    assert "There is no place here" in words(client.get("/running").text)


def test_of_the_operators_compute_each_sees_their_own(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(identities=(guests.IDENTITY,))
    client = TestClient(app.create(bench.at), base_url=HERE, headers={"Origin": HERE})
    client.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
    bench.ready()  # of the local person
    (place,) = client.get("/api/running").json()["places"]
    assert (place["own"], place["asked"], place["things"]) == (False, True, [])
    client.cookies.clear()
    client.cookies.set("anybinder", client.app.state.door.cookie())  # type: ignore[attr-defined]
    assert len(client.get("/api/running").json()["places"][0]["things"]) == 1


def test_one_is_stopped_from_there_and_comes_back(ada: TestClient, bench: Bench, running: Launch) -> None:
    answer = ada.post(f"/launches/{running.id}/stop", data={"back": "running"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/running")
    assert told(ada)["places"][0]["things"][0]["may_stop"] is False


def test_asking_too_often_is_refused_and_the_page_stays(ada: TestClient, bench: Bench, running: Launch) -> None:
    for _ in range(60):
        ada.app.state.looks.spend(ADA)  # type: ignore[attr-defined]
    assert ada.get("/api/running").status_code == 429
    said = words(ada.get("/running?look=desk").text)
    assert "too often" in said
    assert "mine" in said


def test_an_unknown_place_is_a_sentence(ada: TestClient, running: Launch) -> None:
    assert "no backend called “moon”" in ada.get("/api/running?look=moon").json()["detail"]
    assert "no backend called “moon”" in words(ada.get("/running?look=moon").text)


def test_the_page_of_a_launch_says_what_it_costs(ada: TestClient, bench: Bench, running: Launch, clock: Clock) -> None:
    clock.move(minutes=30)
    said = words(ada.get(f"/launches/{running.id}").text)
    assert "$0.50 an hour, $0.25 so far. What I am paying for everywhere" in said
