"""What a launch may cost: asked for, shown, promised, kept to, and settled."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
import sqlalchemy as sa

from broker import budgets, errors, launches, orders
from broker.models import Launch, Order, State
from providers import base
from providers import errors as clouds
from providers.openstack.clouds import presets
from providers.openstack.offers import offer_of
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud, offer

HOUR = dt.timedelta(hours=1)
NOON = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)


def all_orders(bench: Bench) -> list[Order]:
    with bench.at.db.reading() as session:
        return list(session.scalars(sa.select(Order).order_by(Order.created_at)))


def longest(bench: Bench, launch: Launch) -> Decimal:
    """Hours from now until its deadline."""
    return Decimal((launch.deadline_at - bench.clock()).total_seconds()) / 3600


# --- sums -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sum_", "currency"),
    [
        ("2.50", "2.50", "USD"),
        ("$2", "2", "USD"),
        (" 500 su", "500", "SU"),
        (3, "3", "USD"),
        ("0.000001 EUR", "0.000001", "EUR"),
    ],
)
def test_a_budget_is_written_as_people_write_sums(text: str, sum_: str, currency: str) -> None:
    assert budgets.read(text) == budgets.Budget(amount=Decimal(sum_), currency=currency)


@pytest.mark.parametrize("text", ["", "much", "-1", "1e9", "2,50", "NaN", "1" * 12, "2.5 dollars", "0.0000001"])
def test_what_is_no_sum_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(errors.BadRequest, match=r"Write it like 2\.50"):
        budgets.read(text)


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("2.5", "USD", "$2.50"),
        ("0.481", "USD", "$0.49"),
        ("0.0042", "EUR", "€0.0042"),
        ("0", "USD", "$0.00"),
        ("500", "SU", "500 SU"),
    ],
)
def test_a_sum_is_never_shown_as_less_than_it_is(amount: str, currency: str, shown: str) -> None:
    assert budgets.money(Decimal(amount), currency) == shown


def test_a_price_is_shown_to_its_last_digit() -> None:
    assert budgets.rate(offer("a", "0.0416")) == "$0.0416 an hour"
    assert budgets.rate(offer("a", "2")) == "$2.00 an hour"
    assert budgets.rate(offer("a", "10", currency="SU")) == "10 SU an hour"
    assert budgets.rate(offer("a", None)) == "price unknown"


def test_what_is_settled_is_never_above_what_was_promised_for_the_same_time() -> None:
    third = offer("a", "0.333333")
    for seconds in range(1, 100):
        end = NOON + dt.timedelta(seconds=seconds, microseconds=7)
        assert budgets.settled(third, NOON, end) <= budgets.promised(third, NOON, end)  # type: ignore[operator]


# --- promised and settled -------------------------------------------------------------------------------------------


def test_the_price_for_the_longest_life_is_promised_before_anything_is_bought(bench: Bench) -> None:
    launch = bench.request(hours=2)
    bench.cloud.lose("provision", clouds.ProviderUnavailable("No answer."))
    launch = bench.advance(launch)
    (order,) = all_orders(bench)
    assert order.promised == budgets.promised(offer("small"), order.created_at, launch.deadline_at)
    assert order.promised > Decimal("1.00")  # getting ready is paid for as well


def test_what_was_asked_for_again_is_settled_from_the_first_time(bench: Bench, clock: Clock) -> None:
    """The first answer may have been lost, and the machine been there since."""
    bench.cloud.lose("provision", clouds.ProviderUnavailable("No answer."))
    launch = bench.advance(bench.request())
    clock.move(seconds=launches.waits.RETRY_SECONDS)
    launch = bench.advance(launch)
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    (order,) = all_orders(bench)
    assert order.settled == budgets.settled(offer("small"), order.first_asked_at, clock())
    assert order.settled and order.settled > 0


def test_an_order_that_was_refused_is_settled_too(bench: Bench) -> None:
    bench.cloud.refuse("provision", clouds.NoCapacity("No small one is free."))
    bench.advance(bench.request())
    refused, bought = all_orders(bench)
    assert (refused.refused, refused.settled, bought.settled) == ("no_capacity", Decimal(0), None)


def test_what_nobody_knows_the_price_of_is_settled_as_unknown_and_never_as_nothing(bench: Bench, clock: Clock) -> None:
    bench.cloud.menu = [offer("odd", None)]
    launch = bench.ready()
    clock.move(hours=1)
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    (order,) = all_orders(bench)
    assert order.closed_at is not None
    assert order.settled is None


def test_the_line_says_the_price_and_the_most_it_may_come_to(bench: Bench) -> None:
    launch = bench.advance(bench.request(hours=1))
    most = budgets.money(all_orders(bench)[0].promised, "USD")
    assert f"Starting on small for $0.50 an hour, at most {most}." in bench.said(launch)


# --- kept to --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_the_budget_is_skipped(bench: Bench) -> None:
    bench.cloud.menu = [offer("dear", "5.00"), offer("cheap", "0.10")]
    bench.advance(bench.request(hours=1, budget="1.00", prefer="ready"))
    assert [order.offer["id"] for order in all_orders(bench)] == ["cheap"]


def test_where_nothing_fits_it_fails_with_the_cheapest_price_the_hours_the_sum_and_what_to_do(bench: Bench) -> None:
    launch = bench.until_stopped(bench.request(hours=1, budget="0.20"))
    assert (launch.reason, launch.state, all_orders(bench)) == ("budget", State.STOPPED, [])
    assert launch.message == (
        "The cheapest machine there that is left costs $0.50 an hour, which is $1.50 for the 3 hours that it may last with "
        "getting ready; the budget of this launch is $0.20. Ask for fewer hours, or raise the budget to $1.50."
    )
    assert errors.BudgetExceeded.status_code == 402


def test_what_an_earlier_order_has_cost_is_gone_from_the_budget(bench: Bench, clock: Clock) -> None:
    """A machine that never reports is paid for all the same."""
    bench.cloud.menu = [offer("first", "0.50"), offer("second", "0.60")]
    launch = bench.advance(bench.request(hours=1, budget="1.55"))
    clock.move(minutes=bench.at.settings.boot_minutes, seconds=1)
    launch = bench.until_stopped(launch)
    assert launch.reason == "budget"
    assert "of which $1.47 is left" in launch.message
    assert sum(order.settled for order in all_orders(bench) if order.settled) <= Decimal("1.55")


def test_a_budget_and_an_unknown_price_do_not_go_together(bench: Bench) -> None:
    bench.cloud.menu = [offer("odd", None)]
    launch = bench.until_stopped(bench.request(budget="100"))
    assert launch.message.startswith(
        "Nobody knows what a machine there costs, and the budget of this launch is $100.00."
    )


def test_service_units_and_money_are_never_compared(bench: Bench) -> None:
    bench.cloud.menu = [offer("m3.small", "2", currency="SU")]
    launch = bench.until_stopped(bench.request(budget="100"))
    assert "Machines there are counted in SU, and the budget of this launch is $100.00" in launch.message
    bench.advance(bench.request(budget="100 SU", hours=1))
    assert [order.promised for order in all_orders(bench)] == [Decimal(6)]


def test_the_transaction_that_opens_the_order_looks_again(bench: Bench) -> None:
    """Whatever was read before: two orders of one launch never promise more than its budget together."""
    launch = bench.request(hours=1, budget="2.00")
    launch = bench.advance(launch)
    with pytest.raises(errors.BudgetExceeded, match="of which"):
        orders.open_order(bench.at, launch, offer("large"), hedge=True)
    assert len(all_orders(bench)) == 1


def test_only_who_holds_the_lease_opens_an_order(bench: Bench) -> None:
    launch = bench.request()
    launch.lease = "somebody else"
    with pytest.raises(errors.LeaseLost):
        orders.open_order(bench.at, launch, offer("small"))


def test_the_operator_may_cap_what_one_launch_costs(bench: Bench) -> None:
    backend = bench.at.backends["desk"]
    capped = backend.setting.model_copy(update={"max_price": Decimal("1.00")})
    bench.at.backends["desk"] = replace(backend, setting=capped)
    launch = bench.until_stopped(bench.request(hours=1))
    assert "what one launch may cost there is $1.00. Ask for fewer hours, or choose another place." in launch.message
    bench.cloud.menu = [offer("cheap", "0.10")]
    assert bench.advance(bench.request(hours=1)).state is State.STARTING


# --- asking for it --------------------------------------------------------------------------------------------------


def test_money_is_part_of_what_a_name_stands_for(bench: Bench) -> None:
    first = bench.request(name="a", budget="5")
    assert bench.request(name="a", budget="5").id == first.id
    with pytest.raises(errors.NameTaken, match=r"the budget is \$5.00 there, \$6.00 here"):
        bench.request(name="a", budget="6")


def test_a_launch_without_any_of_it_has_the_fingerprint_it_had_before(bench: Bench) -> None:
    plain, spelled_out = (
        bench.request(name="a"),
        bench.request(name="b", prefer="price", spot=False, elsewhere=["desk"]),
    )
    assert plain.fingerprint == spelled_out.fingerprint


def test_a_budget_that_cannot_be_read_is_said_at_its_field(bench: Bench) -> None:
    with pytest.raises(errors.BadField, match="no budget") as refused:
        bench.request(budget="a lot")
    assert refused.value.field == "budget"


def test_machines_that_may_be_taken_away_are_only_for_who_takes_them(bench: Bench) -> None:
    bench.cloud.menu = [offer("spot", "0.10", risk="It may be taken away."), offer("plain", "0.30")]
    bench.advance(bench.request(name="a"))
    bench.advance(bench.request(name="b", spot=True))
    assert [order.offer["id"] for order in all_orders(bench)] == ["plain", "spot"]


def test_a_project_whose_quota_is_full_is_told_so_and_not_to_take_other_machines(bench: Bench) -> None:
    flavor = {"id": "f1", "name": "m3.small", "vcpus": 2, "ram": 4096, "disk": 20}
    full = offer_of(flavor, presets()["jetstream2"], room={"machines": 0}, zone="", volume_gb=0)
    bench.cloud.menu = [full]
    launch = bench.until_stopped(bench.request())
    assert (launch.reason, bench.cloud.bought) == ("quota", [])
    assert "quota has room for 0 more machines only. End something there" in launch.message


def test_what_the_quota_has_no_room_for_is_passed_over(bench: Bench) -> None:
    bench.cloud.menu = [offer("large", "0.10", beyond="The quota has room for 0 more."), offer("small", "0.30")]
    bench.advance(bench.request(name="a"))
    bench.advance(bench.request(name="b", spot=True))
    assert [order.offer["id"] for order in all_orders(bench)] == ["small", "small"]


# --- the order of offers --------------------------------------------------------------------------------------------


def test_offers_are_tried_by_price_the_unknown_last_and_zones_as_they_come(bench: Bench) -> None:
    bench.cloud.menu = [
        offer("odd", None),
        offer("large-a", "0.40"),
        offer("small-b", "0.05"),
        offer("small-a", "0.05"),
    ]
    bench.cloud.refuse("provision", *[clouds.NoCapacity("None.")] * 3)
    bench.advance(bench.request())
    assert [order.offer["id"] for order in all_orders(bench)] == ["small-b", "small-a", "large-a", "odd"]


def test_by_readiness_our_own_history_goes_before_what_the_provider_guesses(
    make_bench: Callable[..., Bench], clock: Clock
) -> None:
    slow, quick = offer("slow", "0.10", usual_seconds=10.0), offer("quick", "0.20", usual_seconds=60.0)
    unknown = offer("unknown", "0.05")
    cloud = DeskCloud()
    bench = make_bench(cloud)
    cloud.menu = [unknown, quick, slow]
    assert ordered(bench, "a") == "slow"
    cloud.menu = [slow]
    took(bench, clock, seconds=300)
    cloud.menu = [unknown, quick, slow]
    assert ordered(bench, "b") == "quick"


def test_what_had_to_build_says_nothing_of_what_needs_not(bench: Bench, clock: Clock) -> None:
    """The first launch of a commit builds; the next of the same finds the image there."""
    bench.cloud.menu = [offer("a", "0.10", usual_seconds=5.0)]
    took(bench, clock, ("building", "Building"), seconds=600)
    took(bench, clock, ("launching", "Launching"), seconds=20)
    bench.cloud.menu = [offer("b", "0.10", usual_seconds=100.0), offer("a", "0.10", usual_seconds=5.0)]
    assert ordered(bench, "c") == "a"  # 20 s with its image there, not 600


def ordered(bench: Bench, name: str) -> str:
    launch = bench.advance(bench.request(name=name, prefer="ready"))
    return str(bench.order(launch).offer["id"])


def took(bench: Bench, clock: Clock, *lines: tuple[str, str], seconds: float) -> None:
    """A launch that was ready after so long, and is over."""
    from broker import sessions

    launch = bench.advance(bench.request())
    bench.enrol(launch)
    clock.move(seconds=seconds)
    bench.report(launch, *lines, server="up", kind="jupyter")
    sessions.tunnelled(bench.at, launch.id)
    launch = bench.advance(launch)
    assert launch.state is State.READY
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)


def test_the_offers_that_were_tried_elsewhere_do_not_count_here(bench: Bench) -> None:
    assert isinstance(bench.cloud, base.Provider)
    launch = bench.advance(bench.request())
    launch.backend = "other"
    assert orders.tried(bench.at, launch) == []
