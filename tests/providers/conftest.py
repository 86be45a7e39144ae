"""Fixtures of the providers' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers.fake import FakeCloud


@pytest.fixture(scope="module")
def running_cloud() -> Iterator[FakeCloud]:
    with FakeCloud.start() as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: FakeCloud) -> Iterator[FakeCloud]:
    """A fake cloud, as new."""
    yield running_cloud
    running_cloud.reset()
