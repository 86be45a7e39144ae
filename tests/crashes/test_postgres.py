"""The same on PostgreSQL: two processes or three on one table that several may write to at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from tests.crashes import plans
from tests.crashes.conftest import NOWHERE, Lanes, seeds_of
from tests.crashes.play import Outcome


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, postgres: Any) -> Iterator[dict[int, Future[Outcome]]]:
    """All of them under way, each on a database of its own; those end with the server."""
    lanes = Lanes(NOWHERE, postgres.new_database)
    yield {seed: lanes.submit(plan(seed)) for seed in seeds_of(request, "postgres_seed")}
    lanes.close()


def plan(seed: int) -> plans.Plan:
    """What the seed draws, but never all in one process."""
    drawn = plans.drawn(seed)
    if drawn.shape != "one process":
        return drawn
    kills = tuple(replace(kill, part="worker") if kill.part == "all" else kill for kill in drawn.kills)
    return replace(drawn, shape="two workers", kills=kills)


def test_every_launch_comes_to_an_end_and_nothing_is_left(
    postgres_seed: int, outcomes: dict[int, Future[Outcome]]
) -> None:
    outcome = outcomes[postgres_seed].result()
    assert outcome.faults == [], str(outcome)
