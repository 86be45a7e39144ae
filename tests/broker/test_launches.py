"""The spine, edge by edge (docs/architecture.md, "States")."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from broker import backends, connections, errors, launches, orders, people, placement, sessions, wishes
from broker.models import Launch, Order, State
from providers import base
from providers import errors as clouds
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud, SlowListingCloud, offer


def all_orders(bench: Bench) -> list[Order]:
    with bench.at.db.transaction() as session:
        return list(session.scalars(sa.select(Order).order_by(Order.created_at)))


# --- asking ---------------------------------------------------------------------------------------------------------


def test_a_request_writes_one_row_and_one_waiting_event_and_buys_nothing(bench: Bench) -> None:
    launch = bench.request()
    assert launch.state is State.WAITING
    assert bench.phases(launch) == ["waiting"]
    assert bench.cloud.calls == []


def test_the_same_name_with_unchanged_parameters_reconnects(bench: Bench) -> None:
    first, new = launches.request(bench.at, people.LOCAL, wishes.Wish(repo=bench.repo, backend="desk", name="a"))
    again, second = launches.request(bench.at, people.LOCAL, wishes.Wish(repo=bench.repo, backend="desk", name="a"))
    assert (new, second) == (True, False)
    assert again.id == first.id


def test_the_same_name_with_changed_parameters_says_what_changed(bench: Bench) -> None:
    bench.request(name="a")
    with pytest.raises(errors.NameTaken, match=r"the path is unset there, notes\.ipynb here"):
        bench.request(name="a", path="notes.ipynb")


def test_two_launches_of_chosen_ids_never_meet_by_a_name_that_was_made_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All visitors are one person to the table."""
    monkeypatch.setattr("broker.crypto.new_id", lambda length: "a" * length)
    assert [bench.request(launch_id=chosen).id for chosen in ("b" * 12, "c" * 12)] == ["b" * 12, "c" * 12]


def test_a_name_is_free_again_once_its_launch_has_stopped(bench: Bench) -> None:
    first = bench.request(name="a")
    launches.stop(bench.at, first.id)
    bench.until_stopped(first)
    assert bench.request(name="a", path="other").id != first.id


def test_two_requests_for_one_name_at_once_make_one_launch(bench: Bench) -> None:
    start, found = threading.Barrier(4), []

    def ask() -> None:
        start.wait()
        found.append(bench.request(name="a").id)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_an_unknown_backend_is_named_with_those_that_exist(bench: Bench) -> None:
    with pytest.raises(errors.BadRequest, match=r"“moon”.*desk"):
        bench.request(backend="moon")


def test_hours_are_bounded_by_the_operator(bench: Bench) -> None:
    assert bench.request(hours=1000).hours == bench.at.settings.max_hours


def test_somebody_elses_launch_is_not_found(bench: Bench) -> None:
    launch = bench.request()
    with pytest.raises(errors.NotFound):
        launches.get(bench.at, people.Person(id="mallory"), launch.id)


# --- the plain path -------------------------------------------------------------------------------------------------


def test_a_launch_walks_from_waiting_to_ready_to_stopped(bench: Bench) -> None:
    launch = bench.ready()
    launches.stop(bench.at, launch.id)
    launch = bench.until_stopped(launch)
    assert [line["state"] for line in bench.events(launch)] == [
        "waiting", "placed", "authorized", "starting", "ready", "ready", "stopping", "stopped",
    ]  # fmt: skip
    assert bench.cloud.instances_by_order == {}
    assert launch.stopped_at is not None


def test_money_is_promised_before_buying_and_settled_after(bench: Bench, clock: Clock) -> None:
    launch = bench.ready(hours=2)
    (order,) = all_orders(bench)
    assert order.promised > Decimal("1.00")  # two hours at 0.50, and the longest preparation
    clock.move(hours=1)
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    (order,) = all_orders(bench)
    assert Decimal("0.50") <= (order.settled or Decimal(0)) < Decimal("0.51")


def test_a_phase_the_agent_reports_is_the_launchs_phase(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("fetching", "Fetching"), ("building", "Building"))
    assert bench.launch(launch.id).phase == "building"


def test_it_is_not_ready_before_a_stream_is_parked(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, server="up", kind="app")
    assert bench.advance(launch).state is State.STARTING


# --- leases ---------------------------------------------------------------------------------------------------------


def test_two_workers_at_once_buy_once(bench: Bench) -> None:
    launch = bench.request()
    threads = [threading.Thread(target=launches.advance, args=(bench.at, launch.id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.cloud.bought) == 1


def test_a_leased_launch_is_left_alone_until_the_lease_runs_out(bench: Bench, clock: Clock) -> None:
    launch = bench.request()
    assert launches.advancing._lease(bench.at, launch.id) is not None
    assert bench.advance(launch).state is State.WAITING
    assert launches.due(bench.at) == []
    clock.move(seconds=bench.at.settings.lease_seconds + 1)
    assert launches.due(bench.at) == [launch.id]
    assert bench.advance(launch).state is State.STARTING


def test_what_a_worker_does_after_its_lease_ran_out_is_not_written(bench: Bench, clock: Clock) -> None:
    launch = bench.request()
    late = launches.advancing._lease(bench.at, launch.id)
    assert late is not None
    clock.move(seconds=bench.at.settings.lease_seconds + 1)
    bench.advance(launch)
    assert not launches.advancing._settle(bench.at, late, launches.Next(state=State.STOPPED))
    assert bench.launch(launch.id).state is State.STARTING


def test_what_is_bought_for_an_order_that_was_given_up_meanwhile_is_given_back(
    bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A computer that slept between writing the order down and asking for it: another worker has closed it since."""
    launch, buy = bench.request(), bench.cloud.provision

    def after_a_sleep(*asked: Any) -> base.Instance:
        clock.move(seconds=bench.at.settings.lease_seconds + 1)
        launches.stop(bench.at, launch.id)
        bench.until_stopped(launch)
        return buy(*asked)

    monkeypatch.setattr(bench.cloud, "provision", after_a_sleep)
    launches.advance(bench.at, launch.id)
    assert bench.launch(launch.id).state is State.STOPPED
    assert len(bench.cloud.bought) == 1
    assert bench.cloud.instances(None, bench.at.keys.broker_id) == []


def test_what_was_given_up_is_not_asked_for_any_more(bench: Bench) -> None:
    launch = bench.request()
    launches.advance(bench.at, launch.id)
    late = bench.order(launch)
    orders.give_up(bench.at, bench.order(launch))
    with pytest.raises(errors.LeaseLost):
        orders.buy(bench.at, bench.launch(launch.id), late, connections.of_order(bench.at, late))


def test_what_was_asked_for_since_the_row_was_read_is_asked_after(bench: Bench) -> None:
    launch = bench.request()
    held = launches.advancing._lease(bench.at, launch.id)
    assert held is not None
    stale = orders.open_order(bench.at, held, bench.cloud.offers(None, base.Resources())[0])
    orders.buy(bench.at, held, orders.current(bench.at, held), connections.of_order(bench.at, stale))
    assert stale.asked_at is None
    orders.end(bench.at, stale)
    assert bench.cloud.instances(None, bench.at.keys.broker_id) == []


def test_a_wish_to_stop_during_a_step_is_seen_when_the_step_settles(bench: Bench) -> None:
    launch = bench.request()
    held = launches.advancing._lease(bench.at, launch.id)
    assert held is not None
    launches.stop(bench.at, launch.id)
    assert launches.advancing._settle(bench.at, held, launches.Next(state=State.WAITING, wait=3600))
    launches.release_leases(bench.at)
    assert bench.until_stopped(launch).state is State.STOPPED


def test_steps_that_follow_at_once_are_taken_under_one_lease(bench: Bench, clock: Clock) -> None:
    launch = bench.request()
    held = launches.advancing._lease(bench.at, launch.id)
    assert held is not None
    clock.move(seconds=bench.at.settings.lease_seconds - 1)
    going_on = launches.advancing._settle(bench.at, held, launches.Next(state=State.PLACED))
    assert going_on is not None
    assert going_on.lease == held.lease
    clock.move(seconds=bench.at.settings.lease_seconds - 1)
    assert launches.advancing._lease(bench.at, launch.id) is None
    waits = launches.Next(state=State.STARTING, wait=2)
    assert launches.advancing._settle(bench.at, going_on, waits) is None
    assert bench.launch(launch.id).lease is None


def test_a_restarted_owner_of_the_state_folder_forgets_all_leases(bench: Bench) -> None:
    launch = bench.request()
    launches.advancing._lease(bench.at, launch.id)
    launches.release_leases(bench.at)
    assert bench.advance(launch).state is State.STARTING


# --- clouds that refuse ---------------------------------------------------------------------------------------------


def test_no_capacity_ends_the_order_and_tries_the_next_offer(bench: Bench) -> None:
    bench.cloud.refuse("provision", clouds.NoCapacity("No small one is free."))
    launch = bench.advance(bench.request())
    assert launch.state is State.STARTING
    first, second = all_orders(bench)
    assert first.closed_at is not None
    assert (first.offer["id"], second.offer["id"]) == ("small", "large")
    assert "No small one is free." in bench.said(launch)


def test_when_every_offer_was_tried_it_fails_with_the_last_reason(bench: Bench) -> None:
    bench.cloud.refuse("provision", *[clouds.NoCapacity("Nothing is free.")] * 2)
    launch = bench.until_stopped(bench.request())
    assert bench.phases(launch) == ["waiting", "failed"]
    assert launch.message == "Nothing is free."
    assert all(order.closed_at for order in all_orders(bench))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (clouds.QuotaExceeded("Your quota “vCPUs” (8) is used up."), "quota"),
        (clouds.BadCredential("Sign in again."), "credential"),
        (clouds.PermissionMissing("ec2:RunInstances is missing."), "permission"),
    ],
)
def test_what_no_retry_mends_fails_at_once_with_the_clouds_sentence(
    bench: Bench, error: clouds.ProviderError, reason: str
) -> None:
    bench.cloud.refuse("provision", error)
    launch = bench.until_stopped(bench.request())
    assert (launch.reason, launch.message) == (reason, str(error))
    assert bench.cloud.bought == []


def test_a_cloud_out_of_reach_is_asked_again_with_the_same_order(bench: Bench, clock: Clock) -> None:
    bench.cloud.lose("provision", *[clouds.ProviderUnavailable("No answer.")] * 3)
    launch = bench.request()
    for _ in range(4):
        launch = bench.advance(launch)
        clock.move(seconds=launches.waits.RETRY_SECONDS)
    assert launch.state is State.STARTING
    assert len(bench.cloud.bought) == 1
    assert bench.said(launch).count("No answer.") == 1


def test_a_cloud_that_stays_out_of_reach_fails_the_launch_in_the_end(bench: Bench, clock: Clock) -> None:
    bench.cloud.refuse("sign_in", *[clouds.ProviderUnavailable("No answer.")] * 500)
    launch = bench.request()
    while "failed" not in bench.phases(launch):
        bench.advance(launch)
        clock.move(seconds=launches.waits.RETRY_SECONDS)
    assert bench.launch(launch.id).reason == "unavailable"


def test_a_credential_that_ends_too_soon_is_refused_before_buying(bench: Bench, clock: Clock) -> None:
    bench.cloud.reaches = clock() + dt.timedelta(hours=1)
    launch = bench.until_stopped(bench.request(hours=5))
    assert launch.reason == "credential_short"
    assert "before this session could be ended" in launch.message
    assert "provision" not in bench.cloud.calls


# --- machines that let one down -------------------------------------------------------------------------------------


def test_the_longer_a_machine_takes_the_less_often_it_is_looked_at(bench: Bench, clock: Clock) -> None:
    launch = bench.advance(bench.request())
    waits = []
    for _ in range(8):
        assert launch.due_at is not None
        waits.append((launch.due_at - clock.time).total_seconds())
        clock.time = launch.due_at
        launch = bench.advance(launch)
    assert waits[0] == launches.waits.LOOK_SECONDS
    assert waits == sorted(waits)
    assert waits[-1] == launches.waits.LOOK_MOST_SECONDS


def test_a_machine_that_never_reports_is_ended_and_another_tried(bench: Bench, clock: Clock) -> None:
    launch = bench.advance(bench.request())
    clock.move(minutes=bench.at.settings.boot_minutes, seconds=1)
    launch = bench.advance(launch)
    assert launch.state is State.STARTING
    assert [order.offer["id"] for order in all_orders(bench)] == ["small", "large"]
    assert len(bench.cloud.instances_by_order) == 1


def test_a_machine_that_ends_before_it_enrolled_is_replaced(bench: Bench, clock: Clock) -> None:
    launch = bench.advance(bench.request())
    bench.cloud.ends()
    clock.move(seconds=launches.waits.LOOK_SECONDS)
    launch = bench.advance(launch)
    assert launch.state is State.STARTING
    assert len(all_orders(bench)) == 2


def test_a_machine_that_ends_while_building_fails_the_launch(bench: Bench, clock: Clock) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.advance(launch)
    bench.cloud.ends()
    clock.move(seconds=launches.waits.LOOK_SECONDS)
    launch = bench.until_stopped(launch)
    assert (launch.reason, launch.message) == ("instance_lost", "it went away")


def test_what_the_agent_calls_a_failure_fails_the_launch_with_its_sentence(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    answer = bench.report(launch, ("building", "…"), ("failed", "postBuild failed: no such file."))
    assert answer["command"] == "stop"
    launch = bench.until_stopped(launch)
    assert bench.phases(launch)[-1] == "failed"
    assert (launch.reason, launch.message) == ("build_failed", "postBuild failed: no such file.")


def test_a_build_that_takes_too_long_is_ended(bench: Bench, clock: Clock) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    clock.move(minutes=bench.at.settings.boot_minutes + bench.at.settings.build_minutes, seconds=1)
    launch = bench.until_stopped(launch)
    assert "longer than it may" in launch.message


# --- a running session ----------------------------------------------------------------------------------------------


def test_an_idle_session_is_stopped(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    clock.move(minutes=bench.at.settings.idle_minutes - 1)
    bench.report(launch, server="up", kind="jupyter")
    assert bench.advance(launch).state is State.READY
    clock.move(minutes=2)
    assert bench.until_stopped(launch).reason == "idle"


def test_activity_keeps_a_session(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    clock.move(minutes=29)
    bench.report(launch, server="up", kind="jupyter", last_activity=clock().isoformat())
    clock.move(minutes=14)
    bench.report(launch, server="up", kind="jupyter")
    assert bench.advance(launch).state is State.READY


def test_activity_from_the_future_does_not_keep_a_session_for_ever(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    bench.report(launch, server="up", kind="app", last_activity="2099-01-01T00:00:00+00:00")
    clock.move(minutes=bench.at.settings.idle_minutes, seconds=1)
    assert bench.until_stopped(launch).reason == "idle"


def test_a_session_ends_at_its_deadline(make_bench: Callable[..., Bench], clock: Clock) -> None:
    bench = make_bench(idle_minutes=600)
    launch = bench.ready(hours=1)
    assert launch.deadline_at - clock() == dt.timedelta(hours=1)
    clock.move(hours=1)
    assert bench.until_stopped(launch).reason == "expired"


def test_a_machine_that_ends_by_itself_is_noticed(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    bench.cloud.ends()
    clock.move(seconds=2 * bench.at.settings.heartbeat_seconds + 1)
    assert bench.until_stopped(launch).reason == "lost"


def test_a_machine_whose_agent_was_heard_of_lately_is_not_asked_after_at_its_cloud(bench: Bench, clock: Clock) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    launch = bench.advance(launch)
    asked = bench.cloud.calls.count("describe")
    assert asked > 0
    assert launch.due_at is not None
    clock.time = launch.due_at
    bench.report(launch)
    launch = bench.advance(launch)
    assert bench.cloud.calls.count("describe") == asked
    clock.move(seconds=2 * bench.at.settings.heartbeat_seconds + 1)
    bench.advance(launch)
    assert bench.cloud.calls.count("describe") == asked + 1


def test_a_running_session_is_looked_at_every_three_reports_and_when_it_ends(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    clock.move(seconds=bench.at.settings.heartbeat_seconds)
    bench.report(launch, server="up", kind="jupyter")
    launch = bench.advance(launch)
    wait = dt.timedelta(seconds=3 * bench.at.settings.heartbeat_seconds)
    assert launch.due_at == clock() + wait
    clock.move(minutes=bench.at.settings.idle_minutes, seconds=-15)
    bench.report(launch, server="up", kind="jupyter")
    launch = bench.advance(launch)
    assert launch.due_at is not None
    assert dt.timedelta(0) < launch.due_at - clock() < wait


def test_a_session_whose_server_has_ended_is_not_paid_for_any_longer(bench: Bench) -> None:
    launch = bench.ready()
    bench.report(launch, ("launching", "The server has ended (status 0)."), server="down")
    launch = bench.until_stopped(launch)
    assert (launch.reason, launch.phase) == ("ended", "ready")
    assert bench.cloud.instances_by_order == {}


def test_a_server_that_ends_before_it_was_used_fails_the_launch(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, server="up", kind="app")
    bench.report(launch, ("launching", "The server has ended (status 0)."), server="down")
    assert bench.until_stopped(launch).reason == "server_ended"


def test_a_wish_to_stop_during_a_step_is_the_outcome_and_the_only_one(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, server="up", kind="app")
    sessions.tunnelled(bench.at, launch.id)
    held = launches.advancing._lease(bench.at, launch.id)
    assert held is not None
    outcome = launches.steps.await_agent(bench.at, held)
    launches.stop(bench.at, launch.id)
    launches.advancing._settle(bench.at, held, outcome)
    launches.release_leases(bench.at)
    launch = bench.until_stopped(launch)
    assert (launch.ready_at, bench.phases(launch)) == (None, ["waiting", "failed"])


def test_a_machine_that_falls_silent_is_ended(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    clock.move(minutes=bench.at.settings.silence_minutes, seconds=1)
    launch = bench.until_stopped(launch)
    assert launch.reason == "lost"
    assert bench.cloud.instances_by_order == {}


def test_a_machine_that_falls_silent_while_it_builds_is_not_said_to_have_ended_by_itself(
    bench: Bench, clock: Clock
) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    clock.move(minutes=bench.at.settings.silence_minutes, seconds=1)
    assert "The machine has not been heard of for too long." in bench.said(bench.until_stopped(launch))


def test_a_machine_that_still_boots_is_not_silent(make_bench: Callable[..., Bench], clock: Clock) -> None:
    """It has not said anything yet, and has as long for that as a boot may take."""
    bench = make_bench(silence_minutes=1, boot_minutes=15, attempts=1)
    launch = bench.advance(bench.request())
    clock.move(minutes=10)
    assert bench.advance(launch).state is State.STARTING
    clock.move(minutes=6)
    said = bench.said(bench.until_stopped(launch))
    assert any("never reported" in line for line in said), said


# --- the one way out ------------------------------------------------------------------------------------------------


def test_stopped_is_written_only_after_the_cloud_says_that_it_is_gone(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    bench.cloud.clings = 3
    launches.stop(bench.at, launch.id)
    for _ in range(3):
        launch = bench.advance(launch)
        assert launch.state is State.STOPPING
        clock.move(seconds=1)
    assert bench.advance(launch).state is State.STOPPED


def test_stopping_never_gives_up(bench: Bench, clock: Clock) -> None:
    launch = bench.ready()
    bench.cloud.refuse("terminate", *[clouds.BadCredential("Sign in again.")] * 200)
    launches.stop(bench.at, launch.id)
    launch = bench.until_stopped(launch, looks=300)
    assert bench.cloud.instances_by_order == {}
    assert bench.said(launch).count("Sign in again.") == 1


def test_an_empty_list_proves_nothing_before_the_cloud_has_caught_up(
    make_bench: Callable[..., Bench], clock: Clock
) -> None:
    """The answer was lost and the list lags: closing now would leave a machine nobody remembers."""
    bench = make_bench(SlowListingCloud())
    bench.cloud.lose("provision", clouds.ProviderUnavailable("No answer."))
    launch = bench.advance(bench.request())
    launches.stop(bench.at, launch.id)
    bench.cloud.instances_by_order.clear()
    launch = bench.advance(launch)
    assert launch.state is State.STOPPING
    clock.move(seconds=61)
    assert bench.advance(launch).state is State.STOPPED


def test_the_next_offer_waits_a_moment_and_for_no_list_where_the_cloud_has_said_no(
    make_bench: Callable[..., Bench], clock: Clock
) -> None:
    """A cloud whose lists are minutes behind would make a failover as slow; what it has half made shows before."""
    bench = make_bench(SlowListingCloud())
    bench.cloud.refuse("provision", clouds.NoCapacity("No small one is free."))
    launch = bench.advance(bench.request())
    assert [order.closed_at for order in all_orders(bench)] == [None]
    clock.move(seconds=orders.REFUSED_WITHIN.total_seconds())
    bench.advance(launch)
    first, second = all_orders(bench)
    assert (first.closed_at is not None, second.offer["id"]) == (True, "large")


def test_what_was_refused_for_good_waits_for_no_list_either(make_bench: Callable[..., Bench], clock: Clock) -> None:
    """Who reads that a quota is used up would else see it being ended for minutes."""
    bench = make_bench(SlowListingCloud())
    bench.cloud.refuse("provision", clouds.QuotaExceeded("Your quota “vCPUs” (8) is used up."))
    launch = bench.advance(bench.request())
    clock.move(seconds=orders.REFUSED_WITHIN.total_seconds())
    launch = bench.advance(launch)
    assert (launch.state, launch.reason) == (State.STOPPED, "quota")


def test_an_image_by_name_is_not_run_on_arm(bench: Bench) -> None:
    """Nearly every image is made for x86 alone, and the cheapest machine of a cloud often is not."""
    kinds = {"arm": "arm64", "x86": "x86_64"}
    bench.cloud.menu = [offer(name, architecture=kind) for name, kind in kinds.items()]
    launch = bench.request()
    account = backends.named(bench.at, "desk").account()
    assert placement.next_offer(bench.at, launch, account).id == "arm"
    launch.content = {"kind": "image", "image": "registry.example/lab@sha256:0"}
    assert placement.next_offer(bench.at, launch, account).id == "x86"


def test_who_had_no_answer_before_the_no_waits_for_the_lists(make_bench: Callable[..., Bench], clock: Clock) -> None:
    """What the first try may have begun is not disproved by the refusal of the second."""
    bench = make_bench(SlowListingCloud())
    bench.cloud.lose("provision", clouds.ProviderUnavailable("No answer."))
    launch = bench.advance(bench.request())
    bench.cloud.refuse("provision", clouds.NoCapacity("No small one is free."))
    bench.cloud.instances_by_order.clear()
    clock.move(seconds=launches.waits.RETRY_SECONDS)
    bench.advance(launch)
    (first,) = all_orders(bench)
    assert first.closed_at is None


def test_what_takes_long_to_end_is_looked_at_less_and_less_often() -> None:
    looks = [launches.waits.until_gone(dt.timedelta(seconds=since)) for since in (0, 8, 20, 600)]
    assert looks == [0.25, 1, 2.5, 5]


def test_a_machine_that_does_not_show_yet_is_not_taken_for_gone(make_bench: Callable[..., Bench], clock: Clock) -> None:
    """EC2 answers "not found" for a moment after it has sold something."""
    bench = make_bench(SlowListingCloud())
    launch = bench.advance(bench.request())
    hidden = dict(bench.cloud.instances_by_order)
    bench.cloud.instances_by_order.clear()
    clock.move(seconds=launches.waits.LOOK_SECONDS)
    bench.advance(launch)
    bench.cloud.instances_by_order.update(hidden)
    assert len(bench.cloud.bought) == 1
    bench.enrol(launch)
    assert bench.order(launch).offer["id"] == "small"


def test_a_lost_answer_is_ended_by_its_tag(bench: Bench) -> None:
    bench.cloud.lose("provision", clouds.ProviderUnavailable("No answer."))
    launch = bench.advance(bench.request())
    assert bench.order(launch).instance is None
    assert len(bench.cloud.instances_by_order) == 1
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    assert bench.cloud.instances_by_order == {}


def test_a_launch_stopped_before_it_was_ready_has_failed_for_whoever_follows_it(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    launches.stop(bench.at, launch.id)
    assert bench.phases(launch) == ["waiting", "failed"]


def test_stopping_twice_says_so_once(bench: Bench) -> None:
    launch = bench.ready()
    launches.stop(bench.at, launch.id)
    launches.stop(bench.at, launch.id)
    assert bench.said(launch).count("Stopped at your wish.") == 1


def test_an_error_of_our_own_fails_the_launch_and_still_ends_the_machine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = bench.advance(bench.request())

    def broken(*_: object) -> launches.Next:
        raise ZeroDivisionError

    monkeypatch.setitem(launches.STEPS, State.STARTING, broken)
    with bench.at.db.transaction() as session:
        launches.nudge(bench.at, session, launches.locked(session, launch.id))  # type: ignore[arg-type]
    launch = bench.until_stopped(launch)
    assert "ZeroDivisionError" in launch.message
    assert bench.cloud.instances_by_order == {}


def test_no_order_is_closed_that_was_not_asked_after(bench: Bench) -> None:
    launch = bench.ready()
    order = bench.order(launch)
    bench.cloud.calls.clear()
    assert orders.end(bench.at, order)
    assert bench.cloud.calls[-3:] == ["terminate", "describe", "instances"]


def test_no_network_call_happens_inside_a_transaction(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite a transaction that is open holds the write lock, so a second one from the same thread would hang."""

    class Writing(DeskCloud):
        def _called(self, verb: str) -> None:
            with bench.at.db.transaction() as session:
                session.execute(sa.select(Launch.id)).all()
            super()._called(verb)

    bench = make_bench(Writing())
    launch = bench.ready()
    launches.stop(bench.at, launch.id)
    assert bench.until_stopped(launch).state is State.STOPPED


def test_when_an_order_was_first_asked_for_is_kept_by_who_read_it_before(bench: Bench, clock: Clock) -> None:
    """Of two workers the second would say that it was asked for once, and its refusal would be believed at once."""
    launch = bench.advance(bench.request())
    first = bench.order(launch).first_asked_at
    with bench.at.db.transaction() as session:
        held = session.get_one(Order, bench.order(launch).id)
    orm.attributes.set_committed_value(held, "first_asked_at", None)
    clock.move(minutes=3)
    orders._note_asked(bench.at, held)
    kept = bench.order(launch)
    assert (kept.first_asked_at, kept.asked_at) == (first, clock())


def test_what_hinders_an_end_is_said_once_and_passes_with_it(bench: Bench) -> None:
    """A machine that somebody has locked, say."""
    launch = bench.ready()
    locked = clouds.InvalidOrder("Somebody has locked the machine.")
    bench.cloud.refuse("terminate", *[locked] * 3)
    launches.stop(bench.at, launch.id)
    while bench.cloud.calls.count("terminate") < 3:
        launch = bench.advance(launch)
        bench.clock.move(minutes=1)
    assert (launch.state, launch.message) == (State.STOPPING, str(locked))
    launch = bench.until_stopped(launch)
    assert (launch.reason, launch.message) == ("asked", "Stopped at your wish.")
    assert bench.said(launch).count(str(locked)) == 1
