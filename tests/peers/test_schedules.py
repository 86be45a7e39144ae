"""Peers that lie, by seeded schedules (`--schedules N --seed S`): no launch runs twice, and none is lost silently."""

from __future__ import annotations

import gc
from collections.abc import Callable

import psutil
import pytest

from tests.broker.conftest import Bench
from tests.peers import lies, plans
from tests.peers.play import play

MEMORY_MOST = 64 * 1024 * 1024
"""What a schedule may leave behind: several times less than the lies that were told in it."""


def test_no_launch_runs_twice_and_none_is_lost(seed: int, make_bench: Callable[..., Bench]) -> None:
    before = psutil.Process().memory_info().rss
    outcome = play(plans.drawn(seed), make_bench)
    assert outcome.faults == [], str(outcome)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < MEMORY_MOST


@pytest.mark.parametrize("name", lies.LIES)
def test_each_lie_by_itself_is_survived(name: str, make_bench: Callable[..., Bench]) -> None:
    """At a first peer, with an honest one behind it: whatever the first says, the launch runs once, or says why not."""
    outcome = play(plans.of(name), make_bench)
    assert outcome.faults == [], str(outcome)


@pytest.mark.parametrize("says", lies.SAYS)
def test_each_lie_of_how_it_is_is_survived(says: str, make_bench: Callable[..., Bench]) -> None:
    outcome = play(plans.of("honest", says=says), make_bench)
    assert outcome.faults == [], str(outcome)
