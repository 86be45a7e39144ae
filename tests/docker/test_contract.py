"""The provider contract over `local` with containers. The stand-in for the agent leaves its container for others to remove."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.base import Boot, InstanceState
from providers.contract import TOKEN, ProviderContract
from providers.errors import InvalidOrder, ProviderUnavailable
from providers.local import LocalProvider
from providers.local.containers import Containers
from tests.contract.over_local import LocalFaults, OnThisComputer, left_of

CLIENT = Containers._client
GONE = Containers(url="unix:///nonexistent/engine.sock")
AGENT = str(Path(__file__).with_name("stand_in_agent.py"))


class EngineFaults(LocalFaults):
    """What can be arranged around a real engine."""

    left = 0

    def knows(self, fault, call):
        verbs = ("offers", "provision", "describe", "terminate", "instances")
        return (fault, call) in {("slow_boot", "provision"), *(("unavailable", verb) for verb in verbs)}

    def _unavailable(self, times):
        self.left = max(0, self.left) + times
        self.monkeypatch.setattr(Containers, "_client", lambda containers: self._sometimes(containers))

    def _sometimes(self, containers):
        self.left -= 1
        return CLIENT(GONE if self.left >= 0 else containers)


class TestTheContract(OnThisComputer, ProviderContract):
    @pytest.fixture
    def behave(self):
        return []

    @pytest.fixture
    def boot(self, behave, engine):
        return Boot(
            user_data="", agent=AGENT, config={"token": TOKEN, "behave": behave, "image": engine.base_image}
        )  # fmt: skip

    @pytest.fixture
    def faults(self, home, behave, monkeypatch):
        return EngineFaults(home, behave, monkeypatch)

    @pytest.fixture
    def patience(self):
        return 60

    @pytest.fixture
    def buy(self, provider, credential, make_order, wait, engine):
        """An instance that runs, and whose container does."""

        def buy():
            bought = provider.provision(credential, make_order())
            wait(lambda: provider.describe(credential, bought.id).state is InstanceState.RUNNING, "it runs")
            wait(lambda: containers_of(engine, bought.id, running=True), "its container runs")
            return bought

        return buy

    @pytest.fixture
    def billed(self, engine, home):
        """Its container as well."""
        return lambda order_id: [*left_of(home, order_id), *containers_of(engine, order_id)]

    @pytest.fixture(autouse=True)
    def all_is_removed(self, engine):
        """The stand-in may have asked for a container in the moment in which it was killed."""
        yield
        if left := engine.docker("ps", "-aq", "--filter", "label=anybinder-order").split():
            engine.docker("rm", "--force", "--volumes", *left)


def containers_of(engine, order_id, *, running=False):
    every = () if running else ("--all",)
    return engine.docker("ps", *every, "--quiet", "--filter", f"label=anybinder-order={order_id}").split()


def test_an_engine_that_does_not_answer_is_unavailable_and_says_what_to_do(configuration):
    provider = LocalProvider(configuration | {"engine_url": "unix:///nonexistent/engine.sock"})
    with pytest.raises(ProviderUnavailable, match=r"See that it runs .* engine_url .*\.$"):
        provider.instances(None, "b1")


def test_an_engine_of_another_computer_is_refused(configuration):
    with pytest.raises(InvalidOrder, match="a socket of this computer"):
        LocalProvider(configuration | {"engine_url": "tcp://127.0.0.1:2375"})
