"""Machines that boot: what stands for a cloud's instance once its double says that it runs.

    with Machines(folder, gate=way) as machines:
        machine = machines.start(metadata.Ec2("i-0123", user_data), on_end=lambda: …)
        machine.inside("cloud-init status --wait")      # as root in it
        machine.console()                               # what its serial console said
        machine.cut()                                   # as the cloud does when it is told to terminate

A machine is a copy-on-write root over one Debian 12 (`image.py`), in namespaces of its own: processes, mounts, host name,
IPC, cgroups and network. PID 1 is Debian's own systemd, so cloud-init runs by its own units, timers are real and
`poweroff` ends it. Its metadata service is at 169.254.169.254 (`metadata.py`), the way out is NAT, and nothing comes in.

Not like a machine: the kernel is this computer's; its network is set from outside, without DHCP; and where a cloud is known
by DMI it is known by what stands for that (the hypervisor's uuid for EC2, PID 1's environment for OpenStack).

A machine ends with the process that started it, however that ends; nothing is left of it
then: no process, mount, namespace, network device, rule or file (`hull.py` sees to that).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, Self

from tests.doubles.machines import image, metadata
from tests.doubles.machines.network import Wire
from tests.waiting import until

END_SECONDS = 120  # thousands of files are taken away, on a busy disk
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
HULL = Path(__file__).with_name("hull.py")
BOOT_SECONDS = 120  # until cloud-init has run the whole user data on two shared cores

__all__ = ["Machine", "Machines", "image", "metadata"]


class Gate(Protocol):
    """What answers for the names that machines know, by https (`PublicWay`)."""

    certificates: Path
    names: list[str]

    def open(self, address: str) -> int:
        """Answer at this address of this computer too; the port."""

    def shut(self, address: str) -> None: ...


class Machine:
    """One machine, from power on to power off."""

    def __init__(self, folder: Path, wire: Wire, service: metadata.Service, hull: subprocess.Popen[bytes]) -> None:
        self.folder, self.wire, self.service, self._hull = folder, wire, service, hull
        self.began = time.time()
        self.ended = threading.Event()
        self.was_cut = False

    @property
    def running(self) -> bool:
        return not self.ended.is_set()

    @property
    def pid(self) -> int:
        """Its PID 1, as this computer counts."""
        return int((self.folder / "pid").read_text())

    def console(self) -> str:
        """All that was written to its serial console; also after it has ended."""
        return (self.folder / "console").read_bytes().decode(errors="replace").replace("\r\n", "\n")

    def inside(self, command: str, *, user: str = "root", check: bool = True, seconds: float = 60) -> str:
        """What a shell in it says to this, errors included, as this user."""
        enter = ["nsenter", "--target", str(self.pid), "--all", "--wdns=/", "env", "-i", PATH]
        words = ["sh", "-c", command] if user == "root" else ["setpriv", *as_user(user), "sh", "-c", command]
        ended = subprocess.run(
            [*enter, *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert not check or ended.returncode == 0, f"{command}\n{ended.stdout}\n{self.console()[-2000:]}"
        return ended.stdout.strip()

    def booted(self, seconds: float = BOOT_SECONDS) -> Self:
        """Waits until cloud-init has come to its end."""
        done = self.folder / "upper/var/lib/cloud/instance/boot-finished"  # the link leads into the machine's own root
        instances = self.folder / "upper/var/lib/cloud/instances"
        until(
            lambda: self.ended.is_set() or done.exists() or any(instances.glob("*/boot-finished")),
            seconds=seconds,
            what=f"cloud-init has ended\n{self.console()[-3000:]}",
        )
        return self

    def press_power(self) -> None:
        """The button: it shuts down in its own way."""
        self.inside("systemctl poweroff --no-block", check=False)

    def cut(self, *, wait: bool = True) -> None:
        """Without power it ends at once. Returns when nothing is left of it; cutting what has ended is fine."""
        self.was_cut |= self.running
        if self._hull.stdin:
            self._hull.stdin.close()
        if wait:
            self.ended.wait(END_SECONDS)
            assert not self.running, self.folder


class Machines:
    """Where machines stand. Ending it cuts the power of them all."""

    def __init__(self, gate: Gate | None = None, hosts: Mapping[str, str] | None = None) -> None:
        """`gate`: what answers, by https, for the names the machines shall know; they trust its certificate."""
        self.gate, self.hosts = gate, hosts or {}
        self.all: list[Machine] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._folder = Path(tempfile.mkdtemp(prefix=f"abmach-{os.getpid()}-", dir="/tmp"))

    def __enter__(self) -> Machines:
        forget_the_dead()
        self.root = image.made()
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.all:
            machine.cut(wait=False)
        for thread in self._threads:
            thread.join(END_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(
        self,
        service: metadata.Service,
        *,
        on_end: Callable[[Machine], None] | None = None,
        cut_off: bool = False,
    ) -> Machine:
        """Power on. Returns within a second; `on_end` is called once, from a thread, when nothing is left of it.

        `cut_off`: its network lets nothing out but questions to the metadata service.
        """
        folder = self._folder / service.id
        for each in ("upper", "work", "root"):
            (folder / each).mkdir(parents=True)
        wire = Wire.laid()
        service.serve(wire.gateway)
        wire.lead(metadata.ADDRESS, 80, service.port)
        if cut_off:
            wire.cut_off()
        elif self.gate:
            wire.lead(wire.gateway, 443, self.gate.open(wire.gateway))
        image.furnish(folder / "upper", self.root, service, self._names(wire), self.gate and self.gate.certificates)
        if service.uuid:
            (folder / "uuid").write_text(f"{service.uuid}\n")
        machine = Machine(folder, wire, service, self._hull(folder, wire, service))
        watch = threading.Thread(target=self._watch, args=(machine, on_end), daemon=True)
        with self._lock:
            self.all.append(machine)
            self._threads.append(watch)
        watch.start()
        return machine

    def _names(self, wire: Wire) -> dict[str, str]:
        return {**dict.fromkeys(self.gate.names if self.gate else (), wire.gateway), **self.hosts}

    def _hull(self, folder: Path, wire: Wire, service: metadata.Service) -> subprocess.Popen[bytes]:
        told = [str(folder), str(self.root), wire.name, wire.guest, wire.gateway, *service.environment]
        with (folder / "hull.log").open("wb") as log:
            hull = subprocess.Popen(
                [sys.executable, "-I", str(HULL), *told], stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        until(
            lambda: (folder / "pid").exists() or hull.poll() is not None,
            what=f"it has power: {(folder / 'hull.log').read_text()}",
        )
        return hull

    def _watch(self, machine: Machine, on_end: Callable[[Machine], None] | None) -> None:
        machine._hull.wait()
        if machine._hull.stdin:
            machine._hull.stdin.close()
        if self.gate:
            self.gate.shut(machine.wire.gateway)
        machine.service.close()
        machine.ended.set()
        if on_end:
            on_end(machine)


def forget_the_dead() -> None:
    """What is left of runs that were killed is their machines' consoles."""
    for folder in Path("/tmp").glob("abmach-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


def as_user(user: str) -> list[str]:
    return [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
