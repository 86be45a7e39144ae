"""A real Docker engine for the whole run, and images on it that need no builder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import wanted
from tests.servers import docker


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.Engine]:
    """The engine; its `base_image` is made on the first run of a clone."""
    wanted(docker.NEED)
    with docker.running() as started:
        yield started
