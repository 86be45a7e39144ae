"""Two machines for one launch: when the second is ordered, who stays, and what becomes of the other."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from broker import bootstrap, errors, instances, launches, orders, sessions
from broker.models import Launch, Order, State
from providers import errors as clouds
from tests.broker.conftest import AGENT, Bench, Clock
from tests.broker.test_budgets import all_orders
from tests.doubles.desk_cloud import offer

USUAL = 60.0


@pytest.fixture
def slow(bench: Bench) -> Bench:
    bench.cloud.menu = [offer("first", "0.10", usual_seconds=USUAL), offer("second", "0.20", usual_seconds=USUAL)]
    return bench


def late(bench: Bench, clock: Clock, **wish: Any) -> Launch:
    """A hedged launch whose first machine has taken longer than usual."""
    launch = bench.advance(bench.request(**{"hedge": True, **wish}))
    clock.move(seconds=USUAL + 1)
    return bench.advance(launch)


def pair(bench: Bench, launch: Launch) -> tuple[Order, Order]:
    first, second = orders.opened(bench.at, launch)
    assert (first.hedge, second.hedge) == (False, True)
    return first, second


def enrol(bench: Bench, order: Order) -> dict[str, Any]:
    token = bootstrap.enrolment_token(bench.at, order.id)
    return instances.enrol(bench.at, token, instances.Enrolment(order=order.id, agent=AGENT, nonce="00"))


def report(bench: Bench, order: Order, *lines: tuple[str, str], first: int = 1, **status: Any) -> dict[str, Any]:
    said = [{"phase": phase, "message": message} for phase, message in lines]
    told = {"order": order.id, "first": first, "events": said, "status": status}
    return instances.report(bench.at, AGENT, instances.Report.model_validate(told))


def up(bench: Bench, order: Order) -> None:
    enrol(bench, order)
    report(bench, order, server="up", kind="jupyter")


# --- when -----------------------------------------------------------------------------------------------------------


def test_a_second_machine_is_ordered_once_the_usual_time_has_passed(slow: Bench, clock: Clock) -> None:
    launch = slow.advance(slow.request(hedge=True))
    clock.move(seconds=USUAL - 1)
    assert len(orders.opened(slow.at, slow.advance(launch))) == 1
    clock.move(seconds=2)
    slow.advance(launch)
    first, second = pair(slow, launch)
    assert (first.offer["id"], second.offer["id"]) == ("first", "second")
    assert slow.cloud.bought == [first.id, second.id]
    assert any(
        line.startswith("It takes longer than usual. Also starting on second for $0.20") for line in slow.said(launch)
    )


def test_nobody_gets_a_second_machine_who_did_not_ask_for_it(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock, hedge=False)
    assert len(orders.opened(slow.at, launch)) == 1


def test_where_nobody_knows_what_is_usual_the_operators_word_counts(slow: Bench, clock: Clock) -> None:
    slow.cloud.menu = [offer("first"), offer("second")]
    launch = slow.advance(slow.request(hedge=True))
    clock.move(seconds=slow.at.settings.hedge_seconds)
    assert len(orders.opened(slow.at, slow.advance(launch))) == 1
    clock.move(seconds=2)
    assert len(orders.opened(slow.at, slow.advance(launch))) == 2


def test_no_money_for_a_second_machine_is_said_once_and_the_first_goes_on(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock, hours=1, budget="0.40")
    clock.move(seconds=60)
    launch = slow.advance(launch)
    assert launch.state is State.STARTING
    assert len(all_orders(slow)) == 1
    assert len([line for line in slow.said(launch) if "No second machine is ordered: The cheapest" in line]) == 1


def test_a_second_machine_that_cannot_be_had_is_not_asked_for_twice(slow: Bench, clock: Clock) -> None:
    slow.cloud.menu = [offer("first", "0.10", usual_seconds=USUAL), *(offer(name, "0.20") for name in "abc")]
    launch = slow.advance(slow.request(hedge=True))
    slow.cloud.refuse("provision", clouds.NoCapacity("None is free."))
    for _ in range(3):
        clock.move(seconds=USUAL + 1)
        slow.advance(launch)
    assert [order.hedge for order in all_orders(slow)] == [False, True]
    assert "There is no second machine: None is free." in slow.said(launch)
    up(slow, slow.order(launch))
    sessions.tunnelled(slow.at, launch.id)
    assert slow.advance(launch).state is State.READY


def test_a_lost_answer_to_the_second_order_is_asked_for_again(slow: Bench, clock: Clock) -> None:
    slow.cloud.menu = [offer("first", "0.10", usual_seconds=USUAL), offer("second", "0.20")]
    launch = slow.advance(slow.request(hedge=True))
    slow.cloud.lose("provision", clouds.ProviderUnavailable("No answer."))
    clock.move(seconds=USUAL + 1)
    slow.advance(launch)
    clock.move(seconds=launches.waits.RETRY_SECONDS)
    slow.advance(launch)
    assert len(slow.cloud.bought) == 2
    assert pair(slow, launch)[1].instance is not None


def test_a_second_machine_that_cannot_be_asked_for_hides_nothing_of_the_first(slow: Bench, clock: Clock) -> None:
    launch = slow.advance(slow.request(hedge=True))
    slow.cloud.refuse("provision", *[clouds.ProviderUnavailable("No answer.")] * 500)
    clock.move(seconds=USUAL + 1)
    launch = slow.advance(launch)
    pair(slow, launch)
    clock.move(minutes=slow.at.settings.boot_minutes + 1)
    launch = slow.advance(launch)
    assert any(line.startswith("first is given up: ") for line in slow.said(launch))


def test_a_second_machine_that_is_the_only_one_left_is_asked_for_until_it_is_there(slow: Bench, clock: Clock) -> None:
    launch = slow.advance(slow.request(hedge=True))
    slow.cloud.refuse("provision", *[clouds.ProviderUnavailable("No answer.")] * 2)
    clock.move(seconds=USUAL + 1)
    launch = slow.advance(launch)
    first, second = pair(slow, launch)
    enrol(slow, first)
    report(slow, first, ("failed", "The disk is full."))
    for _ in range(3):
        clock.move(seconds=launches.waits.RETRY_SECONDS)
        launch = slow.advance(launch)
    assert slow.cloud.bought == [first.id, second.id]
    up(slow, second)
    sessions.tunnelled(slow.at, launch.id)
    assert slow.advance(launch).state is State.READY


# --- who stays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", [0, 1])
def test_whichever_is_up_first_stays_and_the_other_is_gone_while_the_session_goes_on(
    slow: Bench, clock: Clock, winner: int
) -> None:
    launch = late(slow, clock)
    both = pair(slow, launch)
    up(slow, both[winner])
    launch = slow.advance(launch)
    assert launch.state is State.STARTING  # it is up, and has not dialled yet
    sessions.tunnelled(slow.at, launch.id)
    launch = slow.advance(launch)
    clock.move(seconds=launches.waits.LOOK_SECONDS)
    launch = slow.advance(launch)
    assert launch.state is State.READY
    assert list(slow.cloud.instances_by_order) == [both[winner].id]
    loser = next(order for order in all_orders(slow) if order.id != both[winner].id)
    assert loser.closed_at is not None
    assert loser.settled is not None
    assert slow.order(launch).id == both[winner].id
    assert any("is there first; the other machine is being ended." in line for line in slow.said(launch))


def test_a_loser_that_its_cloud_does_not_let_go_of_keeps_nobody_waiting_and_is_ended_in_the_end(
    slow: Bench, clock: Clock
) -> None:
    launch = late(slow, clock)
    first, second = pair(slow, launch)
    slow.cloud.refuse("terminate", *[clouds.BadCredential("Sign in again.")] * 4)
    up(slow, second)
    launch = slow.advance(launch)
    sessions.tunnelled(slow.at, launch.id)
    launch = slow.advance(launch)
    assert launch.state is State.READY
    for _ in range(6):
        clock.move(seconds=launches.waits.LOOK_SECONDS)
        report(slow, second, server="up", kind="jupyter")
        launch = slow.advance(launch)
        assert launch.state is State.READY
    assert list(slow.cloud.instances_by_order) == [second.id]
    assert {order.id for order in orders.opened(slow.at, launch)} == {second.id}
    assert first.id != second.id


def test_the_agent_of_the_loser_is_refused(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    first, second = pair(slow, launch)
    enrol(slow, first)
    up(slow, second)
    slow.advance(launch)
    with pytest.raises(errors.EnrolmentRefused):
        report(slow, first, ("building", "Building"))
    with pytest.raises(errors.EnrolmentRefused):
        enrol(slow, first)


def test_the_tunnel_is_of_one_machine_at_a_time(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    directory = sessions.Directory(slow.at)
    moved: list[str] = []
    directory.on_moved.append(moved.append)
    first, second = pair(slow, launch)
    secrets = [sessions.tunnel_secret(slow.at, order.id) for order in (first, second)]
    directory._read(launch.id)
    before = directory.get(launch.id)
    assert before is not None
    assert [before.tunnelled_by(each) for each in secrets] == [True, False]
    assert [before.is_early(each) for each in secrets] == [False, True]
    up(slow, second)
    slow.advance(launch)
    directory.drop(launch.id)
    after = directory.get(launch.id)
    assert after is not None
    assert [after.tunnelled_by(each) for each in secrets] == [False, True]
    assert [after.is_early(each) for each in secrets] == [False, False]
    assert moved == [launch.id]


def test_what_fails_on_one_machine_is_the_end_of_that_one_alone(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    first, second = pair(slow, launch)
    enrol(slow, first)
    answer = report(slow, first, ("failed", "The disk is full."))
    assert answer["command"] == "stop"
    launch = slow.advance(launch)
    assert launch.state is State.STARTING
    assert "first: The disk is full." in slow.said(launch)
    up(slow, second)
    sessions.tunnelled(slow.at, launch.id)
    assert slow.advance(launch).state is State.READY


def test_what_fails_on_the_last_one_fails_the_launch(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    for order, why in zip(pair(slow, launch), ("The disk is full.", "postBuild failed."), strict=True):
        enrol(slow, order)
        report(slow, order, ("failed", why))
        slow.advance(launch)
    launch = slow.until_stopped(launch)
    assert (launch.reason, launch.message) == ("build_failed", "postBuild failed.")
    assert slow.cloud.instances_by_order == {}


def test_a_machine_that_dies_leaves_the_race_to_the_other(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    first, second = pair(slow, launch)
    slow.cloud.instances_by_order.pop(first.id)
    clock.move(seconds=launches.waits.LOOK_SECONDS)
    launch = slow.advance(launch)
    assert any(line.startswith("first is given up: ") and "it went away" in line for line in slow.said(launch))
    assert orders.leader(orders.opened(slow.at, launch)).id == second.id  # type: ignore[union-attr]


def test_the_phases_are_those_of_the_one_that_leads(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    first, second = pair(slow, launch)
    enrol(slow, first)
    enrol(slow, second)
    report(slow, first, ("building", "Building"))
    report(slow, second, ("fetching", "Fetching"))
    assert slow.launch(launch.id).phase == "building"
    assert "second: Fetching" in slow.said(launch)


# --- the end --------------------------------------------------------------------------------------------------------


def test_stopping_ends_both(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    launches.stop(slow.at, launch.id)
    slow.until_stopped(launch)
    assert slow.cloud.instances_by_order == {}
    assert all(order.closed_at and order.settled is not None for order in all_orders(slow))


def test_stopping_ends_the_one_although_the_other_cannot_be(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock)
    first, second = pair(slow, launch)
    launches.stop(slow.at, launch.id)
    slow.cloud.refuse("terminate", clouds.BadCredential("Sign in again."))
    launch = slow.advance(launch)
    assert launch.state is State.STOPPING
    assert list(slow.cloud.instances_by_order) == [first.id]
    slow.until_stopped(launch)
    assert slow.cloud.instances_by_order == {}
    assert second.id != first.id


def test_two_machines_never_promise_more_than_the_budget(slow: Bench, clock: Clock) -> None:
    launch = late(slow, clock, hours=1, budget="1.00")
    assert sum(order.promised for order in pair(slow, launch)) <= Decimal("1.00")
