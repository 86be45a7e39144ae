"""What an agent of Neutron's does on a host: each machine's wire is put on a bridge, from which NAT leads out, and nothing in.

The bridge has the address that machines know as their gateway. It is told from whatever else this computer has by its name;
`taken_up` leaves nothing of it, also after a run that was killed.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tests.doubles.machines import network

PREFIX = "abb"
LOOK_SECONDS = 0.2
DEVICES = Path("/sys/class/net")
TAP = "tap"
TAP_LENGTH = 14
"""Neutron's rule: `tap` and the first eleven characters of the port's id."""


class Bridge:
    """A /24 of 10.214.0.0/16 that no other run has: the kernel takes a device's name once."""

    def __init__(self) -> None:
        self.name = self.cidr = self.gateway = ""
        self.ports: Callable[[], list[str]] = list
        """The ids of the cloud's ports: their wires are joined, and no others'. Set by the bed."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._join_all, daemon=True)

    def __enter__(self) -> Bridge:
        self.name, first = laid()
        self.cidr, self.gateway = f"{first}.0/24", f"{first}.1"
        try:
            self._connect()
            self._thread.start()
        except BaseException:
            taken_up(self.name)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)
        taken_up(self.name)

    def _connect(self) -> None:
        network.ip("address", "add", f"{self.gateway}/24", "dev", self.name)
        network.ip("link", "set", self.name, "up")
        network.iptables("filter", "-I", "FORWARD", "-i", self.name, "-j", "ACCEPT")
        network.iptables("filter", "-I", "FORWARD", "-o", self.name, "-m", "conntrack", "--ctstate",
                         "RELATED,ESTABLISHED", "-j", "ACCEPT")  # fmt: skip
        network.iptables("nat", "-I", "POSTROUTING", "-s", self.cidr, "!", "-o", self.name, "-m", "comment",
                         "--comment", self.name, "-j", "MASQUERADE")  # fmt: skip

    def lead(self, address: str, port: int, to: int) -> None:
        """What machines ask there is answered by this computer, on the gateway's address at port `to`."""
        target = f"{self.gateway}:{to}"
        network.iptables("nat", "-I", "PREROUTING", "-i", self.name, "-d", address, "-p", "tcp", "--dport", str(port),
                         "-j", "DNAT", "--to", target)  # fmt: skip

    def _join_all(self) -> None:
        strangers: set[str] = set()
        while not self._over.wait(LOOK_SECONDS):
            new = {each.name for each in DEVICES.glob(f"{TAP}*") if not (each / "master").exists()} - strangers
            if new:
                ours = {f"{TAP}{port}"[:TAP_LENGTH] for port in self.ports()}
                strangers |= new - ours
                for name in new & ours:
                    with contextlib.suppress(subprocess.CalledProcessError):  # it has gone again meanwhile
                        network.ip("link", "set", name, "master", self.name, "up")


def laid() -> tuple[str, str]:
    """A new bridge, and the first three numbers of its addresses."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    while True:
        number = random.randrange(256)
        name = f"{PREFIX}{number}"
        made = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, check=False)
        if made.returncode == 0:
            return name, f"10.214.{number}"
        assert b"exists" in made.stderr, made.stderr


def taken_up(name: str) -> None:
    """Nothing is left of this bridge on this computer, nor of the wires that lead to it."""
    for wire in DEVICES.glob(f"{name}/brif/*"):
        subprocess.run(["ip", "link", "delete", wire.name], capture_output=True, check=False)
    network.taken_up(name)
