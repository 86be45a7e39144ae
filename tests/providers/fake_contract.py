"""The contract's fixtures over the fake cloud: for its own driver, and for drivers broken on purpose."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from providers.base import Boot, Connection
from providers.contract import TOKEN, Faults
from providers.fake import FakeCloud, FakeProvider
from providers.fake.faults import KNOWN

AGENT = str(Path(__file__).with_name("stand_in_agent.py"))
CALLED_OTHERWISE = {"silence": "hold"}


class FakeFaults(Faults):
    """All of them, and for silence a driver that is soon out of patience."""

    def __init__(self, cloud: FakeCloud, provider: FakeProvider) -> None:
        self.cloud, self.provider = cloud, provider

    def knows(self, fault, call):
        return call in KNOWN[CALLED_OTHERWISE.get(fault, fault)]

    def arrange(self, fault, call, *, times=1):
        if fault == "silence":
            self.provider._timeout = 0.3
        self.cloud.fault(call, CALLED_OTHERWISE.get(fault, fault), times=times)

    def die(self, instance):
        self.cloud.die(instance.id)

    def clear(self):
        self.cloud.clear()


class OverTheFakeCloud:
    """Mixed in before `ProviderContract`."""

    driver = FakeProvider

    @pytest.fixture
    def provider(self, cloud):
        return self.driver(cloud.configuration)

    connects_by = "kept"

    @pytest.fixture
    def connection(self):
        by = getattr(self.driver, "connects_by", self.connects_by)
        return Connection(kind=by, secret=None if by == "keyless" else "the-fake-key")

    @pytest.fixture
    def bad_connection(self):
        return Connection(kind="kept", secret="not-the-fake-key")

    @pytest.fixture
    def fresh_token(self):
        """For what trades one: never the same twice."""
        numbers = itertools.count(1)
        return lambda connection: f"a-token-nobody-may-see-{next(numbers)}" if connection.kind == "keyless" else None

    @pytest.fixture
    def boot(self):
        return Boot(user_data=TOKEN, config={"token": TOKEN}, agent=AGENT)

    @pytest.fixture
    def faults(self, cloud, provider):
        return FakeFaults(cloud, provider)

    @pytest.fixture
    def advance(self, cloud):
        return cloud.advance

    @pytest.fixture
    def billed(self, cloud):
        return cloud.billed

    @pytest.fixture
    def with_every_bill(self, cloud):
        return cloud.bill

    @pytest.fixture
    def untagged(self, cloud):
        return cloud.untagged
