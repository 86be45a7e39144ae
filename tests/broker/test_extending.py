"""A running session is extended as far as its place and its machine allow, and no further."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from broker import errors, launches, orders, sessions
from broker.models import Launch, State
from tests.broker.conftest import Bench, Clock


def left(bench: Bench, launch: Launch) -> dt.timedelta:
    return launches.room(bench.at, launch).left


def test_a_session_lasts_longer_up_to_what_its_machine_was_told_and_ends_then(bench: Bench, clock: Clock) -> None:
    launch = bench.ready(hours=1)
    order, ends = bench.order(launch), launch.deadline_at
    assert left(bench, launch) == order.until - ends > dt.timedelta(hours=0.5)
    longer = launches.extend(bench.at, launch.id, 0.5)
    assert longer.deadline_at == ends + dt.timedelta(minutes=30)
    assert bench.report(launch, server="up", kind="jupyter")["deadline"] == longer.deadline_at.isoformat()
    clock.time = ends + dt.timedelta(minutes=1)
    bench.report(launch, server="up", kind="jupyter", last_activity=clock.time.isoformat())
    assert bench.advance(launch).state is State.READY
    clock.time = longer.deadline_at
    assert bench.until_stopped(launch).reason == "expired"
    assert bench.said(launch).count("It may last 30 minutes longer, at your wish.") == 1


def test_what_it_may_cost_was_promised_before_so_a_budget_is_never_exceeded(bench: Bench) -> None:
    launch = bench.ready(hours=1, budget="10")
    before = bench.order(launch)
    launches.extend(bench.at, launch.id, left(bench, launch) / dt.timedelta(hours=1))
    after = bench.order(launch)
    assert (after.promised, after.until) == (before.promised, before.until)
    assert bench.launch(launch.id).deadline_at == after.until
    assert left(bench, bench.launch(launch.id)) == dt.timedelta(0)


def test_a_machine_that_goes_off_then_is_extended_no_further(bench: Bench) -> None:
    launch = bench.ready(hours=1)
    with pytest.raises(errors.CannotExtend, match="told at birth to go off at"):
        launches.extend(bench.at, launch.id, 5)
    assert bench.launch(launch.id).deadline_at == launch.deadline_at


def test_no_session_lasts_longer_than_its_place_lets_any(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(max_hours=2)
    launch = bench.ready()
    with pytest.raises(
        errors.CannotExtend, match=r"^It cannot be extended\. No session there lasts longer than 2 hours\.$"
    ):
        launches.extend(bench.at, launch.id, 0.1)


@pytest.mark.parametrize("when", ["starting", "stopping", "over"])
def test_what_does_not_run_is_not_extended(bench: Bench, clock: Clock, when: str) -> None:
    launch = bench.request(hours=1) if when == "starting" else bench.ready(hours=1)
    if when == "stopping":
        launches.stop(bench.at, launch.id)
    if when == "over":
        clock.time = launch.deadline_at
    with pytest.raises(errors.CannotExtend, match="does not run"):
        launches.extend(bench.at, launch.id, 0.1)


def test_the_gateway_hears_of_it(bench: Bench) -> None:
    launch = bench.ready(hours=1)
    launches.extend(bench.at, launch.id, 0.5)
    found = sessions.read(bench.at, launch.id)
    assert found is not None
    assert found.deadline == launch.deadline_at + dt.timedelta(minutes=30)


def test_by_the_json_interface(bench: Bench, client: TestClient) -> None:
    launch = bench.ready(hours=1)
    told = client.post(f"/api/launches/{launch.id}/extend", json={"hours": 0.5}).raise_for_status().json()
    assert dt.datetime.fromisoformat(told["deadline_at"]) == launch.deadline_at + dt.timedelta(minutes=30)
    refused = client.post(f"/api/launches/{launch.id}/extend", json={"hours": 5})
    assert (refused.status_code, refused.json()["reason"]) == (409, "cannot_extend")
    assert client.post(f"/api/launches/{launch.id}/extend", json={"hours": -1}).status_code == 422
    assert client.post("/api/launches/aaaaaaaaaaaa/extend", json={"hours": 1}).status_code == 404


def test_by_the_page_which_offers_what_is_possible_and_says_what_is_not(bench: Bench, client: TestClient) -> None:
    launch = bench.ready(hours=1)
    page = client.get(f"/launches/{launch.id}").text
    offered = re.findall(r'name="hours" value="([^"]+)"', page)
    assert offered[0] == "0.5"
    refused = client.post(f"/launches/{launch.id}/extend", data={"hours": "20"})
    assert refused.status_code == 409
    assert "told at birth" in refused.text
    assert client.post(f"/launches/{launch.id}/extend", data={"hours": offered[-1]}).status_code == 303
    assert 'name="hours"' not in client.get(f"/launches/{launch.id}").text
    order = orders.current(bench.at, launch)
    assert order is not None
    assert abs(bench.launch(launch.id).deadline_at - order.until) < dt.timedelta(seconds=1)
