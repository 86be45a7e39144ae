"""SIGKILL at every boundary of one plain launch, from birth to `stopped`: of each part of the broker, and of the agent."""

from __future__ import annotations

import pytest

from tests.crashes import plans
from tests.crashes.conftest import Lanes, schedules

ALL_FROM = 500  # with so many schedules, every single boundary; with fewer, the first of each name
SHORT = {"lease_seconds": 1}  # a dead worker is waited for that long, each time
OVERTAKEN = {"before describe", "after describe"}  # a look that a nudge comes before is not taken, so it may be missed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["broker", "agent"])
@pytest.mark.parametrize(
    ("shape", "part"), [("one process", "all"), ("two processes", "web"), ("two processes", "worker")]
)
def test_dying_at_any_boundary_of_a_launch_costs_nothing(
    request: pytest.FixtureRequest, lanes: Lanes, shape: str, part: str, victim: str
) -> None:
    passed = [line.removeprefix("passed ") for line in lanes.play(plans.Plan(seed="dry", shape=shape)).by_part[part]]
    assert "before provision" in passed or part == "web"
    wanted: list[str | int] = sorted(set(passed))
    if schedules(request.config) >= ALL_FROM:
        wanted += range(1, len(passed) + 1)
    runs = [
        lanes.submit(
            plans.Plan(
                seed=f"at {n}",
                shape=shape,
                deadly={part: n},
                settings=SHORT,
                visit=not at % 4,
                kills_agents=victim == "agent",
            )
        )
        for at, n in enumerate(wanted)
    ]
    outcomes = [run.result() for run in runs]
    assert [str(outcome) for outcome in outcomes if outcome.faults] == []
    died_at = {line.partition("killed at ")[2] for outcome in outcomes for line in outcome.by_part[part]}
    assert set(passed) - died_at <= OVERTAKEN
