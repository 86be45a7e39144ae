"""Clouds whose machines boot: real cloud-init runs real user data, in front of a broker that is reached by https."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clouds import launching  # at once: it reads what the tests' settings are cleared of
from tests.clouds.world import World
from tests.conftest import wanted
from tests.doubles.machines import Machines, image


@pytest.fixture(scope="module")
def session(world: World) -> Iterator[launching.Session]:
    """In the module's own `world`."""
    with launching.entered(world) as made:
        yield made


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Machines that know no broker."""
    wanted(image.NEED)
    with Machines() as made:
        yield made
