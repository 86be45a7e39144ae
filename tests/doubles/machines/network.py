"""A machine's wire: a pair of network devices, an address on each side, NAT outwards, and nothing inwards."""

from __future__ import annotations

import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

PREFIX = "abm"
ADDRESSES = 16_000  # of 10.213.0.0/16, four to a wire


@dataclass(frozen=True)
class Wire:
    """`name` is the device on this computer's side. All of it goes with the machine: `hull.py` takes it up again."""

    name: str
    gateway: str
    guest: str

    @classmethod
    def laid(cls) -> Wire:
        """A wire that nobody else has: the kernel takes a device's name once."""
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        while True:
            number = random.randrange(ADDRESSES)
            first = f"10.213.{number // 64}.{number % 64 * 4}".rpartition(".")
            base, last = first[0], int(first[2])
            wire = cls(f"{PREFIX}{number}", f"{base}.{last + 1}", f"{base}.{last + 2}")
            made = subprocess.run(
                ["ip", "link", "add", wire.name, "type", "veth", "peer", "name", f"{wire.name}g"],
                capture_output=True,
                check=False,
            )
            if made.returncode == 0:
                wire._connect()
                return wire
            assert b"exists" in made.stderr, made.stderr

    def lead(self, address: str, port: int, to: int) -> None:
        """What the machine asks there is answered by this computer, on the wire's gateway address at port `to`."""
        target = f"{self.gateway}:{to}"
        self._rule("nat", "PREROUTING", "-d", address, "-p", "tcp", "--dport", str(port), "-j", "DNAT", "--to", target)

    def cut_off(self) -> None:
        """Nothing goes out any more: as behind a firewall that somebody forgot."""
        self._rule("filter", "FORWARD", "-j", "DROP")

    def _connect(self) -> None:
        ip("address", "add", f"{self.gateway}/30", "dev", self.name)
        ip("link", "set", self.name, "up")
        self._rule("filter", "FORWARD", "-j", "ACCEPT")
        iptables("filter", "-I", "FORWARD", "-o", self.name, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED",
                 "-j", "ACCEPT")  # fmt: skip
        iptables("nat", "-I", "POSTROUTING", "-s", self.guest, "!", "-o", self.name, "-m", "comment", "--comment", self.name,
                 "-j", "MASQUERADE")  # fmt: skip

    def _rule(self, table: str, chain: str, *rule: str) -> None:
        iptables(table, "-I", chain, "-i", self.name, *rule)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def iptables(table: str, *words: str) -> None:
    subprocess.run(["iptables", "-w", "20", "-t", table, *words], check=True, capture_output=True)


def rules(name: str) -> list[tuple[str, list[str]]]:
    """The rules that speak of this wire, as table and words."""
    found = []
    for table in ("nat", "filter"):
        said = subprocess.run(["iptables", "-w", "20", "-t", table, "-S"], capture_output=True, text=True, check=True)
        found += [(table, line.split()) for line in said.stdout.splitlines() if re.search(rf"\b{name}\b", line)]
    return found


def taken_up(name: str) -> None:
    """Nothing is left of this wire on this computer."""
    for table, words in rules(name):
        iptables(table, "-D", *words[1:])
    subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)  # it went with the other end


if __name__ == "__main__":
    import sys

    taken_up(sys.argv[1])
