"""What a peer is: another hub, as its operator or ours describes it, and the addresses it may send anybody to."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORTS = {"https": 443, "http": 80}
FEW_LABELS = 2  # `*.example.org` is somebody's, `*.org` is everybody's


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One hub that launches can be forwarded to."""

    name: str
    title: str
    url: str
    """Where its JupyterHub is, up to what stands before `/hub`. No slash at the end."""
    binder_url: str = ""
    """Where its BinderHub is, where that is not `url`. No slash at the end."""
    origins: tuple[str, ...] = ()
    """Further origins that it may send us and people to: `https://hub.example.org`, or `https://*.example.org`."""
    weight: float = 1.0
    publishes: bool = True
    """What is launched there becomes public record."""
    anonymous: bool = True
    """It runs things for people who have no account there."""
    terms_url: str = ""
    privacy_url: str = ""
    build_token_key: bytes = field(default=b"", repr=False)
    """The key of build tokens that it shares with us; empty where it shares none."""

    @property
    def binder(self) -> str:
        """Where its BinderHub answers, without a slash at the end."""
        return self.binder_url or self.url

    @property
    def service(self) -> str:
        """What its JupyterHub calls its BinderHub, where that is one of the hub's services; else empty."""
        below = self.binder.removeprefix(f"{self.url}/services/")
        return "" if below == self.binder or "/" in below else below

    def owns(self, url: str) -> bool:
        """Whether this address is on one of its origins, may carry a token, and names nobody before an `@`."""
        found = _split(url)
        if found is None or found.username is not None or found.password is not None or not _takes_tokens(found):
            return False
        return any(_matches(found, origin) for origin in (self.url, self.binder, *self.origins))


def origin_problem(text: str) -> str:
    """Why this cannot be an origin of a peer's, in a sentence; empty where it can."""
    host = text.partition("://")[2].removeprefix("*.")
    found = _split(text.replace("://*.", "://", 1))
    if found is None or not found.hostname or found.path.strip("/") or found.query or found.fragment or "*" in host:
        return (
            f"“{text}” is no origin. Write it like https://hub.example.org, or https://*.example.org for all below it."
        )
    if not _takes_tokens(found):
        return f"“{text}” must begin with https://, as tokens are sent there."
    if "://*." in text and host.partition(":")[0].count(".") + 1 < FEW_LABELS:
        return f"“{text}” is too wide: it would let this peer send people anywhere."
    return ""


def _split(url: str) -> SplitResult | None:
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return None  # browsers and programs do not agree on what these mean
    try:
        found = urlsplit(url)
        _ = found.port
    except ValueError:
        return None
    return found if found.scheme in PORTS and found.hostname else None


def _takes_tokens(found: SplitResult) -> bool:
    return found.scheme == "https" or found.hostname in LOOPBACK


def _matches(found: SplitResult, origin: str) -> bool:
    below = "://*." in origin
    own = _split(origin.replace("://*.", "://", 1))
    if own is None or own.scheme != found.scheme or _port(own) != _port(found):
        return False
    host, wanted = (found.hostname or "").rstrip("."), own.hostname or ""
    return host.endswith(f".{wanted}") if below else host == wanted


def _port(found: SplitResult) -> int:
    return found.port or PORTS[found.scheme]
