"""SIGKILL of broker, worker and agent at boundaries and at random instants, over a cloud that has troubles of its own."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.crashes import plans
from tests.crashes.conftest import Lanes, seeds_of
from tests.crashes.play import Outcome


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, lanes: Lanes) -> dict[int, Future[Outcome]]:
    """All of them under way."""
    return {seed: lanes.submit(plans.drawn(seed)) for seed in seeds_of(request, "seed")}


def test_every_launch_comes_to_an_end_and_nothing_is_left(seed: int, outcomes: dict[int, Future[Outcome]]) -> None:
    outcome = outcomes[seed].result()
    assert outcome.faults == [], str(outcome)
