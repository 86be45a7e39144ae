"""Tells what the machines of a real OpenStack are told at birth, so that a double that boots can stand for them.

    def started(machine): …                     # a `Machine`: its id, name, user data and metadata
    def deleted(machine): …
    with OpenStackMachines(cloud, started=started, deleted=deleted) as machines:
        machines.power_off(machine)             # what its guest does when it powers itself off

Nova is asked as its operator: with its fake driver a machine is ACTIVE within seconds and nothing of it runs.
"""

from __future__ import annotations

import base64
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.servers.openstack.bed import Cloud

LOOK_SECONDS = 0.3


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One of Nova's servers, since it is ACTIVE."""

    id: str
    name: str
    project: str
    user_data: str = field(repr=False)
    metadata: Mapping[str, str]


def ignored(machine: Machine) -> None:
    """Nobody wants to hear of it."""


class OpenStackMachines:
    """Looks for as long as it is entered. Both functions are called in its own thread, one after the other."""

    def __init__(
        self,
        cloud: Cloud,
        *,
        started: Callable[[Machine], object] = ignored,
        deleted: Callable[[Machine], object] = ignored,
    ) -> None:
        self.cloud, self.started, self.deleted = cloud, started, deleted
        self.running: dict[str, Machine] = {}
        self.broken: list[str] = []
        """What went wrong here; it is shown when this ends."""
        self._over, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> OpenStackMachines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self.broken, "\n".join(self.broken)

    def power_off(self, machine: Machine) -> None:
        """It is SHUTOFF soon: billed on, until somebody deletes it."""
        self.cloud.power_off(machine.id)

    def look(self) -> None:
        """Once, now; from any thread."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        found = {str(each["id"]): each for each in self.cloud.machines()}
        for machine in [each for each in self.running.values() if each.id not in found]:
            del self.running[machine.id]
            self.deleted(machine)
        for told in found.values():
            if told["id"] not in self.running and told["status"] == "ACTIVE":
                machine = self.running[told["id"]] = read(told)
                self.started(machine)

    def _look_on(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                self.broken.append(traceback.format_exc())
                return


def read(told: Mapping[str, object]) -> Machine:
    data = str(told.get("OS-EXT-SRV-ATTR:user_data") or "")
    metadata = told["metadata"]
    assert isinstance(metadata, dict)
    return Machine(
        id=str(told["id"]),
        name=str(told["name"]),
        project=str(told["tenant_id"]),
        user_data=base64.b64decode(data).decode(),
        metadata=metadata,
    )
