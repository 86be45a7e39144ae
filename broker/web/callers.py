"""What a request says of itself: where it comes from, behind the proxies we know, whether its network may ask at all, and
the addresses it was sent to, as they were written."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

from broker import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
UNKNOWN = "unknown"  # a unix socket has no address


def address(scope: Scope, trusted: Collection[str]) -> str:
    """The address of the client. What a proxy says in `X-Forwarded-For` counts only where the proxy is trusted."""
    found = scope["client"][0] if scope.get("client") else UNKNOWN
    said = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
    while found in trusted and said:
        before = parsed(said.pop().strip())
        if before is None:
            break
        found = str(before)
    known = parsed(found)
    return str(known) if known else found


def parsed(text: str) -> Address | None:
    """This text as an address; an IPv4 one that came in as IPv6 is what it is."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found


def network(client: str) -> str:
    """What is counted as one client: an IPv4 address; of IPv6 the 64 bits a household is given."""
    found = parsed(client)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return client


class Banned:
    """The networks that an operator lets nothing ask."""

    def __init__(self, networks: Mapping[str, str]) -> None:
        """Raises ValueError where one is no network."""
        self._networks = [(ipaddress.ip_network(text, strict=False), label) for text, label in networks.items()]

    def sentence(self, client: str) -> str | None:
        """BinderHub's sentence to a client that is refused; None for one that is not."""
        found = parsed(client)
        for banned, label in self._networks:
            if found is not None and found.version == banned.version and found in banned:
                return f"Requests from {label} are not allowed"
        return None


def origin(request: Request) -> str:
    """Host and port of the page that asks, else of the address that was asked: what build tokens are made out to."""
    page = urlsplit_safely(request.headers.get("origin", ""))
    return page or request.headers.get("host", "")


def urlsplit_safely(text: str) -> str:
    """Host and port of this address; empty where it has none."""
    try:
        return urlsplit(text).netloc
    except ValueError:
        return ""


def is_browser(request: Request) -> bool:
    """Whether a page asks, as opposed to a script: only browsers send these, and pages cannot make them up."""
    return "origin" in request.headers or "sec-fetch-site" in request.headers  # node sends `sec-fetch-mode`


def path(scope: Scope) -> str:
    """The path as it was sent, still quoted: in BinderHub's links `%2F` and `/` are two things."""
    return str(scope["raw_path"].partition(b"?")[0].decode("latin-1"))


def hub_url(request: Request, chosen: settings.Settings) -> str:
    """The address that this broker is known by: as the operator tells it, else as the client reached it. Ends in a slash."""
    told = chosen.badge_base_url or chosen.public_url or f"http://{request.headers.get('host', '')}"
    return told.rstrip("/") + "/"
