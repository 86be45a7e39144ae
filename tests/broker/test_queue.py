"""The embedded queue: a hint that is kept, and survives what it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from broker.queue import FRESH_IN_A_ROW, EmbeddedQueue, Waiting
from tests.waiting import until


@pytest.fixture
def queue() -> Iterator[EmbeddedQueue]:
    made = EmbeddedQueue(threads=2)
    yield made
    made.stop()


def test_what_was_queued_before_the_start_runs_after_it(queue: EmbeddedQueue) -> None:
    ran: list[str] = []
    queue.enqueue("note", "early")
    queue.start({"note": ran.append}, {})
    until(lambda: ran == ["early"])


def test_a_delayed_task_runs_after_a_sooner_one(queue: EmbeddedQueue) -> None:
    ran: list[str] = []
    queue.enqueue("note", "late", delay=0.05)
    queue.enqueue("note", "soon")
    queue.start({"note": ran.append}, {})
    until(lambda: ran == ["soon", "late"])


def test_the_same_task_waiting_twice_runs_once(queue: EmbeddedQueue) -> None:
    ran: list[str] = []
    for _ in range(5):
        queue.enqueue("note", "once")
    queue.enqueue("note", "last", delay=0.02)
    queue.start({"note": ran.append}, {})
    until(lambda: "last" in ran)
    assert ran == ["once", "last"]


def test_a_sooner_wish_for_the_same_task_is_not_held_up_by_a_later_one(queue: EmbeddedQueue) -> None:
    ran: list[str] = []
    queue.enqueue("note", "x", delay=3600)
    queue.start({"note": ran.append}, {})
    queue.enqueue("note", "x")
    until(lambda: ran == ["x"])


def test_a_task_queued_again_while_it_runs_runs_again(queue: EmbeddedQueue) -> None:
    running, go_on, ran = threading.Event(), threading.Event(), []

    def slow(name: str) -> None:
        running.set()
        go_on.wait(5)
        ran.append(name)

    queue.start({"slow": slow}, {})
    queue.enqueue("slow", "x")
    assert running.wait(5)
    queue.enqueue("slow", "x")
    go_on.set()
    until(lambda: ran == ["x", "x"])


def test_a_task_that_fails_does_not_take_its_thread_with_it(queue: EmbeddedQueue) -> None:
    ran: list[str] = []

    def fail() -> None:
        raise ValueError

    queue.start({"fail": fail, "note": ran.append}, {})
    for _ in range(3):
        queue.enqueue("fail")
        queue.enqueue("fail", delay=0.001)
    queue.enqueue("note", "alive", delay=0.02)
    until(lambda: ran == ["alive"])


def test_tasks_that_run_by_themselves_go_on_after_a_failure(queue: EmbeddedQueue) -> None:
    runs: list[int] = []

    def tick() -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError

    queue.start({"tick": tick}, {"tick": 0.001})
    until(lambda: len(runs) >= 3)


# --- the order ------------------------------------------------------------------------------------------------------

CLICKS = [("advance", (f"click-{number}",)) for number in range(20)]
LOOKS = [("advance", (f"look-{number}",)) for number in range(20)]


def test_a_click_goes_before_looks_that_are_late() -> None:
    waiting = Waiting()
    for look in LOOKS:
        waiting.add(look, 0.0, 1.0)
    waiting.add(CLICKS[0], 9.0, None)
    assert [waiting.take(9.0) for _ in range(3)] == [CLICKS[0], LOOKS[0], LOOKS[1]]


def test_looks_go_on_however_many_clicks_come() -> None:
    waiting = Waiting()
    for look in LOOKS:
        waiting.add(look, 0.0, 1.0)
    taken = []
    for number in range(12):
        waiting.add(("advance", (f"click-{number}",)), 9.0, None)
        waiting.add(("advance", (f"other-{number}",)), 9.0, None)
        taken.append(waiting.take(9.0))
    assert [taken.index(look) for look in LOOKS[:3]] == [
        FRESH_IN_A_ROW,
        2 * FRESH_IN_A_ROW + 1,
        3 * FRESH_IN_A_ROW + 2,
    ]


def test_looks_that_are_not_due_hold_up_nothing_and_are_not_taken() -> None:
    waiting = Waiting()
    waiting.add(LOOKS[0], 0.0, 10.0)
    for click in CLICKS:
        waiting.add(click, 0.0, None)
    assert [waiting.take(1.0) for _ in CLICKS] == CLICKS
    assert (waiting.take(1.0), waiting.seconds(1.0)) == (None, 9.0)
    assert waiting.take(10.0) == LOOKS[0]
    assert (waiting.take(10.0), waiting.seconds(10.0)) == (None, None)


def test_a_late_look_that_is_wished_again_keeps_its_place_and_a_nudge_gives_it_a_better_one() -> None:
    waiting = Waiting()
    for look in LOOKS[:3]:
        waiting.add(look, 0.0, 1.0)
    assert not waiting.add(LOOKS[0], 5.0, 0.0)
    assert waiting.add(LOOKS[2], 5.0, None)
    assert not waiting.add(LOOKS[2], 5.0, 0.0)
    assert [waiting.take(5.0) for _ in range(4)] == [LOOKS[2], LOOKS[0], LOOKS[1], None]
