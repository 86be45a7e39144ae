"""Which OpenStack clouds there are. A person never types an address: the operator names a cloud, or gives its address."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.errors import InvalidOrder

FILE = Path(__file__).with_name("clouds.toml")
WORDS = ("title", "auth_url", "region", "credentials_page", "image", "network", "floating_network", "architecture")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What some of a cloud's flavors cost, by whose word."""

    flavor: str
    """Regular expression of their names."""
    per_vcpu: Decimal | None = None
    per_hour: Decimal | None = None
    currency: str = "USD"
    gpu: int | None = None
    source: str = ""
    as_of: str = ""

    def price(self, cpus: int) -> Decimal | None:
        """Of one machine for one hour; None where only its other traits are known."""
        return self.per_hour if self.per_vcpu is None else self.per_vcpu * cpus


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where one is, and what is particular about it."""

    auth_url: str
    """Of its Keystone, ending in `/v3`. https, or on this computer."""
    title: str = ""
    region: str = ""
    credentials_page: str = ""
    notes: tuple[str, ...] = ()
    image: str = ""
    """Regular expression of its stock images' names."""
    network: str = ""
    """Name of the network that machines are to use."""
    floating_network: str = ""
    """Name of the outside network, where nothing dials out without an address of it; empty: machines need none."""
    config_drive: bool = False
    architecture: str = ""
    rates: tuple[Rate, ...] = ()

    @property
    def encrypted(self) -> bool:
        """Whether tokens may go to https addresses only."""
        return self.auth_url.startswith("https://")


def presets() -> dict[str, Cloud]:
    """The clouds that need no address, by name, in the order of the file."""
    return {name: _read(told) for name, told in tomllib.loads(FILE.read_text()).items()}


def chosen(configuration: Mapping[str, str]) -> Cloud:
    """The cloud that a backend's configuration means. Raises InvalidOrder with a sentence for the operator."""
    name, address = configuration.get("preset", ""), configuration.get("auth_url", "")
    if bool(name) == bool(address):
        raise InvalidOrder("An OpenStack backend names its cloud by “preset” or by “auth_url”: set one of the two.")
    known = presets()
    if name and name not in known:
        raise InvalidOrder(f"There is no OpenStack cloud called “{name}” here. There are: {', '.join(known)}.")
    found = known[name] if name else Cloud(auth_url=_address(address))
    drive = configuration.get("config_drive", "")
    return replace(
        found,
        region=configuration.get("region") or found.region,
        credentials_page=configuration.get("credentials_page") or found.credentials_page,
        floating_network=configuration.get("floating_network") or found.floating_network,
        config_drive=drive == "yes" if drive else found.config_drive,
    )


def _read(told: Mapping[str, Any]) -> Cloud:
    words = {name: told[name] for name in WORDS}
    rates = tuple(_rate(each) for each in told.get("rates", ()))
    return Cloud(**words, config_drive=told["config_drive"], notes=tuple(told["notes"]), rates=rates)


def _rate(told: Mapping[str, Any]) -> Rate:
    prices = {name: Decimal(told[name]) for name in ("per_vcpu", "per_hour") if name in told}
    rest = {name: told[name] for name in ("flavor", "currency", "gpu", "source") if name in told}
    return Rate(**prices, **rest, as_of=told["as_of"].isoformat())


def _address(typed: str) -> str:
    """With `/v3` at its end, as Keystone's own documents write it."""
    parts = urlsplit(typed.rstrip("/"))
    here = parts.scheme == "http" and parts.hostname in LOOPBACK
    if not parts.hostname or parts.query or parts.username or not (parts.scheme == "https" or here):
        raise InvalidOrder(
            "“auth_url” is the https address of the cloud's Keystone, like https://cloud.example.org:5000/v3."
        )
    address = parts.geturl()
    return address if parts.path.endswith("/v3") else f"{address}/v3"
