"""The provider contract over `local` with containers. The stand-in for the agent leaves its container for others to remove."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from providers import processes
from providers.base import Boot, InstanceState
from providers.contract import TOKEN, Faults, ProviderContract
from providers.errors import InvalidOrder, ProviderUnavailable
from providers.local import LocalProvider
from providers.local.containers import Containers

CLIENT = Containers._client
GONE = Containers(url="unix:///nonexistent/engine.sock")
AGENT = str(Path(__file__).with_name("stand_in_agent.py"))


class EngineFaults(Faults):
    """What can be arranged around a real engine."""

    def __init__(self, home: Path, behave: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.behave, self.monkeypatch = home, behave, monkeypatch
        self.left = 0

    def knows(self, fault, call):
        verbs = ("offers", "provision", "describe", "terminate", "instances")
        return (fault, call) in {("slow_boot", "provision"), *(("unavailable", verb) for verb in verbs)}

    def arrange(self, fault, call, *, times=1):
        if fault == "slow_boot":
            self.behave.append("slow")
            return
        self.left = max(0, self.left) + times
        self.monkeypatch.setattr(Containers, "_client", lambda containers: self._sometimes(containers))

    def _sometimes(self, containers):
        self.left -= 1
        return CLIENT(GONE if self.left >= 0 else containers)

    def clear(self):
        self.monkeypatch.undo()

    def die(self, instance):
        os.kill(int((self.home / instance.id / "pid").read_text()), signal.SIGKILL)


class TestTheContract(ProviderContract):
    @pytest.fixture
    def provider(self, configuration):
        return LocalProvider(configuration)

    @pytest.fixture
    def reads_user_data(self):
        return False

    @pytest.fixture
    def behave(self):
        return []

    @pytest.fixture
    def boot(self, behave, engine):
        return Boot(
            user_data="", agent=AGENT, config={"token": TOKEN, "behave": behave, "image": engine.base_image}
        )  # fmt: skip

    @pytest.fixture
    def faults(self, configuration, behave, monkeypatch):
        return EngineFaults(Path(configuration["home"]), behave, monkeypatch)

    @pytest.fixture
    def patience(self):
        return 60

    @pytest.fixture
    def advance(self, configuration):
        """Time passes for what is being ended."""

        def advance(seconds):
            for asked in Path(configuration["home"]).glob("*/terminating"):
                asked.write_text(str(float(asked.read_text()) - seconds))

        return advance

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
    def billed(self, engine, configuration):
        return lambda order_id: [
            *map(str, Path(configuration["home"]).glob(order_id)),
            *(str(process) for process in processes.marked(order_id)),
            *containers_of(engine, order_id),
        ]

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
