"""The same over a real OpenStack: Keystone, Glance, Placement, Nova and Neutron serve the broker's own driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace

import pytest

from tests.conftest import wanted
from tests.crashes import openstack_cloud, plans
from tests.crashes.conftest import NOWHERE, Lanes, seeds_of
from tests.crashes.plans import Fault
from tests.crashes.play import Outcome
from tests.servers.openstack.bed import NEED

BED_SECONDS = 900  # the first waits until the bed is made; each waits for those before it
pytestmark = pytest.mark.timeout(BED_SECONDS)

PLAIN = replace(plans.drawn_over_openstack(1), seed="plain", shape="one process", wishes=(plans.Wish(at=0, name="a"),),
                account="application_credential", disconnect_at=None, kills=(), faults=(), jumps=(), options={},
                caught_later=False, sweep=False, settings={**plans.OPENSTACK_SETTINGS, "sweep_seconds": 10**6})  # fmt: skip
BROKEN = {
    "no claim": (replace(PLAIN, seed="a lost answer", faults=(Fault(call="buy", name="lost_response"),)), "bought 2"),
    "no teardown": (PLAIN, "was there when its launch was stopped|is still open"),
}


@pytest.fixture(scope="session")
def campus() -> Iterator[openstack_cloud.Campus]:
    wanted(NEED)
    with openstack_cloud.running() as campus:
        yield campus


@pytest.fixture(scope="module")
def lanes(request: pytest.FixtureRequest, campus: openstack_cloud.Campus) -> Iterator[Lanes]:
    option = request.config.getoption
    lanes = Lanes(NOWHERE, count=option("--lanes"), slack=option("--slack"), new_cloud=campus.cloud)
    yield lanes
    lanes.close()


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, lanes: Lanes) -> dict[int, Future[Outcome]]:
    return {seed: lanes.submit(plans.drawn_over_openstack(seed)) for seed in seeds_of(request, "openstack_seed")}


def test_every_launch_comes_to_an_end_and_nothing_is_left(
    openstack_seed: int, outcomes: dict[int, Future[Outcome]]
) -> None:
    outcome = outcomes[openstack_seed].result()
    assert outcome.faults == [], str(outcome)


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_build_is_caught_and_the_whole_one_passes(lanes: Lanes, broken: str) -> None:
    plan, symptom = BROKEN[broken]
    whole = lanes.submit(plan)
    caught = lanes.play(replace(plan, broken=broken))
    assert whole.result().faults == [], str(whole.result())
    assert re.search(symptom, "\n".join(caught.faults)), f"{broken} was not noticed: {caught}"
