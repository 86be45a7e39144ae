"""Who asks, and from where: the checks every route shares."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import api_tokens, crypto, errors, people, sessions, settings, signins
from broker.service import Service
from broker.web import callers
from providers.sentences import say

COOKIE = "anybinder"
COOKIE_SECONDS = 30 * 24 * 3600
KEY_SECONDS = 600  # a key that was printed is good for ten minutes, and once
KEYS_MOST = 100
UNBANNED = ("/health", "/versions", "/agent/", "/build/")
"""What a banned network may ask: a federation's checks, agents that work for us; `/build` refuses in its own way."""
BACKCHANNEL = re.compile(r"/login/[a-z0-9-]+/backchannel")
"""Where identity providers tell us whom they have signed out."""
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
COOKIELESS = re.compile(r"/api/device(/token)?")
"""What command lines ask that have nothing to show yet. No cookie counts there."""
ASKING = "anybinder.asking"  # where a request keeps who asks, once that was looked up
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # not `no-referrer`: with that, browsers send `Origin: null` on our own forms
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Door:
    """The one local person's way in: a one-time key turned into a cookie, and a bearer key for the command line."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._keys: dict[bytes, float] = {}
        self._lock = threading.Lock()
        self.bearer = service.keys.token("api", "local")

    def __repr__(self) -> str:
        return "Door(…)"

    def new_key(self) -> str:
        """A key that signs one browser in, once, within KEY_SECONDS."""
        key = secrets.token_urlsafe(24)
        with self._lock:
            if len(self._keys) >= KEYS_MOST:
                self._keys.pop(next(iter(self._keys)))
            self._keys[crypto.digest(key)] = time.monotonic() + KEY_SECONDS
        return key

    def spend(self, key: str) -> bool:
        """Whether this key was still good; it no longer is."""
        with self._lock:
            return self._keys.pop(crypto.digest(key), 0.0) > time.monotonic()

    def cookie(self) -> str:
        """A new cookie, good for COOKIE_SECONDS."""
        until = str(int(time.time()) + COOKIE_SECONDS)
        return f"{until}.{self._sign(until)}"

    def admits(self, cookie: str) -> bool:
        """Whether this is a cookie of ours that has not run out."""
        until, _, signature = cookie.partition(".")
        return _same(signature, self._sign(until)) and until.isdigit() and int(until) > time.time()

    def _sign(self, until: str) -> str:
        return hmac.new(self._service.keys.derive("door"), until.encode(), hashlib.sha256).hexdigest()


def service_of(request: Request) -> Service:
    """The service of this process."""
    service: Service = request.app.state.service
    return service


def door_of(request: Request) -> Door:
    """The door of this process."""
    door: Door = request.app.state.door
    return door


def key_cookie(chosen: settings.Settings) -> str:
    """The name of the cookie that a key is turned into."""
    return "__Host-anybinder-key" if chosen.public_url else COOKIE


def sign_in_cookie(chosen: settings.Settings) -> str:
    """The name of the cookie of a sign-in. Without https a browser keeps no `__Host-` cookie everywhere."""
    return "__Host-anybinder" if chosen.public_url else "anybinder-sign-in"


def give_cookie(chosen: settings.Settings, answer: Response, name: str, value: str, seconds: int) -> None:
    """Let the browser keep this secret: for this host alone, out of reach of scripts, and over https where we have it."""
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=bool(chosen.public_url))


def drop_cookie(chosen: settings.Settings, answer: Response, name: str) -> None:
    """Let the browser forget it. Browsers heed only one that is like what was given."""
    answer.delete_cookie(name, httponly=True, samesite="lax", secure=bool(chosen.public_url))


def bearer(request: Request) -> str:
    """The token after `Bearer` or `token`; empty where there is none."""
    return shown(request.headers)


def shown(headers: Headers) -> str:
    """The same of these headers."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() in ("bearer", "token") else ""


def signed_in(request: Request) -> people.Person | None:
    """The person who asks, or None. Looked up once a request.

    A cookie counts only on the host name that set it, never on 127.0.0.1, and not beside a token that is shown.
    """
    if ASKING not in request.scope:
        request.scope[ASKING] = _looked_up(request)
    found: people.Person | None = request.scope[ASKING]
    return found


def greeted(request: Request) -> str:
    """What the header calls whoever asks; empty for nobody. Looks nothing up that this request has not looked up already."""
    if ASKING in request.scope:
        found = signed_in(request)
        return (found.name or say("Account")) if found else ""
    return say("Account") if _shows_cookie(request) else ""


def forget(request: Request) -> None:
    """This request has signed them out."""
    request.scope[ASKING] = None


def _shows_cookie(request: Request) -> bool:
    chosen = service_of(request).settings
    names = (key_cookie(chosen), sign_in_cookie(chosen))
    return not is_address(request.headers.get("host", "")) and any(name in request.cookies for name in names)


def _looked_up(request: Request) -> people.Person | None:
    door, service = door_of(request), service_of(request)
    if token := bearer(request):
        return people.LOCAL if _same(token, door.bearer) else api_tokens.person_of(service, token)
    if is_address(request.headers.get("host", "")):
        return None
    if secret := request.cookies.get(sign_in_cookie(service.settings), ""):
        found = signins.person_of(service, secret)
        if found is not None:
            return found
    return people.LOCAL if door.admits(request.cookies.get(key_cookie(service.settings), "")) else None


def person(request: Request) -> people.Person:
    """The person who asks. Raises NotSignedIn, and NotAllowed where their API token may not do this."""
    found = signed_in(request)
    if found is None and bearer(request):
        raise errors.NotSignedIn(
            say(
                "This token opens nothing here: it is wrong, has ended or was revoked. Make another on the page “Account”, "
                "or by `anybinder login`."
            )
        )
    if found is None:
        raise errors.NotSignedIn
    needed = "launch" if request.method in CHANGING else "read"
    if not found.may(needed):
        raise lacking(needed)
    return found


def lacking(scope: str) -> errors.NotAllowed:
    """What to raise where a token may do less than is asked of it."""
    return errors.NotAllowed(
        say("This token may not do that: it lacks the scope “%(scope)s”. Make one that has it.", scope=scope)
    )


def whoever(request: Request) -> people.Person:
    """The person who asks, or nobody we know. Raises NotSignedIn where a token is shown that opens nothing, and NotAllowed."""
    return person(request) if bearer(request) or signed_in(request) else people.ANONYMOUS


def chooser(request: Request) -> people.Person:
    """Who may choose a place to run: the person who asks, and visitors where this hub lets them launch. Raises as `person`."""
    chosen = service_of(request).settings
    if (chosen.binder_backend or chosen.binder_peers) and not bearer(request) and signed_in(request) is None:
        return people.ANONYMOUS
    return person(request)


def in_person(request: Request) -> people.Person:
    """The person who asks, themselves: no API token changes what opens accounts. Raises NotSignedIn, NotAllowed."""
    found = person(request)
    if found.scopes is not None:
        raise errors.NotAllowed(say("An API token may not do that. Open the page in a browser that is signed in."))
    return found


def at_home(request: Request) -> people.Person:
    """The one local person, who runs this broker, themselves. Raises NotSignedIn, NotAllowed."""
    found = in_person(request)
    if not found.local:
        raise errors.NotAllowed(say("Only whoever runs this broker may do that, at its own computer."))
    return found


def visitor(request: Request, launch_id: str) -> people.Person:
    """The person who asks, or whoever shows the token of the launch in the path. Raises NotSignedIn."""
    if _same(bearer(request), sessions.launch_token(service_of(request), launch_id)):
        return people.bearer(launch_id)
    return person(request)


def _same(shown: str, secret: str) -> bool:
    """In constant time, whatever characters are shown."""
    return hmac.compare_digest(shown.encode(errors="replace"), secret.encode())


def is_address(host: str) -> bool:
    """Whether this Host is the loopback address, where sessions have paths and so no cookie may live."""
    return host.startswith(("127.", "[::1]"))


async def _at(request: Request) -> Service:
    """`service_of`; not awaited for in a thread, as what may block is."""
    return service_of(request)


Asking = Annotated[people.Person, Depends(person)]
Whoever = Annotated[people.Person, Depends(whoever)]
Choosing = Annotated[people.Person, Depends(chooser)]
InPerson = Annotated[people.Person, Depends(in_person)]
AtHome = Annotated[people.Person, Depends(at_home)]
Visiting = Annotated[people.Person, Depends(visitor)]
At = Annotated[Service, Depends(_at)]


class Guard:
    """Around every route: known hosts only, no banned networks, own origin for whatever changes something, one set of
    headers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], chosen: settings.Settings) -> None:
        self._app = app
        self._hosts = hosts
        self._public = chosen.public_url.removeprefix("https://").rstrip("/").lower()
        self._banned = callers.Banned(chosen.ban_networks)
        self._trusted = chosen.trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        answer = refusal or self._elsewhere(scope, headers) or self._app
        await answer(scope, receive, _with_headers(send, close=refusal is not None))

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "").lower()
        if host not in self._hosts and not is_link(scope):
            return _refuse(421, "This broker does not answer to that host name. Use the address it printed.", "host")
        if not scope["path"].startswith(UNBANNED):
            sentence = self._banned.sentence(callers.address(scope, self._trusted))
            if sentence:
                return _refuse(403, sentence, "banned_network")
        if BACKCHANNEL.fullmatch(scope["path"]):
            return None  # its token is signed by the provider, and no cookie is looked at
        if scope["path"].startswith("/agent/") or shown(headers):
            return None  # bearers carry their own proof; a browser adds passwords by itself, and never one of these
        if is_program(scope, headers):
            return None
        if scope["method"] in CHANGING and not same_origin(host, headers, https=host == self._public):
            return _refuse(403, "Another page tried to do this. Open Anybinder itself and do it there.", "origin")
        return None

    def _elsewhere(self, scope: Scope, headers: Headers) -> RedirectResponse | None:
        """People belong on `localhost`: on 127.0.0.1 their cookie would lie beside the paths of sessions."""
        host = headers.get("host", "")
        wants_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if not (is_address(host) and wants_page and not headers.get("authorization")):
            return None
        if scope["path"].startswith(UNBANNED):
            return None  # no pages
        port = host.rpartition(":")[2]
        query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        path = "/" + callers.path(scope).lstrip("/\\")
        return RedirectResponse(f"http://localhost:{port}{path}{query}", status_code=307)


def is_link(scope: Scope) -> bool:
    """A launch link is shown under any name, as BinderHub does: it shows nothing of anybody's, and no cookie of ours comes
    with another name. What it starts asks for a known host again."""
    return scope["method"] in ("GET", "HEAD") and scope["path"].startswith("/v2/")


def is_program(scope: Scope, headers: Headers) -> bool:
    """Whether no browser asks, for what no cookie counts for: browsers say where a form comes from."""
    return bool(COOKIELESS.fullmatch(scope["path"])) and not {"origin", "sec-fetch-site"}.intersection(headers)


def same_origin(host: str, headers: Headers, *, https: bool = False) -> bool:
    """Whether a browser says that the page of this very host asks. A browser that says nothing at all is refused.

    `https`: the host has no other pages; what comes in clear text somebody else on the way has made.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and https and urlsplit(origin).scheme != "https":
        return False
    if origin is not None and urlsplit(origin).netloc.lower() != host:
        return False
    if site is not None and site != "same-origin":
        return False
    return origin is not None or site is not None


def _refuse(status: int, sentence: str, reason: str) -> JSONResponse:
    return JSONResponse({"detail": sentence, "reason": reason}, status_code=status)


def _with_headers(send: Send, *, close: bool) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if close:
                headers["connection"] = "close"
        await send(message)

    return sending
