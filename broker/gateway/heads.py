"""What is said onward: request heads for a session, response heads for a browser. Both are written anew."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from broker import wire
from broker.gateway import auth


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """Where a request for a session came in. `prefix` is empty on the session's own origin and `/s/<id>` on the
    path URL, which takes the token only."""

    session_id: str
    host: bytes
    origin: bytes
    prefix: bytes = b""

    def covers(self, request: wire.Request) -> bool:
        """True where this request goes the same way as the one before it on the connection."""
        if request.fields[b"host"] != self.host:
            return False
        return not self.prefix or request.target.startswith(self.prefix + b"/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """Who is at the other end of a connection, and whether its word about others is taken."""

    address: bytes
    trusted: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Tail:
    """The end of each request head of one connection to one session."""

    forwarded: bytes
    authorization: bytes = field(repr=False)


def tail(request: wire.Request, session: Any, route: Route, peer: Peer) -> Tail:
    """Where the request came from, and the server's own token: only Jupyter is given it, an app has no use for it."""
    proto = route.origin.partition(b":")[0]
    chain = peer.address
    if peer.trusted:
        before = request.fields.get(b"x-forwarded-for")
        chain = before + b", " + peer.address if before else peer.address
        told = request.fields.get(b"x-forwarded-proto", b"").lower()
        proto = told if told in (b"http", b"https") else proto
    forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (chain, proto, route.host)
    if session.kind == "app":
        return Tail(forwarded=forwarded, authorization=b"")
    return Tail(forwarded=forwarded, authorization=b"Authorization: token %b\r\n" % session.server_token.encode())


def request_head(request: wire.Request, passing: auth.Pass, host: bytes, end: Tail) -> bytes:
    """The head the server gets: written anew, so that nothing reaches it that was not understood here."""
    parts = [request.method, b" ", passing.target, b" HTTP/1.1\r\nHost: ", host, b"\r\n", *request.plain]
    if passing.cookie:
        parts += (b"Cookie: ", passing.cookie, b"\r\n")
    if end.authorization:
        parts.append(end.authorization)
    elif passing.authorization:
        parts += (b"Authorization: ", passing.authorization, b"\r\n")
    if request.chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif b"content-length" in request.fields:
        parts.append(b"Content-Length: %d\r\n" % request.length)
    if request.websocket:
        parts.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    if b"expect" in request.fields:
        parts.append(b"Expect: 100-continue\r\n")
    parts += (end.forwarded, b"\r\n")
    return b"".join(parts)


def response_head(
    response: wire.Response, route: Route, *, chunked: bool, keep_alive: bool, shown: bytes = b""
) -> list[bytes]:
    """The head for the browser, in pieces. `chunked` says that the body will be sent in chunks; `shown` is the parameter
    that held the launch's token."""
    parts = [wire.STATUS_LINE[response.status]]
    if route.prefix:
        parts += _on_the_path(response, route, shown)
    else:
        parts += response.plain
        for cookie in response.cookies:
            if (clean := auth.clean_set_cookie(cookie)) is not None:
                parts += (b"Set-Cookie: ", clean, b"\r\n")
        if b"location" in response.fields:
            parts += (b"Location: ", response.fields[b"location"], b"\r\n")
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif response.length is not None and response.status != 204:
        parts.append(b"Content-Length: %d\r\n" % response.length)
    parts.append(b"\r\n" if keep_alive else b"Connection: close\r\n\r\n")
    return parts


_NEVER_ON_THE_PATH = frozenset(
    b"service-worker-allowed strict-transport-security content-security-policy-report-only report-to nel "
    b"reporting-endpoints refresh access-control-allow-credentials origin-agent-cluster".split()
)


def _on_the_path(response: wire.Response, route: Route, shown: bytes) -> list[bytes]:
    """On 127.0.0.1 all sessions and the broker share one origin, so a page there gets none: it is sandboxed, sets
    no cookie and starts no worker. Without a cookie, the token goes along where the session sends its sender on."""
    parts = wire.without(response.plain, _NEVER_ON_THE_PATH)
    if location := response.fields.get(b"location"):
        parts += (b"Location: ", _relocated(location, route, shown), b"\r\n")
    parts.append(b"Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n")
    return parts


def _relocated(location: bytes, route: Route, shown: bytes) -> bytes:
    own = route.origin + b"/"
    if location.startswith(own):
        location = location[len(route.origin) :]
    if location.startswith(b"/") and location[1:2] not in (b"/", b"\\"):
        return route.prefix + _with(location, shown)
    return location


def _with(location: bytes, shown: bytes) -> bytes:
    """This path with one more parameter, before the fragment; without it where the path climbs out to other sessions."""
    path, mark, fragment = location.partition(b"#")
    if not shown or _climbs(path.partition(b"?")[0]):
        return location
    return path + (b"&" if b"?" in path else b"?") + shown + mark + fragment


def _climbs(path: bytes) -> bool:
    """Whether clients may read `..` in it, as they do behind `%2e` and in spite of tabs."""
    plain = urllib.parse.unquote_to_bytes(path).replace(b"\t", b"").replace(b"\\", b"/")
    return b".." in plain.split(b"/")


def unfit(request: wire.Request, route: Route) -> tuple[int, str] | None:
    """Why this request cannot be forwarded although its sender may pass."""
    if request.websocket and (request.has_body or request.method != b"GET" or request.minor == 0):
        return 400, "A WebSocket begins with a GET without a body."
    if request.fields.get(b"expect", b"100-continue").lower() != b"100-continue":
        return 417, "Only 100-continue can be expected."
    if route.prefix and request.fields.get(b"sec-fetch-dest") in _RUNNING:
        return 403, "Pages and their parts are not served from here."
    return None


_RUNNING = frozenset(
    (b"script", b"worker", b"serviceworker", b"sharedworker", b"iframe", b"frame", b"object", b"embed")
)
