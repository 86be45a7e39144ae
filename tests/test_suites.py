"""Which suites run beside one another, and in which order they begin."""

from __future__ import annotations

import io
import sys
import threading
import time

from tests.suites import LANES, Result, Suite, in_lanes, next_beside, summary, watch


def suite(name: str, usually: int, *, makes_devices: bool = False) -> Suite:
    return Suite(
        name=name, about=name, minutes=1, usually=usually, commands=lambda _options: [], makes_devices=makes_devices
    )


LONG, SHORT = suite("long", 9), suite("short", 1)
ONE, OTHER = suite("one", 3, makes_devices=True), suite("other", 2, makes_devices=True)


def test_the_longest_begins_first():
    assert next_beside([SHORT, LONG], []) is LONG


def test_those_that_wait_for_one_another_begin_before_all_others():
    assert next_beside([SHORT, LONG, OTHER, ONE], []) is ONE


def test_no_two_that_make_devices_run_beside_one_another():
    assert next_beside([SHORT, OTHER, LONG], [ONE]) is LONG
    assert next_beside([OTHER], [ONE]) is None


def test_each_is_run_once_and_never_more_at_a_time_than_there_are_lanes():
    running: set[str] = set()
    beside: list[set[str]] = []
    lock = threading.Lock()

    def play(each: Suite) -> Result:
        with lock:
            running.add(each.name)
            beside.append(set(running))
        result = Result(name=each.name, seconds=0)
        with lock:
            running.remove(each.name)
        return result

    done = in_lanes([SHORT, OTHER, LONG, ONE], play)
    assert sorted(result.name for result in done) == ["long", "one", "other", "short"]
    assert max(map(len, beside)) <= LANES
    assert not any({"one", "other"} <= names for names in beside)


def test_the_tests_that_failed_are_named_at_the_end_where_a_shortened_record_still_has_them():
    lines = ["FAILED tests/a.py::test_it[x y] - assert 1 == 2", "ERROR tests/b.py::TestIt::test_that", "FAILED to say"]
    program = (sys.executable, "-c", f"print({chr(10).join(lines)!r})")
    code, _, culprits = watch(program, io.StringIO(), deadline=time.monotonic() + 60)
    assert code == 0
    assert culprits == ["FAILED tests/a.py::test_it[x y]", "ERROR tests/b.py::TestIt::test_that"]
    said = summary([Result(name="a", seconds=1, failed=("pytest ended with 1",), culprits=tuple(culprits))], 1, 0.5)
    assert "ERROR tests/b.py::TestIt::test_that" in said
