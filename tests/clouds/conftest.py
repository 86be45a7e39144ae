"""Clouds whose machines boot: real cloud-init runs real user data, in front of a broker that is reached by https."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clouds import world  # at once: it reads what the tests' settings are cleared of
from tests.conftest import wanted
from tests.doubles.machines import Machines, image

__all__ = ["world"]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Machines that know no broker."""
    wanted(image.NEED)
    with Machines() as made:
        yield made
