"""The contract's fixtures over the fake cloud: for its own driver, and for drivers broken on purpose."""

from __future__ import annotations

import itertools
import json
import os
import signal
import urllib.parse
from pathlib import Path

import pytest

from providers.base import Boot, Connection
from providers.contract import TOKEN, Faults
from providers.fake import FakeCloud, FakeProvider
from providers.fake.faults import KNOWN
from providers.fake.wire import ask
from tests.waiting import until

AGENT = str(Path(__file__).parent.with_name("providers") / "stand_in_agent.py")
CALLED_OTHERWISE = {"silence": "hold"}


class FakeFaults(Faults):
    """All of them, and for silence a driver that is soon out of patience."""

    quota, permission = "machines", "machines.create"

    def __init__(self, cloud: FakeCloud, provider: FakeProvider) -> None:
        self.cloud, self.provider, self.patience = cloud, provider, provider._timeout

    def knows(self, fault, call):
        return call in KNOWN[CALLED_OTHERWISE.get(fault, fault)]

    def arrange(self, fault, call, *, times=1):
        if fault == "silence":
            self.provider._timeout = 0.3
        self.cloud.fault(call, CALLED_OTHERWISE.get(fault, fault), times=times)

    def die(self, instance):
        self.cloud.die(instance.id, leaves=("disk",))

    def power_off(self, instance):
        """Where its agent ends, a machine of the fake cloud powers itself off."""
        until(lambda: self._pid(instance), what="its agent runs")
        os.kill(self._pid(instance), signal.SIGKILL)

    def _pid(self, instance):
        return next((each["pid"] for each in self.cloud.instances() if each["id"] == instance.id), None)

    def clear(self):
        self.cloud.clear()
        self.provider._timeout = self.patience


class OverTheFakeCloud:
    """Mixed in before `ProviderContract`."""

    driver = FakeProvider

    @pytest.fixture
    def provider(self, cloud):
        """One that promises whatever the fake cloud can keep."""
        kept = {"spot": True, "dead_man_seconds": 0}
        cloud.options(**{**kept, **getattr(self.driver, "cloud_options", {})})
        return self.driver({**cloud.configuration, "ends": self.ends})

    ends = "when_off,at_until,switch"

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

    @pytest.fixture
    def labelled(self, cloud):
        """By the creating call that has made them: what carries no label is found too."""

        def labelled(order_id):
            things = [thing for thing in cloud.everything() if thing["state"] != "gone"]
            machines = [thing for thing in things if thing["kind"] == "machine"]
            machine = next(thing for thing in machines if thing["labels"].get("anybinder-order") == order_id)
            mine = {machine["id"], *machine["parts"]}
            return {thing["id"]: thing["labels"] for thing in things if thing["id"] in mine}

        return labelled

    @pytest.fixture
    def bought_in(self, cloud):
        def bought_in(order_id):
            return next(each["zone"] for each in cloud.instances() if each["labels"]["anybinder-order"] == order_id)

        return bought_in

    @pytest.fixture
    def console_says(self):
        return "standing in"

    @pytest.fixture
    def send(self, cloud):
        """Straight to its socket, under the path of the address."""

        def send(request, more):
            path = urllib.parse.urlsplit(request.url).path
            status, answer = ask(cloud.configuration["socket"], path, json.loads(request.body))
            return status, {**more, **{name: str(value) for name, value in answer.items()}}

        return send
