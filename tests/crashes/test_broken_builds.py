"""Builds that are broken on purpose are caught, each time, by the checks that the other tests rely on."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.crashes.conftest import Lanes
from tests.crashes.plans import Fault, Kill, Plan, Wish

STOPPED_SOON = (Wish(at=0, name="a", stop_at=0.3),)
LOST = Fault(call="provision", name="lost_response")
TWO_WORKERS = {"shape": "two workers", "settings": {"lease_seconds": 4}}
HEDGED = (Wish(at=0, name="a", money={"hedge": True}),)
SLOW_TO_BOOT = {"usual_seconds": 0.1, "boot_seconds": 1.0}

SCHEDULES = {
    "no idempotency key": (
        Plan(seed="a lost answer", faults=(LOST,)),
        Plan(seed="a doubled call", faults=(Fault(call="provision", name="duplicate"),)),
        Plan(seed="killed after buying", deadly={"all": "after provision"}),
        Plan(seed="a worker killed after buying", shape="two processes", deadly={"worker": "after provision"}),
    ),
    "no lease": (
        Plan(
            seed="stopped while it is bought",
            wishes=STOPPED_SOON,
            faults=(Fault(call="provision", name="slow", settings={"seconds": 1.2}),),
            lists_within=0.2,
            **TWO_WORKERS,
        ),
        Plan(
            seed="a slow sign-in is overtaken",
            # Who asks for offers signs in as well, and may be the first to: the launch's own must be slow in any case.
            faults=(Fault(call="sign_in", name="slow", times=4, settings={"seconds": 0.5}),),
            **TWO_WORKERS,
        ),
        Plan(
            seed="a slow end is overtaken",
            faults=(Fault(call="terminate", name="slow", settings={"seconds": 0.5}),),
            **TWO_WORKERS,
        ),
    ),
    "no teardown": (
        Plan(seed="a plain stop"),
        Plan(seed="a stop before it is ready", wishes=STOPPED_SOON),
        Plan(seed="a failed build", faults=(Fault(call="provision", name="build_fails"),)),
        Plan(seed="a plain stop, swept up after", sweep=True),
    ),
    "early belief": (
        Plan(
            seed="a late purchase, its worker dead, stopped meanwhile",
            shape="two processes",
            # The purchase must have begun by the kill and not be over by the stop, on a busy computer as well.
            wishes=(Wish(at=0, name="a", stop_at=1.0),),
            kills=(Kill(what="instant", part="worker", after=0.9, pause=0.2),),
            faults=(Fault(call="provision", name="slow", settings={"seconds": 4}),),
            settings={"lease_seconds": 1.5},
            lists_within=5,
        ),
    ),
    "early erasure": (
        Plan(
            seed="an account disconnected while its session runs",
            account="kept",
            disconnect_at=1.0,
            wishes=(Wish(at=0, name="a", stop_at=1.6),),
            patience=6,
        ),
    ),
    "no settlement": (
        Plan(seed="settled after a plain stop"),
        Plan(seed="settled after a refusal", faults=(Fault(call="provision", name="no_capacity"),)),
    ),
    "no limit": (
        Plan(seed="a budget for no machine", wishes=(Wish(at=0, name="a", money={"budget": "0.01"}),)),
        Plan(
            seed="a budget for one machine, and none for a second beside it",
            wishes=(Wish(at=0, name="a", money={"budget": "0.06", "hedge": True}),),
            options=SLOW_TO_BOOT,
        ),
    ),
    "two hedges": (
        Plan(
            seed="the second machine cannot be had",
            wishes=HEDGED,
            options=SLOW_TO_BOOT,
            faults=(Fault(call="provision", name="no_capacity", settings={"where": {"offer": "small-b"}}),),
            lists_within=0.1,
        ),
    ),
    "forgotten loser": (Plan(seed="one of two is ended", wishes=HEDGED, options=SLOW_TO_BOOT),),
}
SYMPTOMS = {
    "no idempotency key": "bought 2 machines",
    "no lease": r"it went from \w+ to \w+|it goes on after it was stopped|was there when its launch was stopped",
    "no teardown": "was there when its launch was stopped|is still open",
    "early belief": "was there when its launch was stopped",
    "early erasure": "is still open",
    "no settlement": "was promised and never settled",
    "no limit": "its budget is",
    "two hedges": "2 hedges|two orders were open",
    "forgotten loser": "is still open|is still billed",
}
CASES = [(broken, plan) for broken, plans in SCHEDULES.items() for plan in plans]


def title(value: object) -> str:
    return str(value.seed if isinstance(value, Plan) else value)


@pytest.mark.parametrize(("broken", "plan"), CASES, ids=title)
def test_a_broken_build_is_caught_and_the_whole_one_passes(lanes: Lanes, broken: str, plan: Plan) -> None:
    # Without the sweep, which would catch what the broken part lets slip; one schedule shows that it hides nothing.
    plan = plan if "swept" in str(plan.seed) else replace(plan, sweep=False)
    whole = lanes.submit(plan)
    caught = lanes.play(replace(plan, broken=broken))
    assert whole.result().faults == [], str(whole.result())
    assert re.search(SYMPTOMS[broken], "\n".join(caught.faults)), f"{broken} was not noticed: {caught}"
