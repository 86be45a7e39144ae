"""The choice: what is shown of each place, and which comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from itertools import permutations

import pytest

from broker import backends, menus, people, placement, repos, resources, settings
from providers import base
from tests.broker.conftest import Bench, Clock
from tests.doubles.desk_cloud import DeskCloud, offer

GIGABYTE = 1024
FREE = placement.Place(name="free", title="Free", price_per_hour=Decimal(0), ready_seconds=20.0)
SLOW = replace(FREE, name="slow", ready_seconds=600.0)
PAID = placement.Place(name="paid", title="Paid", price_per_hour=Decimal("0.04"), ready_seconds=90.0)
DEAR = replace(PAID, name="dear", price_per_hour=Decimal("0.5"), ready_seconds=10.0)
UNITS = replace(PAID, name="units", price_per_hour=Decimal(1), currency="SU")
UNKNOWN = placement.Place(name="unknown", title="Unknown")
CONNECT = replace(PAID, name="connect", closed="Connect your own account there first.", needs=("connect",))
SHUT = replace(FREE, name="shut", closed="It is open to others: group staff.")
ALL = (FREE, SLOW, PAID, DEAR, UNITS, UNKNOWN, CONNECT, SHUT)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("best", ["free", "slow", "paid", "dear", "units", "unknown", "connect", "shut"]),
        ("price", ["free", "slow", "paid", "dear", "units", "unknown", "connect", "shut"]),
        ("soonest", ["dear", "free", "paid", "units", "slow", "unknown", "connect", "shut"]),
    ],
)
def test_whatever_order_they_come_in_they_are_sorted_the_same(by: str, names: list[str]) -> None:
    for some in list(permutations(ALL))[::997]:
        found = [place.name for place in placement.ordered(some, by)]
        if by == "soonest":  # two take equally long
            found = [name for name in found if name != "units"]
            assert found == [name for name in names if name != "units"]
        elif by == "price":  # two cost nothing
            assert found[2:] == names[2:]
        else:
            assert found == names


def test_who_has_to_sign_in_again_finds_what_needs_nothing_first() -> None:
    again = replace(FREE, name="again", needs=("sign in",))
    assert [place.name for place in placement.ordered([again, PAID])] == ["paid", "again"]


def test_a_cloud_in_trouble_comes_after_those_that_answer() -> None:
    silent = replace(FREE, name="silent", news="Silent has not answered for 12 s.")
    assert [place.name for place in placement.ordered([silent, DEAR])] == ["dear", "silent"]


def asked(bench: Bench, question: placement.Question = placement.Question(), *, fill: bool = True) -> placement.Place:
    """The desk, once its cloud has answered."""
    placement.places(bench.at, people.LOCAL, question)
    if fill:
        menus.fill(bench.at)
    return next(place for place in placement.places(bench.at, people.LOCAL, question) if place.name == "desk")


def of_repository(bench: Bench, **required: float) -> placement.Question:
    found = bench.at.repos.resolve(repos.RepoSpec.parse(bench.repo))
    needs = resources.Asked(required=base.Resources(**required), file=".binder/resources.yaml")
    return placement.Question(found=found, asked=needs)


def test_what_the_session_costs_stands_beside_what_an_hour_costs(bench: Bench) -> None:
    bench.cloud.menu = [offer("only", "0.04")]
    place = asked(bench)
    assert (place.price_per_hour, place.price_for_session, place.hours) == (Decimal("0.04"), Decimal("0.56"), 12)
    shorter = asked(bench, placement.Question(wanted=base.Resources(hours=1)))
    assert (shorter.price_for_session, shorter.hours) == (Decimal("0.12"), 1)
    assert asked(bench, placement.Question(wanted=base.Resources(hours=99))).hours == 12


def test_a_repository_that_needs_too_much_for_a_place_is_told_so(make_bench: Callable[..., Bench]) -> None:
    bench = with_limit(make_bench, memory_mb=8 * GIGABYTE)
    place = asked(bench, of_repository(bench, memory_mb=16 * GIGABYTE))
    assert place.closed == (
        "This repository needs 16 GB of memory: too much for this place, where a session has at most 8 GB of memory."
    )
    assert asked(bench, of_repository(bench, memory_mb=4 * GIGABYTE)).closed is None


def test_a_cloud_that_has_nothing_so_large_says_so(bench: Bench) -> None:
    bench.cloud.menu = []
    place = asked(bench, of_repository(bench, gpu=8))
    assert place.closed == "Nothing there has 8 GPUs. Ask for less, or choose another place."


def test_the_cloud_is_asked_for_what_the_session_would_have(bench: Bench) -> None:
    asked(bench, of_repository(bench, memory_mb=4 * GIGABYTE))
    assert bench.cloud.asked[-1] == base.Resources(memory_mb=4 * GIGABYTE)


def test_only_sizes_that_can_be_had_there_are_named(make_bench: Callable[..., Bench]) -> None:
    assert asked(with_limit(make_bench)).sizes == ("small", "medium", "large")
    assert asked(with_limit(make_bench, memory_mb=8 * GIGABYTE)).sizes == ("small", "medium")


def test_a_size_that_the_cloud_was_found_not_to_have_is_not_named(bench: Bench) -> None:
    large = next(size for size in bench.at.settings.sizes if size.name == "large")
    assert "large" in (asked(bench).sizes or ())
    bench.cloud.menu = []
    asked(bench, placement.Question(wanted=large.resources))
    bench.cloud.menu = ["small"]
    assert asked(bench).sizes == ("small", "medium")


def test_what_is_less_than_was_wanted_is_said(make_bench: Callable[..., Bench]) -> None:
    bench = with_limit(make_bench, cpu=2)
    place = asked(bench, placement.Question(wanted=base.Resources(cpu=16)))
    assert place.closed is None
    assert "A session there has at most 2 processors, so it gets that instead of 16." in place.reasons


def test_the_reasons_are_words(bench: Bench) -> None:
    bench.cloud.menu = [offer("only", "0.04", usual_seconds=90.0)]
    assert asked(bench).reasons == ("$0.04 an hour", "ready in about 90 s")
    assert asked(bench).ready_seconds == 90


def test_own_measure_goes_before_the_providers_guess_and_a_build_is_no_measure_of_none(
    bench: Bench, clock: Clock
) -> None:
    bench.cloud.menu = [offer("only", "0.04", usual_seconds=90.0)]
    launch = bench.advance(bench.request())
    clock.move(seconds=300)
    bench.enrol(launch)
    bench.report(launch, ("building", "Building."), server="up", kind="app")
    from broker import sessions

    sessions.tunnelled(bench.at, launch.id)
    bench.advance(launch)
    here = asked(bench, of_repository(bench))
    assert (here.ready_seconds, here.built) == (300, False)  # this cloud keeps nothing that was built on it
    clock.move(seconds=1)
    bench.ready(name="second")
    again = asked(bench, of_repository(bench))
    assert again.built
    assert "image already there" in again.reasons
    assert again.ready_seconds == 0  # of the launch that built nothing


def test_what_has_to_be_done_before_is_named(make_bench: Callable[..., Bench]) -> None:
    assert asked(make_bench()).needs == ()
    at_home = make_bench(AtHome())
    assert asked(at_home).needs == ("agree",)
    assert "runs as you" in asked(at_home).reasons


class AtHome(DeskCloud):
    """Machines that are this computer."""

    on_this_computer = True


def with_limit(make_bench: Callable[..., Bench], **most: float) -> Bench:
    """A desk where a session has at most this."""
    setting = settings.BackendSetting(name="desk", provider="fake", most=settings.ResourceSetting(**most))
    bench = make_bench(backends=(setting,))
    bench.at.backends["desk"] = backends.Backend(name="desk", title="Desk", provider=bench.cloud, setting=setting)
    return bench
