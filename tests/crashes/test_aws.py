"""The same over AWS: its double serves the broker's own driver, its machines run the real agent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from tests.crashes import plans
from tests.crashes.aws_cloud import AwsCloud
from tests.crashes.conftest import NOWHERE, Lanes, seeds_of
from tests.crashes.play import Outcome


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[int, Future[Outcome]]]:
    """One after the other: there is one AWS in this process."""
    lanes = Lanes(NOWHERE, count=1, slack=request.config.getoption("--slack"), new_cloud=AwsCloud)
    yield {seed: lanes.submit(plans.drawn_over_aws(seed)) for seed in seeds_of(request, "aws_seed")}
    lanes.close()


def test_every_launch_comes_to_an_end_and_nothing_is_left(aws_seed: int, outcomes: dict[int, Future[Outcome]]) -> None:
    outcome = outcomes[aws_seed].result()
    assert outcome.faults == [], str(outcome)
