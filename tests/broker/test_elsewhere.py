"""Going on to another backend that the person named, and to no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from broker import backends, errors, launches, orders, settings
from broker.models import State
from providers import errors as clouds
from tests.broker.conftest import Bench, Clock
from tests.broker.test_budgets import all_orders
from tests.doubles.desk_cloud import DeskCloud, offer


@pytest.fixture
def two(bench: Bench) -> Bench:
    """A second backend, called `spare`."""
    add(bench, "spare")
    return bench


def add(bench: Bench, name: str, **setting: object) -> DeskCloud:
    cloud = DeskCloud()
    told = settings.BackendSetting(name=name, provider="fake", **setting)  # type: ignore[arg-type]
    bench.at.backends[name] = backends.Backend(name=name, title=name.title(), provider=cloud, setting=told)
    return cloud


def spare(bench: Bench) -> DeskCloud:
    found = bench.at.backends["spare"].provider
    assert isinstance(found, DeskCloud)
    return found


def walk(bench: Bench, launch_id: str) -> list[str]:
    lines = bench.events(bench.launch(launch_id))
    states = [str(line["state"]) for line in lines]
    return [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state]


def test_where_nothing_is_left_it_goes_on_to_the_place_that_was_named(two: Bench) -> None:
    two.cloud.refuse("provision", *[clouds.NoCapacity("Nothing is free.")] * 2)
    launch = two.advance(two.request(elsewhere=["spare"]))
    assert (launch.backend, launch.state, launch.elsewhere) == ("spare", State.STARTING, [])
    assert [(order.backend, order.closed_at is None) for order in all_orders(two)] == [
        ("desk", False), ("desk", False), ("spare", True),
    ]  # fmt: skip
    assert "Nothing is free. It goes on at “Spare”, as you wished." in two.said(launch)
    assert walk(two, launch.id) == ["waiting", "placed", "authorized", "starting", "placed", "authorized", "starting",
                                    "placed", "authorized", "waiting", "placed", "authorized", "starting"]  # fmt: skip


def test_nobody_is_moved_to_a_place_they_did_not_name(two: Bench) -> None:
    two.cloud.refuse("provision", *[clouds.NoCapacity("Nothing is free.")] * 2)
    launch = two.until_stopped(two.request())
    assert (launch.backend, launch.reason) == ("desk", "no_offer")
    assert spare(two).calls == []


@pytest.mark.parametrize(
    "error",
    [
        clouds.QuotaExceeded("Your quota “vCPUs” (8) is used up."),
        clouds.BadCredential("Sign in again."),
        clouds.PermissionMissing("ec2:RunInstances is missing."),
    ],
)
def test_what_a_cloud_would_say_to_every_offer_ends_it_there_at_once(two: Bench, error: clouds.ProviderError) -> None:
    two.cloud.refuse("provision", error)
    launch = two.advance(two.request(elsewhere=["spare"]))
    assert launch.backend == "spare"
    assert [order.backend for order in all_orders(two)] == ["desk", "spare"]
    assert f"{error} It goes on at “Spare”, as you wished." in two.said(launch)


def test_a_place_that_does_not_let_us_in_is_left_before_anything_is_bought(two: Bench) -> None:
    two.cloud.refuse("sign_in", clouds.BadCredential("Your account was removed."))
    launch = two.advance(two.request(elsewhere=["spare"]))
    assert launch.backend == "spare"
    assert two.cloud.bought == []


def test_a_place_that_is_closed_since_is_left(two: Bench) -> None:
    launch = two.request(elsewhere=["spare"])
    desk = two.at.backends["desk"]
    two.at.backends["desk"] = replace(desk, setting=desk.setting.model_copy(update={"max_sessions": 0}))
    assert two.advance(launch).backend == "spare"


def test_a_place_that_is_too_dear_is_left_for_one_that_is_not(two: Bench) -> None:
    spare(two).menu = [offer("cheap", "0.01")]
    launch = two.advance(two.request(elsewhere=["spare"], budget="0.10", hours=1))
    assert launch.backend == "spare"
    assert [order.offer["id"] for order in all_orders(two)] == ["cheap"]


def test_a_cloud_that_stays_out_of_reach_is_left_in_the_end(two: Bench, clock: Clock) -> None:
    two.cloud.refuse("sign_in", *[clouds.ProviderUnavailable("No answer.")] * 500)
    launch = two.request(elsewhere=["spare"])
    for _ in range(200):
        launch = two.advance(launch)
        if launch.backend == "spare":
            return
        clock.move(seconds=launches.waits.RETRY_SECONDS)
    raise AssertionError(two.said(launch))


def test_it_leaves_only_once_nothing_is_open_there(two: Bench, clock: Clock) -> None:
    two.cloud.menu = ["small"]
    two.cloud.refuse("provision", clouds.QuotaExceeded("It is used up."))
    two.cloud.refuse("terminate", *[clouds.ProviderUnavailable("No answer.")] * 3)
    launch = two.request(elsewhere=["spare"])
    for _ in range(3):
        launch = two.advance(launch)
        assert (launch.backend, len(orders.opened(two.at, launch))) == ("desk", 1)
        clock.move(seconds=launches.waits.RETRY_SECONDS)
    assert two.advance(launch).backend == "spare"


def test_what_another_place_cannot_mend_ends_the_launch(two: Bench) -> None:
    launch = two.advance(two.request(elsewhere=["spare"]))
    two.enrol(launch)
    two.report(launch, ("failed", "postBuild failed."))
    launch = two.until_stopped(launch)
    assert (launch.backend, launch.reason) == ("desk", "build_failed")
    assert spare(two).calls == []


def test_places_are_tried_in_the_order_they_were_named(two: Bench) -> None:
    third = add(two, "third")
    for cloud in (two.cloud, third):
        cloud.menu = []
    launch = two.advance(two.request(elsewhere=["third", "spare"]))
    assert launch.backend == "spare"


def test_a_budget_goes_along(two: Bench, clock: Clock) -> None:
    """What the first place has cost is gone from it at the second."""
    two.cloud.menu = ["small"]
    launch = two.advance(two.request(elsewhere=["spare"], hours=1, budget="1.55"))
    clock.move(minutes=two.at.settings.boot_minutes, seconds=1)
    launch = two.until_stopped(launch)
    assert (launch.backend, launch.reason) == ("spare", "budget")
    assert sum(order.settled or Decimal(0) for order in all_orders(two)) <= Decimal("1.55")


def test_the_seat_it_had_is_free_for_the_next(make_bench: Callable[..., Bench], clock: Clock) -> None:
    bench = make_bench()
    desk = bench.at.backends["desk"]
    bench.at.backends["desk"] = replace(desk, setting=desk.setting.model_copy(update={"max_sessions": 1}))
    add(bench, "spare", max_sessions=1)
    first = bench.request(elsewhere=["spare"])
    clock.move(seconds=1)
    second = bench.request()
    bench.cloud.refuse("provision", *[clouds.NoCapacity("Nothing is free.")] * 2)
    assert bench.advance(first).backend == "spare"
    assert bench.advance(second).state is State.STARTING
    assert bench.launch(first.id).seated_at is not None


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"max_sessions": 0}, "“Shut” cannot be gone on to: It takes no new sessions at the moment."),
        ({"most": {"memory_mb": 512}}, "“Shut” cannot be gone on to: This launch requires 1024 MB of memory"),
        ({"banned_specs": (".*",)}, "“Shut” cannot be gone on to: Sorry, "),
    ],
)
def test_a_place_that_could_not_run_it_is_said_when_it_is_named(
    bench: Bench, setting: dict[str, object], sentence: str
) -> None:
    add(bench, "shut", **setting)
    with pytest.raises(errors.BadField) as refused:
        bench.request(elsewhere=["shut"], memory_mb=1024)
    assert str(refused.value).startswith(sentence)
    assert refused.value.field == "elsewhere"


def test_a_place_that_there_is_not_is_said(bench: Bench) -> None:
    with pytest.raises(errors.BadField, match="“moon” cannot be gone on to: There is no backend called “moon”"):
        bench.request(elsewhere=["moon"])
