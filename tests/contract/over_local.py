"""The contract's fixtures over this computer, and what can be arranged on one that is not a double."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from providers import processes
from providers.base import Boot
from providers.contract import TOKEN, Faults
from providers.local import LocalProvider
from providers.local.place import Place
from tests.waiting import until

AGENT = str(Path(__file__).parent.with_name("providers") / "stand_in_agent.py")


@contextmanager
def folders() -> Iterator[dict[str, str]]:
    """A configuration with folders of its own; nothing of what was started there is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="abl-", dir="/tmp"))
    yield {"home": str(folder / "home"), "runtime": str(folder / "run"), "cache": str(folder / "cache")}
    for order_id in [path.name for path in (folder / "home").glob("[a-z0-9]*")]:
        until(lambda order_id=order_id: processes.kill(order_id), what=f"nothing is left of {order_id}")
    shutil.rmtree(folder)


class LocalFaults(Faults):
    """What can be arranged on a computer that is not a double."""

    def __init__(self, home: Path, behave: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.behave, self.monkeypatch = home, behave, monkeypatch

    def knows(self, fault, call):
        return (fault, call) in {
            ("no_capacity", "provision"),
            ("half_created", "provision"),
            ("slow_boot", "provision"),
            ("slow_end", "terminate"),
            *(("unavailable", verb) for verb in ("provision", "terminate", "describe", "instances")),
        }

    def arrange(self, fault, call, *, times=1):
        getattr(self, f"_{fault}")(times)

    def _no_capacity(self, times):
        self._break(psutil, "virtual_memory", times, lambda: SimpleNamespace(available=0, total=2**33))

    def _half_created(self, times):
        self._break(processes, "start_detached", times, _no_more_processes)

    def _slow_boot(self, times):
        self.behave.append("slow")

    def _slow_end(self, times):
        for ready in until(lambda: list(self.home.glob("*/ready")), what="the agent stands in"):
            agent = psutil.Process(int(ready.with_name("pid").read_text()))
            agent.suspend()
            # A stop that is only on its way loses to the end that follows it: the kernel takes the lower number first.
            until(lambda agent=agent: agent.status() == psutil.STATUS_STOPPED, what="the agent stands still")

    def _unavailable(self, times):
        self._break(Place, "has_ended", times, _disk_is_ill)

    def _break(self, owner, name, times, instead):
        right, left = getattr(owner, name), [times]

        def sometimes(*arguments, **named):
            left[0] -= 1
            return (instead if left[0] >= 0 else right)(*arguments, **named)

        self.monkeypatch.setattr(owner, name, sometimes)

    def clear(self):
        self.monkeypatch.undo()

    def die(self, instance):
        os.kill(int((self.home / instance.id / "pid").read_text()), signal.SIGKILL)


def _no_more_processes(*_, **__):
    raise BlockingIOError(11, "no more processes")


def _disk_is_ill(*_, **__):
    raise OSError(5, "the disk is ill")


class OnThisComputer:
    """For whoever has a `configuration`: of processes, or of containers (tests/docker)."""

    @pytest.fixture
    def home(self, configuration):
        return Path(configuration["home"])

    @pytest.fixture
    def provider(self, configuration):
        return LocalProvider(configuration)

    @pytest.fixture
    def reads_user_data(self):
        return False

    @pytest.fixture
    def advance(self, home):
        """Time passes for what is being ended: its end was asked for earlier than it was."""

        def advance(seconds):
            for asked in home.glob("*/terminating"):
                asked.write_text(str(float(asked.read_text()) - seconds))

        return advance

    @pytest.fixture
    def billed(self, home):
        return lambda order_id: left_of(home, order_id)


def left_of(home, order_id):
    """What a session costs here: its folders and its processes."""
    return [*map(str, home.glob(order_id)), *(str(process) for process in processes.marked(order_id))]


class OverThisComputer(OnThisComputer):
    """Mixed in before `ProviderContract`."""

    @pytest.fixture
    def configuration(self):
        with folders() as found:
            yield found

    @pytest.fixture
    def console_says(self):
        return "standing in"

    @pytest.fixture
    def behave(self):
        return ["child"]

    @pytest.fixture
    def boot(self, behave):
        return Boot(user_data="", config={"token": TOKEN, "behave": behave}, agent=AGENT)

    @pytest.fixture
    def faults(self, home, behave, monkeypatch):
        return LocalFaults(home, behave, monkeypatch)
