"""Who may pass into a session: the gateway's own cookie on a request of the session's own pages, or the launch's token.

Nothing here touches the network or the table. A secret never leaves these functions in an exception or a log line.
"""

from __future__ import annotations

import base64
import hmac
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from broker import wire

COOKIE = b"anybinder-session"
HOST_COOKIE = b"__Host-anybinder-session"  # browsers let nobody but this very host set it, over https
OWN_COOKIES = frozenset(
    (COOKIE, HOST_COOKIE, b"anybinder", b"anybinder-sign-in", b"__Host-anybinder", b"__Host-anybinder-key")
)
COOKIE_SECONDS = 12 * 3600

_TOKEN_PARAMETER = b"token"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """This request may go on. `target` has lost the launch's token, `cookie` our cookies; `until` bounds its memory."""

    target: bytes
    cookie: bytes = field(default=b"", repr=False)
    until: float = 0.0
    authorization: bytes = field(default=b"", repr=False)
    """The client's own Authorization header, where it was none of ours."""
    by_token: bool = False
    shown: bytes = field(default=b"", repr=False)
    """The launch's token as it stood in the address: `token=…`."""
    enter: bool = False
    """A browser came with the token in its address: give it the cookie and the clean address instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turned:
    """This request may not go on. `known` says that the visitor did show something valid for this session."""

    sentence: str
    known: bool = False


def judge(request: wire.Request, session: Any, *, origin: bytes, target: bytes, cookies: bool) -> Pass | Turned:
    """May this request enter this session? `origin` is the session's own; `cookies` is False where cookies are not
    honoured, on the path URL of 127.0.0.1."""
    fields = request.fields
    authorization = fields.get(b"authorization", b"")
    by_header = _opens(session, _credential(authorization))
    bare, shown = _without_token(target, session)
    cookie, until = split_cookies(fields.get(b"cookie", b""), session) if cookies else (b"", 0.0)
    passing = Pass(
        target=bare,
        cookie=cookie,
        until=min(until, session.deadline.timestamp()),
        authorization=b"" if by_header else authorization,
        by_token=by_header or bool(shown),
        shown=shown,
        enter=bool(shown) and cookies and is_navigation(request),
    )
    if passing.by_token:
        return passing
    if not until:
        return Turned(sentence="This session is not open to you, or has ended.")
    if not from_own_page(request, origin):
        return Turned(sentence="Another page asked for this session in your name, so it was refused.", known=True)
    return passing


def from_own_page(request: wire.Request, origin: bytes) -> bool:
    """Cookies are sent by whoever makes the browser ask. True where it was the session's own page, or the person
    following a link. Other sessions are the same *site* and still strangers."""
    fields = request.fields
    sender = fields.get(b"origin")
    if sender is not None and sender.lower() != origin:
        return False
    if request.websocket and sender is None:
        return False
    site = fields.get(b"sec-fetch-site")
    if site is None or site in (b"same-origin", b"none"):
        return True
    return (
        request.method == b"GET"
        and fields.get(b"sec-fetch-mode") == b"navigate"
        and fields.get(b"sec-fetch-dest") == b"document"
    )


def is_navigation(request: wire.Request) -> bool:
    """True where a browser is opening a page, as opposed to a script or a part of a page."""
    if request.method != b"GET" or request.websocket:
        return False
    dest = request.fields.get(b"sec-fetch-dest")
    return dest == b"document" if dest is not None else wants_html(request)


def wants_html(request: wire.Request) -> bool:
    """True where a page can be shown, as opposed to a sentence in JSON."""
    return b"text/html" in request.fields.get(b"accept", b"")


# ---- tokens -----------------------------------------------------------------------------------------------------


def _credential(authorization: bytes) -> str:
    kind, _, credential = authorization.partition(b" ")
    return credential.strip().decode("latin-1") if kind.lower() in (b"token", b"bearer") else ""


def _opens(session: Any, token: str) -> bool:
    return bool(token) and bool(session.opened_by(token))


def _without_token(target: bytes, session: Any) -> tuple[bytes, bytes]:
    """The target without the launch's token, and the parameter that held it, if any did. An app's own parameter `token`
    stays, unless the server is Jupyter, which would take it for its own and refuse."""
    path, mark, query = target.partition(b"?")
    if not mark or b"token=" not in query:
        return target, b""
    kept, found = [], b""
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        ours = name == _TOKEN_PARAMETER and _opens(session, urllib.parse.unquote_to_bytes(value).decode("latin-1"))
        found = part if ours else found
        if not ours and not (name == _TOKEN_PARAMETER and session.kind != "app"):
            kept.append(part)
    return (path + b"?" + b"&".join(kept) if kept else path), found


# ---- cookies ----------------------------------------------------------------------------------------------------


def issue_cookie(session: Any, *, secure: bool) -> bytes:
    """The Set-Cookie value that lets a browser into this session for 12 hours, as long as it lasts: its deadline, which may be
    moved, is looked at with each request."""
    now = time.time()
    expiry = int(now + COOKIE_SECONDS)
    value = b"%d.%b" % (expiry, _signature(session, expiry))
    rest = b"; Max-Age=%d; Path=/; HttpOnly; SameSite=Lax" % max(0, expiry - int(now))
    if secure:
        return HOST_COOKIE + b"=" + value + rest + b"; Secure"
    return COOKIE + b"=" + value + rest


def split_cookies(header: bytes, session: Any) -> tuple[bytes, float]:
    """What is left of a Cookie header without ours, and until when (Unix time) the best of ours holds, else 0.

    Several of our name may come, since another session of the same domain can toss one in: any valid one passes."""
    if not header:
        return b"", 0.0
    kept, until = [], 0.0
    for part in header.split(b";"):
        name, _, value = part.strip(b" \t").partition(b"=")
        name = name.strip(b" \t")
        if name not in OWN_COOKIES:
            kept.append(part.strip(b" \t"))
        elif name != b"anybinder":
            until = max(until, _holds_until(value.strip(b" \t"), session))
    return b"; ".join(filter(None, kept)), until


def _holds_until(value: bytes, session: Any) -> float:
    digits, _, signature = value.partition(b".")
    if not digits.isdigit() or len(digits) > 12:
        return 0.0
    expiry = int(digits)
    if not hmac.compare_digest(_signature(session, expiry), signature) or expiry <= time.time():
        return 0.0
    return float(expiry)


def _signature(session: Any, expiry: int) -> bytes:
    message = b"anybinder-session|%b|%d" % (session.id.encode(), expiry)
    return base64.urlsafe_b64encode(hmac.digest(session.cookie_key, message, "sha256")).rstrip(b"=")


def clean_set_cookie(value: bytes) -> bytes | None:
    """A session's own Set-Cookie, bound to its own host; None where it would write one of ours."""
    first, *attributes = value.split(b";")
    name, equals, _ = first.partition(b"=")
    name = name.strip(b" \t").lower()
    if not name or not equals or name in {own.lower() for own in OWN_COOKIES}:
        return None
    kept = [part for part in attributes if part.partition(b"=")[0].strip(b" \t").lower() != b"domain"]
    return b";".join([first, *kept])
