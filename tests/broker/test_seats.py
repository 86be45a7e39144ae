"""A full backend lets launches wait, the oldest first, and says how long."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from broker import backends, launches, people, seats, settings, wishes
from broker.models import Launch, State
from tests.broker.conftest import Bench


def limit(bench: Bench, most: int | None) -> Bench:
    setting = settings.BackendSetting(name="desk", provider="fake", max_sessions=most)
    bench.at.backends["desk"] = replace(bench.at.backends["desk"], setting=setting)
    return bench


@pytest.fixture
def full(bench: Bench) -> Bench:
    """Two seats."""
    return limit(bench, 2)


def ask(bench: Bench) -> Launch:
    bench.clock.move(seconds=1)
    return bench.advance(bench.request())


def end(bench: Bench, launch: Launch) -> None:
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)


def test_whoever_comes_too_many_waits_and_is_told_for_whom(full: Bench) -> None:
    assert [ask(full).state for _ in range(2)] == [State.STARTING] * 2
    third, fourth = ask(full), ask(full)
    assert (third.state, fourth.state) == (State.WAITING, State.WAITING)
    assert full.said(third)[-1] == "Everything is taken; waiting for a free seat. You are next."
    assert full.said(fourth)[-1] == "Everything is taken; waiting for a free seat. 1 before you."
    assert full.phases(fourth)[-1] == "waiting"


def test_a_seat_that_gets_free_goes_to_the_one_who_waited_longest(full: Bench) -> None:
    first, second, third, fourth = (ask(full) for _ in range(4))
    end(full, second)
    assert full.advance(third).state is State.STARTING
    assert full.advance(fourth).state is State.WAITING
    full.clock.move(seconds=seats.LOOK_SECONDS)
    assert full.advance(fourth).state is State.WAITING
    assert "You are next" in full.said(fourth)[-1]
    end(full, first)
    assert full.advance(fourth).state is State.STARTING


def test_nobody_who_comes_later_is_let_in_first(full: Bench) -> None:
    first, _, third = (ask(full) for _ in range(3))
    end(full, first)
    late = ask(full)
    assert full.launch(late.id).state is State.WAITING
    assert full.advance(third).state is State.STARTING


def test_whoever_stops_waiting_makes_nobody_wait(full: Bench) -> None:
    first, _, third, fourth = (ask(full) for _ in range(4))
    end(full, third)
    end(full, first)
    assert full.advance(fourth).state is State.STARTING


def test_the_expected_time_comes_from_how_long_seats_were_taken(full: Bench) -> None:
    first, second = ask(full), ask(full)
    full.clock.move(minutes=10)
    end(full, first)
    end(full, second)
    ask(full), ask(full), ask(full)
    assert full.said(ask(full))[-1].endswith("1 before you, about 10 minutes.")


def test_the_time_spent_waiting_is_not_taken_from_the_session(full: Bench) -> None:
    first, _, third = (ask(full) for _ in range(3))
    full.clock.move(hours=3)
    end(full, first)
    third = full.advance(third)
    assert third.deadline_at >= full.clock.time + dt.timedelta(hours=third.hours)


def wanted(launch: Launch):
    import datetime as dt

    return dt.timedelta(hours=launch.hours)


def test_the_same_words_are_not_said_twice(full: Bench) -> None:
    *_, third = (ask(full) for _ in range(3))
    before = full.said(third)
    for _ in range(3):
        full.clock.move(seconds=seats.LOOK_SECONDS)
        full.advance(third)
    assert full.said(third) == before


def test_a_hundred_at_once_get_no_more_seats_than_there_are(make_bench: Callable[..., Bench]) -> None:
    bench = limit(make_bench(), 7)
    launched = [bench.request(name=f"n{number}") for number in range(30)]
    threads = [threading.Thread(target=launches.advance, args=(bench.at, one.id)) for one in launched]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = [bench.launch(one.id).state for one in launched]
    assert states.count(State.STARTING) == 7
    assert states.count(State.WAITING) == 23


def test_a_backend_without_a_limit_lets_everybody_in(bench: Bench) -> None:
    assert backends.named(bench.at, "desk").setting.max_sessions is None
    assert {ask(bench).state for _ in range(5)} == {State.STARTING}


def visit(bench: Bench) -> Launch:
    """A visitor's launch, as `/build` asks for it."""
    bench.clock.move(seconds=1)
    return bench.advance(launches.request(bench.at, people.ANONYMOUS, wishes.Wish(repo=bench.repo))[0])


def test_a_visitor_who_has_left_keeps_nobody_waiting(make_bench: Callable[..., Bench]) -> None:
    bench = limit(make_bench(binder_backend="desk"), 1)
    first, left, stays = visit(bench), visit(bench), visit(bench)
    for _ in range(5):
        bench.clock.move(seconds=30)
        seats.follow(bench.at, stays.id)
        left, stays = bench.advance(left), bench.advance(stays)
    bench.until_stopped(left)
    assert bench.launch(left.id).reason == "left"
    assert bench.phases(left)[-1] == "failed"
    assert stays.state is State.WAITING
    end(bench, first)
    assert bench.advance(stays).state is State.STARTING


def test_who_is_signed_in_may_leave_and_come_back(full: Bench) -> None:
    *_, third = (ask(full) for _ in range(3))
    full.clock.move(hours=1)
    assert full.advance(third).state is State.WAITING


def test_following_what_has_its_seat_changes_nothing(bench: Bench) -> None:
    launch = ask(bench)
    bench.clock.move(hours=1)
    seats.follow(bench.at, launch.id)
    assert bench.launch(launch.id).followed_at == launch.followed_at
