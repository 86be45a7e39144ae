"""What places cost, on pages that wait for no cloud."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal

import pytest

from broker import backends, menus, people, placement, settings, targets
from providers import base
from providers import errors as clouds
from providers.fake.driver import KINDS
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud, offer
from tests.waiting import until


class Hanging(DeskCloud):
    """Offers nothing before it is let go."""

    released = threading.Event()

    def offers(self, credential: base.Credential, resources: base.Resources) -> list[base.Offer]:
        assert self.released.wait(30)
        return super().offers(credential, resources)


def shown(bench: Bench, name: str = "desk") -> placement.Place:
    return next(place for place in placement.places(bench.at, people.LOCAL) if place.name == name)


def test_a_page_asks_no_cloud_and_says_that_the_price_is_being_asked_for(bench: Bench) -> None:
    assert shown(bench).price == ("its price is being asked for",)
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


def test_one_cloud_that_hangs_holds_up_no_other(make_bench: Callable[..., Bench]) -> None:
    hanging, released = Hanging(), threading.Event()
    hanging.released = released
    bench = make_bench(hanging)
    other = DeskCloud()
    setting = settings.BackendSetting(name="other", provider="fake")
    bench.at.backends["other"] = backends.Backend(name="other", title="Other", provider=other, setting=setting)
    placement.places(bench.at, people.LOCAL)
    threads = menus.begin(bench.at)
    until(lambda: shown(bench, "other").price[0] == "from $0.50 an hour")
    bench.clock.move(seconds=12)
    assert shown(bench).news == "Desk has not answered for 12 s."
    assert shown(bench).asking
    assert [place.name for place in placement.places(bench.at, people.LOCAL)] == ["other", "desk"]
    assert menus.begin(bench.at) == []  # it is not asked twice at once
    released.set()
    for thread in threads:
        thread.join()
    assert shown(bench).price[0] == "from $0.50 an hour"
    assert not shown(bench).news


def test_many_accounts_of_one_cloud_are_asked_a_few_at_a_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(Hanging())
    bench.cloud.released = released = threading.Event()
    desk = backends.named(bench.at, "desk")
    for cpu in range(1, 13):
        menus.want(bench.at, desk, None, base.Resources(cpu=cpu))
    threads = menus.begin(bench.at)
    assert len(threads) == menus.THREADS
    released.set()
    for thread in threads:
        thread.join()
    assert menus.fill(bench.at) == 12 - menus.THREADS


def test_whoever_listens_hears_of_each_answer(bench: Bench) -> None:
    async def heard() -> bool:
        with menus.listening(bench.at) as wake:
            shown(bench)
            menus.begin(bench.at)
            return await wake.wait(30)

    assert asyncio.run(heard())


def test_a_cloud_in_trouble_is_asked_again_soon_and_what_it_said_before_is_kept(bench: Bench, clock: Clock) -> None:
    shown(bench)
    menus.fill(bench.at)
    clock.move(minutes=11)
    bench.cloud.refuse("offers", clouds.ProviderUnavailable("It has an outage."))
    shown(bench)
    menus.fill(bench.at)
    assert shown(bench).news == "It could not be asked: It has an outage."
    assert shown(bench).price[0] == "from $0.50 an hour"
    assert menus.fill(bench.at) == 0
    clock.move(seconds=31)
    shown(bench)
    assert menus.fill(bench.at) == 1
    assert not shown(bench).news


def test_a_refusal_is_called_one(bench: Bench) -> None:
    bench.cloud.refuse("sign_in", clouds.BadCredential("The key was revoked."))
    shown(bench)
    menus.fill(bench.at)
    assert shown(bench).news == "It refused: The key was revoked."


def test_what_goes_wrong_with_one_question_stays_with_it(bench: Bench) -> None:
    bench.cloud.refuse("offers", ZeroDivisionError())
    shown(bench)
    menus.fill(bench.at)
    assert "its log says what" in shown(bench).news
    assert shown(bench).closed is None


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
