"""What joins a cloud's double to machines that boot: it starts them, ends them, and hears when they end themselves."""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import threading
from collections.abc import Mapping

from tests.doubles import openstack_machines
from tests.doubles.aws_double import AwsDouble
from tests.doubles.machines import Machine, Machines, metadata
from tests.doubles.openstack_machines import OpenStackMachines
from tests.servers.openstack.bed import Cloud

LOOK_SECONDS = 0.25  # how often what a console says is passed on


class BootingAws:
    """EC2's machines boot. `with BootingAws(aws, machines) as booting: booting.machine("i-…")`"""

    def __init__(self, aws: AwsDouble, machines: Machines) -> None:
        self.aws, self.machines = aws, machines
        self.all: dict[str, Machine] = {}
        self.cut_off = False
        """Machines from now on find no way to their broker."""
        self._over = threading.Event()
        self._shown: dict[str, int] = {}

    def __enter__(self) -> BootingAws:
        self.aws.machines.boot_seconds = self.aws.machines.end_seconds = 0
        self.aws.machines.on_running = self._runs
        self.aws.machines.on_end = self._ends
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.aws.machines.on_running = lambda *_: None  # what is bought from now on stays an entry in a list
        self._over.set()
        self._thread.join(10)

    def _runs(self, number: str, user_data: str, tags: Mapping[str, str]) -> None:
        service = metadata.Ec2(number, opened(user_data), region=self.aws.region, tags=tags)
        self.all[number] = self.machines.start(service, on_end=self._has_ended, cut_off=self.cut_off)

    def _ends(self, number: str) -> None:
        if machine := self.all.get(number):
            machine.cut(wait=False)

    def _has_ended(self, machine: Machine) -> None:
        """By itself: the cloud notices."""
        self._tell(machine.service.id, machine)
        if not machine.was_cut:
            self.aws.power_off(machine.service.id)

    def _pass_on(self) -> None:
        """What consoles say becomes the answer of GetConsoleOutput."""
        while not self._over.wait(LOOK_SECONDS):
            for number, machine in list(self.all.items()):
                self._tell(number, machine)

    def _tell(self, number: str, machine: Machine) -> None:
        with contextlib.suppress(OSError):
            said = machine.console()
            new = said[self._shown.get(number, 0) :]
            self._shown[number] = len(said)
            if new:
                self.aws.write(number, new)


class BootingOpenStack:
    """Nova's machines boot; a machine that has switched itself off is SHUTOFF, and still there."""

    def __init__(self, cloud: Cloud, machines: Machines) -> None:
        self.machines = machines
        self.all: dict[str, Machine] = {}
        self._known: dict[str, openstack_machines.Machine] = {}
        self._nova = OpenStackMachines(cloud, started=self._runs, deleted=self._ends)

    def __enter__(self) -> BootingOpenStack:
        self._nova.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._nova.__exit__()

    def _runs(self, told: openstack_machines.Machine) -> None:
        service = metadata.OpenStack(told.id, told.user_data, meta=told.metadata, name=told.name)
        self._known[told.id] = told
        self.all[told.id] = self.machines.start(service, on_end=self._has_ended)

    def _ends(self, told: openstack_machines.Machine) -> None:
        self.all[told.id].cut(wait=False)

    def _has_ended(self, machine: Machine) -> None:
        if not machine.was_cut:
            self._nova.power_off(self._known[machine.service.id])


def opened(user_data: str) -> str:
    """As the metadata service gives it: what travelled in base64, and cloud-init unpacks where it is packed."""
    try:
        told = base64.b64decode(user_data, validate=True)
    except (binascii.Error, ValueError):
        return user_data
    return (gzip.decompress(told) if told[:2] == b"\x1f\x8b" else told).decode()
