"""Pages elsewhere that use a session by its token, where the operator allows them to: Thebe's way.

What a browser sends by itself opens nothing here, so none of these answers allows credentials: only a page that was given
the token can use it.
"""

from __future__ import annotations

from broker import wire
from broker.gateway.heads import Route

_ASKED_FIRST = (
    b"Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: accept, content-type, authorization, x-xsrftoken\r\n"
    b"Access-Control-Max-Age: 3600\r\n"
)
REPLACED = frozenset((b"access-control-allow-origin", b"access-control-allow-credentials"))
"""What a session says of this itself counts for nothing where the token was shown."""


def reader(request: wire.Request, route: Route, allow_origin: bytes) -> bytes:
    """The value of Access-Control-Allow-Origin for whoever asks from a page elsewhere; empty where that is nobody."""
    sender = request.fields.get(b"origin")
    if not allow_origin or sender is None or sender.lower() == route.origin:
        return b""
    return allow_origin if allow_origin in (b"*", sender.lower()) else b""


def headers(allowed: bytes) -> bytes:
    """The lines that let this reader read; none for nobody."""
    if not allowed:
        return b""
    vary = b"" if allowed == b"*" else b"Vary: Origin\r\n"
    return b"Access-Control-Allow-Origin: %b\r\n%b" % (allowed, vary)


def preflight(allowed: bytes) -> bytes:
    """The whole answer to a browser that asks before it sends what the page wants. The same for any session or none."""
    return wire.STATUS_LINE[204] + headers(allowed) + _ASKED_FIRST + b"\r\n"
