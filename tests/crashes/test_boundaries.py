"""SIGKILL at every boundary of one plain launch, from the broker's birth to `stopped`."""

from __future__ import annotations

import pytest

from tests.crashes import plans
from tests.crashes.conftest import Lanes, schedules

ALL_FROM = 500  # with so many schedules, every single boundary; with fewer, the first of each name


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("shape", "part"), [("one process", "all"), ("two processes", "web"), ("two processes", "worker")]
)
def test_dying_at_any_boundary_of_a_launch_costs_nothing(
    request: pytest.FixtureRequest, lanes: Lanes, shape: str, part: str
) -> None:
    passed = [line.removeprefix("passed ") for line in lanes.play(plans.Plan(seed="dry", shape=shape)).by_part[part]]
    assert "before provision" in passed or part == "web"
    wanted: list[str | int] = sorted(set(passed))
    if schedules(request.config) >= ALL_FROM:
        wanted += range(1, len(passed) + 1)
    runs = [lanes.submit(plan(shape, part, where, visit=n % 4 == 0)) for n, where in enumerate(wanted)]
    outcomes = [run.result() for run in runs]
    assert [str(outcome) for outcome in outcomes if outcome.faults] == []
    died_at = {line for outcome in outcomes for line in outcome.by_part[part] if line.startswith("killed at")}
    missed = {name for name in passed if f"killed at {name}" not in died_at}
    # A look that a nudge has overtaken is not taken at all, so this one may be missed.
    assert missed <= {"before describe", "after describe"}


def plan(shape: str, part: str, where: str | int, *, visit: bool) -> plans.Plan:
    return plans.Plan(seed=f"at {where}", shape=shape, deadly={part: where}, visit=visit)
