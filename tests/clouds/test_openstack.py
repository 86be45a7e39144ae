"""From a click to a cell's output to an empty project, on a real OpenStack whose machines boot in our double."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.clouds import openstack
from tests.clouds.journeys import Journey
from tests.clouds.openstack import OpenStack
from tests.conftest import wanted
from tests.doubles.machines import image
from tests.servers.openstack import bed

pytestmark = pytest.mark.timeout(1200)  # the first test waits for OpenStack to start


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStack]:
    wanted(image.NEED)
    wanted(bed.NEED)
    with openstack.running(browser, tmp_path_factory.mktemp("openstack")) as made:
        yield made


class TestOpenStack(Journey):
    token_of_its_own = "OpenStack's user data"
