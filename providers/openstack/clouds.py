"""Which OpenStack clouds there are. A person never types an address: the operator names a cloud, or gives its address."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from providers.errors import InvalidOrder

FILE = Path(__file__).with_name("clouds.toml")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where one is, and what is particular about it."""

    auth_url: str
    """Of its Keystone, ending in `/v3`. https, or on this computer."""
    title: str = ""
    region: str = ""
    credentials_page: str = ""
    notes: tuple[str, ...] = ()

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
    return Cloud(
        auth_url=found.auth_url,
        title=found.title,
        region=configuration.get("region") or found.region,
        credentials_page=configuration.get("credentials_page") or found.credentials_page,
        notes=found.notes,
    )


def _read(told: Mapping[str, object]) -> Cloud:
    words = {name: str(told[name]) for name in ("title", "auth_url", "region", "credentials_page")}
    notes = told["notes"]
    assert isinstance(notes, list)  # noqa: S101 -- our own file
    return Cloud(**words, notes=tuple(notes))


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
