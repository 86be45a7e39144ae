"""From a click to a cell's output to an empty account, on an AWS whose machines boot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.clouds import aws
from tests.clouds.aws import Aws
from tests.clouds.journeys import Journey
from tests.conftest import wanted
from tests.doubles.machines import image

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    wanted(image.NEED)
    with aws.running(browser, tmp_path_factory.mktemp("aws")) as made:
        yield made


class TestAws(Journey):
    token_of_its_own = "a token of EC2's"


def test_all_of_it_was_done_by_the_persons_own_roles_without_a_key(world: Aws) -> None:
    """After the journey."""
    calls = [each for each in world.aws.requests if each.action in ("RunInstances", "TerminateInstances")]
    assert all("assumed-role/Anybinder" in each.who for each in calls), calls
