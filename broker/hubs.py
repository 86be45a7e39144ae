"""The hubs that this command line is signed in to, with the token for each. Standard library only: it must start fast."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from broker import addresses
from broker import home as folder

FILE = "hubs.json"


class BadAddress(ValueError):
    """The address of a hub begins with https://, and has nothing after its name."""


@dataclass(frozen=True, kw_only=True)
class Hub:
    """One hub, and the token for it."""

    url: str
    token: str = field(repr=False)
    token_id: str
    name: str = ""
    """Whom it knows us as."""


def address(typed: str) -> str:
    """This address, in the one way we write it. Raises BadAddress: a token goes over https only, or stays on this computer."""
    text = typed.strip().removesuffix("/")
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadAddress(f"“{typed}” is no address of a hub.") from None
    if not addresses.takes_secrets(parts):
        raise BadAddress("The address of a hub begins with https://: a token is sent to it.")
    if not host or parts.path or parts.query or parts.fragment or "@" in parts.netloc or not _plain(host):
        raise BadAddress(f"“{typed}” is no address of a hub. It is like https://hub.example, with nothing after it.")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port and port != _usual(parts.scheme) else "")


def known(home: Path) -> list[Hub]:
    """Those we are signed in to, the one of the last login first."""
    try:
        return [Hub(**each) for each in json.loads((home / FILE).read_text())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError):
        raise BadAddress(f"{home / FILE} cannot be read. Remove it, and log in again.") from None


def find(home: Path, url: str) -> Hub | None:
    """The one at this address, as `address` writes it."""
    return next((hub for hub in known(home) if hub.url == url), None)


def keep(home: Path, hub: Hub) -> None:
    """Remember this one, in place of what was known of it, in a file for the owner only."""
    _write(home, [hub, *(other for other in known(home) if other.url != hub.url)])


def forget(home: Path, url: str) -> None:
    """Remember it no more. Forgetting what is not known is success."""
    _write(home, [hub for hub in known(home) if hub.url != url])


def _write(home: Path, hubs: list[Hub]) -> None:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.write_private(home / FILE, json.dumps([asdict(hub) for hub in hubs], indent=1) + "\n")


def _usual(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _plain(host: str) -> bool:
    return all(letter.isascii() and (letter.isalnum() or letter in ".-:") for letter in host)
