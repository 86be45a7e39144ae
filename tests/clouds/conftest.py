"""Clouds whose machines boot: real cloud-init runs real user data, in front of a broker that is reached by https."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import wanted
from tests.doubles.machines import Machines, image


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Machines that know no broker."""
    wanted(image.NEED)
    with Machines() as made:
        yield made
