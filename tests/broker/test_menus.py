"""What places cost, on pages that wait for no cloud."""

from __future__ import annotations

from decimal import Decimal

import pytest

from broker import menus, people, placement, targets
from providers import errors as clouds
from providers.fake.driver import KINDS
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import offer


def shown(bench: Bench) -> placement.Place:
    return next(place for place in placement.places(bench.at, people.LOCAL) if place.name == "desk")


def test_a_page_asks_no_cloud_and_says_that_the_price_is_being_asked_for(bench: Bench) -> None:
    assert shown(bench).price == ("its price is being asked for: load this page again in a moment",)
    assert bench.cloud.calls == []


def test_who_checks_an_account_finds_its_price_in_the_form(bench: Bench) -> None:
    bench.cloud.kinds = (KINDS["kept"],)
    target = targets.named(bench.at, people.LOCAL, "desk")
    targets.connect(bench.at, people.LOCAL, target, "kept", {"key": "the-fake-key"})
    assert targets.check(bench.at, people.LOCAL, targets.named(bench.at, people.LOCAL, "desk")).works
    assert menus.fill(bench.at) == 1
    assert shown(bench).price[0] == "from $0.50 an hour"


def test_what_was_asked_beside_the_page_is_on_the_next_one(bench: Bench) -> None:
    source = {"price_source": "a price list", "price_as_of": "2026-11-20"}
    bench.cloud.menu = [offer("odd", None), offer("dear", "2"), offer("cheap", "0.04", **source)]
    shown(bench)
    assert menus.fill(bench.at) == 1
    place = shown(bench)
    assert place.price_per_hour == Decimal("0.04")
    assert place.price == (
        "from $0.04 an hour",
        "at most $0.56 for 12 hours and up to 2 hours of getting ready",
        "price of 2026-11-20 by a price list",
    )


def test_what_may_be_taken_away_is_not_what_it_costs(bench: Bench) -> None:
    bench.cloud.menu = [offer("spot", "0.01", risk="It may be taken away."), offer("plain", "0.04")]
    shown(bench)
    menus.fill(bench.at)
    assert shown(bench).price_per_hour == Decimal("0.04")


def test_it_is_asked_again_when_it_is_ten_minutes_old_and_not_before(bench: Bench, clock: Clock) -> None:
    shown(bench)
    menus.fill(bench.at)
    shown(bench)
    assert menus.fill(bench.at) == 0
    clock.move(minutes=11)
    assert shown(bench).price_per_hour is not None  # what was known is shown meanwhile
    assert menus.fill(bench.at) == 1


def test_a_price_of_the_day_before_yesterday_is_unknown(bench: Bench, clock: Clock) -> None:
    shown(bench)
    menus.fill(bench.at)
    clock.move(hours=25)
    assert shown(bench).price == placement.ASKED_FOR


@pytest.mark.parametrize("refusal", [clouds.BadCredential("No."), clouds.ProviderUnavailable("No answer.")])
def test_a_cloud_that_does_not_answer_leaves_the_price_unknown(bench: Bench, refusal: clouds.ProviderError) -> None:
    bench.cloud.refuse("sign_in", refusal)
    shown(bench)
    menus.fill(bench.at)
    assert shown(bench).price == ("price unknown",)


def test_a_provider_that_breaks_keeps_no_other_from_being_asked(bench: Bench) -> None:
    bench.cloud.refuse("offers", KeyError("InstanceTypes"))
    shown(bench)
    menus.fill(bench.at)
    assert shown(bench).price == ("price unknown",)
