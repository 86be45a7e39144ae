"""Which addresses a served broker may ask. Somebody else chooses the host; the broker stands inside our network.

What is checked is an IP address, and the connection is made to that very address: a name that answers differently the
second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from broker.repos import errors
from providers.sentences import say

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup = Callable[..., Iterable[tuple[Any, ...]]]

NAT64 = ipaddress.ip_network("64:ff9b::/96")
PUBLIC_BUT_NOT = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's metadata and agent channel, on a public address
    ipaddress.ip_network("192.0.0.0/24"),  # Oracle's metadata is 192.0.0.192
    ipaddress.ip_network("2001::/32"),  # Teredo: an IPv4 address of the sender's choice inside
    ipaddress.ip_network("::/96"),  # IPv4-compatible, long deprecated
    ipaddress.ip_network("fec0::/10"),  # site-local, the older private
)
NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?", re.IGNORECASE)
"""The last label of a host that a C library would read as a number: 2130706433, 0x7f.1, 0177.0.0.1, 127.1."""


@dataclass(frozen=True, kw_only=True)
class Safety:
    """Decides. Where the broker is not served, the one local person asks their own network, and all is allowed."""

    served: bool
    allowed: tuple[Network, ...] = ()
    """Private networks that may be asked all the same, such as the one of a campus GitLab."""
    lookup: Lookup = socket.getaddrinfo

    def address(self, host: str, port: int) -> str:
        """The address to connect to for this host. Raises NotAllowed where any of its addresses is not public."""
        if self.served:
            refuse_odd_spelling(host)
        found = self.addresses(host.strip("[]"), port)
        if self.served:
            for address in found:
                self.check(address, host)
        return str(found[0])

    def addresses(self, host: str, port: int) -> list[Address]:
        """All addresses of this host, the preferred first, IPv4 before IPv6."""
        try:
            rows = self.lookup(host, port, type=socket.SOCK_STREAM)
            found = [ipaddress.ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
        except (OSError, UnicodeError, ValueError):
            found = []
        if not found:
            raise errors.HostUnavailable(
                say("There is no host named %(host)s. Check the address of the repository.", host=host)
            )
        return sorted(dict.fromkeys(found), key=lambda address: address.version)

    def check(self, address: Address, host: str) -> None:
        if any(address in network for network in self.allowed if network.version == address.version):
            return
        if not is_public(address):
            raise errors.NotAllowed(
                say(
                    "%(host)s is not on the public internet, and this broker may not look into its own network. "
                    "Use a repository with a public address.",
                    host=host,
                )
            )


def is_public(address: Address) -> bool:
    """True for what is reached over the public internet, whichever way it is wrapped."""
    inner = wrapped(address)
    if inner is not None:
        return is_public(inner)
    if any(address in network for network in PUBLIC_BUT_NOT if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def wrapped(address: Address) -> Address | None:
    """The IPv4 address that travels inside this IPv6 one, if one does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def refuse_odd_spelling(host: str) -> None:
    """Decimal, octal and hexadecimal hosts mean different addresses to different programs."""
    if host.startswith("[") or not NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2] or "0"):
        return
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        raise errors.NotAllowed(
            say("%(host)s is an unusual way to write an address. Use the name of the host.", host=host)
        ) from None
