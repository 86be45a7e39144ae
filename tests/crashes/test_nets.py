"""The three nets, cut one by one and two by two: whatever is left of them catches the machine. All three cut, it is lost.

1 is the launch's own end, 2 the machine's own switch, 3 the sweep. A machine whose agent never starts has no switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import pytest

from tests.crashes.conftest import Lanes
from tests.crashes.plans import Fault, Plan, Wish
from tests.crashes.play import Outcome

WITHOUT_1 = {"broken": "no teardown"}
WITHOUT_2 = {
    "faults": (Fault(call="provision", name="never_dials"),),
    "wishes": (Wish(at=0, name="a", stop_at=1.0),),  # before it is given up as never having booted
}
WITHOUT_3 = {"sweep": False}
WITHOUT_1_AND_3 = {"forsaken": True}
"""Nobody is there to end it: the broker is killed while the session runs, and never started again."""
NO_NET_PATIENCE = 4

CUT: Mapping[str, Plan] = {
    "the launch's own end, with the switch and the sweep there": Plan(seed="1", caught_later=True, **WITHOUT_1),
    "the switch": Plan(seed="2", **WITHOUT_2),
    "the sweep": Plan(seed="3", **WITHOUT_3),
    "the launch's own end and the switch: the sweep ends it": Plan(
        seed="12", caught_later=True, **WITHOUT_1, **WITHOUT_2
    ),
    "the switch and the sweep: the launch's own end ends it": Plan(seed="23", **WITHOUT_2, **WITHOUT_3),
    "the launch's own end and the sweep: the broker refuses the agent, which ends its machine": Plan(
        seed="13", caught_later=True, **WITHOUT_1, **WITHOUT_3
    ),
    "the broker, for good: the agent misses it, and ends its machine": Plan(seed="forsaken", **WITHOUT_1_AND_3),
}
NO_NET = Plan(seed="123", caught_later=True, patience=NO_NET_PATIENCE, **WITHOUT_1, **WITHOUT_2, **WITHOUT_3)


@pytest.fixture(scope="module")
def outcomes(lanes: Lanes) -> dict[str, Future[Outcome]]:
    """All of them under way."""
    return {title: lanes.submit(plan) for title, plan in {**CUT, "all": NO_NET}.items()}


@pytest.mark.parametrize("title", CUT)
def test_a_net_that_is_cut_is_made_up_for_by_the_others(outcomes: dict[str, Future[Outcome]], title: str) -> None:
    outcome = outcomes[title].result()
    assert "bought machine-" in outcome.story or "'kind': 'machine'" in outcome.story, "there was something to catch"
    assert outcome.left == [], str(outcome)


def test_with_every_net_cut_the_machine_is_lost_and_that_is_noticed(outcomes: dict[str, Future[Outcome]]) -> None:
    assert outcomes["all"].result().left != [], str(outcomes["all"].result())
