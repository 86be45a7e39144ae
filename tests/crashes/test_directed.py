"""Schedules for one thing each: bugs that a seed has found once, and troubles that must meet at one moment."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from tests.crashes.conftest import Lanes
from tests.crashes.plans import CALLS, Fault, Jump, Kill, Plan, Wish
from tests.crashes.play import Outcome

HEDGED = (Wish(at=0, name="a", money={"hedge": True}),)
SLOW_TO_BOOT = {"usual_seconds": 0.1, "boot_seconds": 1.0}
STOPPED_SOON = (Wish(at=0, name="a", stop_at=0.25),)

SCHEDULES = {
    "a step fails while a person stops the launch: the outcome is said once": Plan(
        seed="57",
        wishes=STOPPED_SOON,
        faults=(
            Fault(call="provision", name="slow", settings={"seconds": 0.6}),
            Fault(call="provision", name="permission"),
        ),
    ),
    "killed between giving an offer up and saying so: it is not bought again": Plan(
        seed="given up",
        faults=(Fault(call="provision", name="no_capacity", times=4),),
        deadly={"all": "after the commit of give_up"},
        lists_within=0.2,
    ),
    "killed between giving up a machine that never reports and saying so: it counts as tried": Plan(
        seed="never dials",
        faults=(Fault(call="provision", name="never_dials", times=4),),
        settings={"boot_minutes": 0.5 / 60},
        deadly={"all": "after the commit of give_up"},
    ),
    "the server of a ready session is killed: the session ends": Plan(
        seed="36",
        visit=True,
        kills=(Kill(what="agent", part="server", after=1.0),),
    ),
    "the answer to the first order is lost and the broker killed before it asks again": Plan(
        seed="lost and killed",
        faults=(Fault(call="provision", name="lost_response"),),
        deadly={"all": "before settling"},
    ),
    "killed right after every act of buying": Plan(seed="after provision", deadly={"all": "after provision"}),
    "killed while a purchase is on its way, and stopped before it arrives": Plan(
        seed="late",
        wishes=STOPPED_SOON,
        kills=(Kill(what="instant", part="all", after=0.2),),
        faults=(Fault(call="provision", name="lost_response", settings={"late": 0.5}),),
        sweep=False,
    ),
    "a cloud that does not know yet what it has sold is not believed, even when its agent has spoken": Plan(
        seed="137",
        faults=(Fault(call="provision", name="unknown", settings={"seconds": 0.4}),),
        options={"list_seconds": 0.4, "end_seconds": 0.3},
        wishes=STOPPED_SOON,
        sweep=False,
    ),
    "a machine is up and serving before the cloud has answered that it was made: nothing it said is lost": Plan(
        seed="121",
        faults=(Fault(call="provision", name="slow", settings={"seconds": 1, "when": "after"}),),
        phases=("waiting", "fetching", "building", "built", "launching", "ready"),
        visit=True,
    ),
    "an account is disconnected while its session comes up: what was bought is ended by the other grant": Plan(
        seed="disconnected",
        account="kept",
        disconnect_at=0.5,
        kills=(Kill(what="instant", part="all", after=0.6),),
    ),
    "killed between signing in to a person's account and buying there": Plan(
        seed="signed in", account="keyless", deadly={"all": "after sign_in"}, visit=True
    ),
    "killed while the secret of a disconnected account is erased": Plan(
        seed="erased", account="kept", disconnect_at=0.3, deadly={"all": "before the commit of erase_unneeded"}
    ),
    "a disconnected account lets nobody in for a while: its secret is kept until its machine is gone": Plan(
        seed="shut",
        account="kept",
        wishes=(Wish(at=0, name="a", stop_at=1.0),),
        disconnect_at=1.0,
        kills=(Kill(what="instant", part="all", after=1.1),),
        faults=(Fault(call="terminate", name="bad_credential", times=4),),
    ),
    "the cloud's clock jumps past the end of a credential that we keep in memory: it is not used again": Plan(
        seed="expired there",
        account="kept",
        wishes=(Wish(at=0, name="a", stop_at=1.6),),
        options={"credential_seconds": 900},
        jumps=(Jump(whose="cloud", at=1.0, seconds=3700),),
        patience=15,
    ),
    "an account is shut for a while in the middle of everything": Plan(
        seed="revoked",
        account="keyless",
        wishes=(Wish(at=0, name="a", stop_at=1.6), Wish(at=0.5, name="b")),
        faults=tuple(Fault(call=call, name="bad_credential", times=6, at=1.0) for call in CALLS),
    ),
    "a computer sleeps for a day while its session runs": Plan(
        seed="slept", jumps=(Jump(whose="broker", at=1.5, seconds=26 * 3600),), caught_later=True
    ),
    "a computer sleeps for an hour while it buys, and the answer is lost": Plan(
        seed="slept while it bought",
        wishes=STOPPED_SOON,
        faults=(Fault(call="provision", name="lost_response", settings={"late": 0.6}),),
        jumps=(Jump(whose="broker", at=0.3, seconds=3700),),
        caught_later=True,
    ),
    "ten deletes fail": Plan(
        seed="ten",
        wishes=(Wish(at=0, name="a", stop_at=1.0),),
        faults=(Fault(call="terminate", name="unavailable", times=10),),
        kills=(Kill(what="instant", part="all", after=1.3),),
    ),
    "killed between ordering a second machine and buying it: it is bought once": Plan(
        seed="hedge written",
        wishes=HEDGED,
        options=SLOW_TO_BOOT,
        deadly={"all": "after the commit of open_order"},
        visit=True,
    ),
    "killed while one of two machines is given up for the other: one stays, and answers": Plan(
        seed="hedge decided",
        wishes=HEDGED,
        options=SLOW_TO_BOOT,
        deadly={"all": "after the commit of give_up"},
        visit=True,
    ),
    "the first of two machines never reports: the second one is entered, through its own tunnel": Plan(
        seed="hedge wins",
        wishes=HEDGED,
        options={"usual_seconds": 0.1},
        faults=(Fault(call="provision", name="never_dials"),),
        visit=True,
    ),
    "the first of two machines is slow: streams of it are never the second one's": Plan(
        seed="hedge tunnels",
        wishes=HEDGED,
        options={"usual_seconds": 0.1},
        faults=(Fault(call="provision", name="slow_boot", settings={"seconds": 1.5}),),
        visit=True,
    ),
    "killed on the way to another place: nothing is open at the one before": Plan(
        seed="elsewhere",
        spare=True,
        wishes=(Wish(at=0, name="a", money={"elsewhere": ["spare"]}),),
        faults=(Fault(call="provision", name="quota"),),
        deadly={"all": "after the commit of give_up"},
        lists_within=0.2,
        visit=True,
    ),
    "a worker dies with its lease: another waits for it to run out": Plan(
        seed="lease",
        shape="two workers",
        deadly={"worker": "after provision"},
        sweep=False,
    ),
}


@pytest.fixture(scope="module")
def outcomes(lanes: Lanes) -> dict[str, Future[Outcome]]:
    """All of them under way."""
    return {title: lanes.submit(plan) for title, plan in SCHEDULES.items()}


@pytest.mark.parametrize("title", SCHEDULES)
def test_it_ends_well(outcomes: dict[str, Future[Outcome]], title: str) -> None:
    outcome = outcomes[title].result()
    assert outcome.faults == [], str(outcome)
