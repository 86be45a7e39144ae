"""Signing in and out: to the identity provider and back, once each time.

What an attempt needs travels in the browser that began it, in a sealed cookie of ten minutes, and opens only with the
`state` that comes back: neither a stolen link nor somebody else's answer signs anybody in.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote, urlencode, urlsplit

import structlog
from fastapi import APIRouter, Form, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response

from broker import crypto, errors, logins, openid, sealing, settings, signins
from broker.models import SignIn
from broker.service import Service
from broker.web import deps, pages, views
from providers.sentences import say

router = APIRouter(include_in_schema=False)
log = structlog.get_logger(__name__)
ATTEMPT_SECONDS = 600
ATTEMPTS_MOST = 4
"""Under way in one browser: each is a cookie of up to 3.5 kB, and 32 kB is the most that a request's head may have."""
NEXT_MOST = 2048
LEVEL_MOST = 200
AGE_MOST = 30 * 24 * 3600
PRIVATE = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
"""On every page here: no address with a code in it is kept, or told to another page."""


# --- where to go afterwards -----------------------------------------------------------------------------------------


def safe_next(asked: str) -> str:
    """This path, if it is one of this very site that can be opened; else `/`."""
    if not asked.startswith("/") or asked.startswith("//") or len(asked.encode(errors="replace")) > NEXT_MOST:
        return "/"
    if "\\" in asked or not asked.isprintable() or " " in asked:
        return "/"
    try:
        parts = urlsplit(asked)
    except ValueError:
        return "/"
    if parts.scheme or parts.netloc:
        return "/"
    names = unquote(parts.path).lower().split("/")[1:]
    round_about = names[0] in ("login", "logout") or "." in names or ".." in names
    return "/" if round_about else asked


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a link here asks for."""

    next: str = "/"
    link: bool = False
    max_age: int | None = None
    level: str = ""

    def query(self, **more: str) -> str:
        """The same, for another link."""
        told = {"next": self.next if self.next != "/" else "", "acr_values": self.level, **more}
        told |= {"max_age": "" if self.max_age is None else str(self.max_age), "link": "1" if self.link else ""}
        kept = {name: value for name, value in told.items() if value}
        return f"?{urlencode(kept)}" if kept else ""


def _wanted(request: Request) -> Wanted:
    asked = request.query_params
    age, level = asked.get("max_age", ""), asked.get("acr_values", "")
    return Wanted(
        next=safe_next(asked.get("next", "/")),
        link=asked.get("link") == "1",
        max_age=min(int(age), AGE_MOST) if age.isascii() and age.isdigit() and len(age) < 10 else None,
        level=level if len(level) <= LEVEL_MOST and level.isprintable() else "",
    )


# --- signing in -----------------------------------------------------------------------------------------------------


@router.get("/login")
def choose(request: Request, at: deps.At, again: Annotated[str, Query()] = "") -> Response:
    """Whom to sign in with. Where there is one only, that is where it leads, unless `again` is asked for."""
    wanted, known = _wanted(request), at.settings.identities
    if not known:
        raise errors.NotSignedIn
    person = deps.signed_in(request)
    stepping = wanted.max_age is not None or bool(wanted.level)
    if len(known) == 1 and not again and (person is None or stepping):
        return _away(f"/login/{known[0].name}{wanted.query()}")
    context = {"providers": _links(at, wanted), "person": person, "wanted": wanted}
    return pages.page(request, "login.html", context, headers=PRIVATE)


@router.get("/login/{provider}")
def begin(request: Request, at: deps.At, provider: str) -> Response:
    """Off to this identity provider. With `link=1`, to add a login to those of the person who is signed in."""
    identity, wanted = _identity(at, provider), _wanted(request)
    here = urlsplit(at.settings.own_address).netloc
    if not wanted.link and request.headers.get("host", "").lower() != here.lower():
        # The cookie must lie where the provider will send the browser.
        return _away(f"{at.settings.own_address}/login/{provider}{wanted.query()}")
    try:
        attempt = openid.attempt(
            identity.name,
            at.now(),
            next=wanted.next,
            link=_linking(request) if wanted.link else "",
            max_age=wanted.max_age,
            level=wanted.level,
        )
        answer = _away(openid.Client(at, identity).address(attempt))
    except errors.BrokerError as error:
        return _problem(request, at, error, provider, wanted)
    cookie = attempt_cookie(at.settings, attempt.state)
    deps.give_cookie(at.settings, answer, cookie, _sealed(at, attempt), ATTEMPT_SECONDS)
    _forget_oldest(request, at, answer)
    return answer


def _linking(request: Request) -> str:
    """The sign-in that a login is to be added to. Raises NotAllowed where another page asks: it could bring a login of its
    own."""
    person = deps.in_person(request)
    if not person.sign_in:
        raise errors.NotAllowed(say("Sign in with one of your accounts first, then add another one."))
    if not deps.same_origin(request.headers.get("host", "").lower(), request.headers):
        raise errors.NotAllowed(
            say("Another page tried to add a login to your account. Do it on the page of your account.")
        )
    return person.sign_in


@router.get("/login/{provider}/callback")
def callback(request: Request, at: deps.At, provider: str) -> Response:
    """Back from the identity provider."""
    answer = dict(request.query_params)
    cookie = attempt_cookie(at.settings, answer.get("state", ""))
    wanted = Wanted()
    try:
        identity = _identity(at, provider)
        attempt = _opened(at, request.cookies.get(cookie, ""), answer.get("state", ""), identity.name)
        wanted = Wanted(next=attempt.next, link=bool(attempt.link), max_age=attempt.max_age, level=attempt.level)
        vouched = openid.Client(at, identity).finish(attempt, answer)
        led = _linked(request, at, attempt, vouched) if attempt.link else _signed_in(request, at, attempt, vouched)
    except errors.BrokerError as error:
        led = _problem(request, at, error, provider, wanted)
    deps.drop_cookie(at.settings, led, cookie)
    return led


def _signed_in(request: Request, at: Service, attempt: openid.Attempt, vouched: openid.Vouched) -> Response:
    """A new secret each time: one that somebody planted here before is worth nothing."""
    person_id = logins.signed_in(at, vouched)
    fresh, secret = signins.begin(at, person_id, vouched, request.headers.get("user-agent", ""))
    signins.over(at, request.cookies.get(deps.sign_in_cookie(at.settings), ""))
    log.info("signed_in", person=person_id, provider=attempt.provider, sign_in=fresh.id)
    led = _away(attempt.next)
    deps.give_cookie(at.settings, led, deps.sign_in_cookie(at.settings), secret, int(at.settings.sign_in_hours * 3600))
    return led


def _linked(request: Request, at: Service, attempt: openid.Attempt, vouched: openid.Vouched) -> Response:
    person = deps.signed_in(request)
    if person is None or person.sign_in != attempt.link:
        raise openid.StartAgain(
            say("You were signed out or changed who you are meanwhile, so nothing was added. Begin again.")
        )
    logins.link(at, person, vouched)
    return _away("/account" if attempt.next == "/" else attempt.next)


# --- signing out ----------------------------------------------------------------------------------------------------


@router.post("/logout")
def sign_out(request: Request, at: deps.At) -> Response:
    """Sign this browser out here, then at its identity provider where that has a page for it."""
    cookie = deps.sign_in_cookie(at.settings)
    secret = request.cookies.get(cookie, "")
    found = signins.find(at, secret)
    context = {"away": None, "provider": "", "trouble": "", **(_ending(at, found) if found else {})}
    signins.over(at, secret)
    deps.forget(request)
    # A page, and not a redirect: browsers let no form of ours lead elsewhere (form-action).
    answer = pages.page(request, "login_out.html", context, headers=PRIVATE)
    deps.drop_cookie(at.settings, answer, cookie)
    return answer


def _ending(at: Service, found: SignIn) -> dict[str, str | None]:
    """Where its provider signs people out; what to say where it does not answer."""
    identity = openid.identity_of(at, found.issuer)
    if identity is None:
        return {}
    title = identity.called
    back = f"{at.settings.own_address}/login/{identity.name}/loggedout"
    try:
        return {"provider": title, "away": openid.Client(at, identity).end_address(signins.grant_of(at, found), back)}
    except errors.BrokerError as error:
        log.warning("not_signed_out_at_provider", provider=identity.name, error=str(error))
        return {
            "provider": title,
            "trouble": say("%(provider)s does not answer right now: you may still be signed in there.", provider=title),
        }


@router.get("/login/{provider}/loggedout")
def signed_out(request: Request, at: deps.At, provider: str) -> Response:
    """Back from the provider's own sign-out."""
    context = {"away": None, "provider": _identity(at, provider).called, "trouble": "", "both": True}
    return pages.page(request, "login_out.html", context, headers=PRIVATE)


@router.post("/login/{provider}/backchannel")
def logged_out(at: deps.At, provider: str, logout_token: Annotated[str, Form()] = "") -> Response:
    """An identity provider tells us that it has signed somebody out (OpenID Connect Back-Channel Logout 1.0)."""
    try:
        told = openid.Client(at, _identity(at, provider)).logged_out(logout_token)
    except errors.BrokerError as error:
        said = {"error": "invalid_request", "error_description": str(error)}
        return JSONResponse(said, status_code=400, headers=PRIVATE)
    log.info("signed_out_by_provider", provider=provider, browsers=signins.end_by_provider(at, told))
    return Response(status_code=200, headers=PRIVATE)


# --- who must sign in first -----------------------------------------------------------------------------------------


async def led(request: Request, error: errors.BrokerError) -> Response | None:
    """The way to sign in, for a browser that wants a page and met NotSignedIn or SignInAgain; None for everybody else.

    Nothing typed is lost: what was sent comes back filled in.
    """
    at = deps.service_of(request)
    if not at.settings.identities or at.settings.api_only or "text/html" not in request.headers.get("accept", ""):
        return None
    if request.url.path.startswith(("/api/", "/agent/")):
        return None
    wanted = Wanted(next=await _after(request), **_stepping(at, error))
    if request.method == "GET" and isinstance(error, errors.NotSignedIn):
        return _away(f"/login{wanted.query()}")
    provider = await run_in_threadpool(_provider_of, request, at)
    sentence = str(error) if isinstance(error, errors.SignInAgain) else say("Sign in first. What you typed is kept.")
    again = isinstance(error, errors.SignInAgain)
    context = {
        "title": say("Sign in again") if again else say("Sign in first"),
        "status": error.status_code,
        "sentence": sentence,
        "again": f"/login/{provider}{wanted.query()}"
        if provider
        else f"/login{wanted.query(again='1' if again else '')}",
        "word": say("Sign in again") if again else say("Sign in"),
        "others": "",
    }
    return pages.page(request, "login_problem.html", context, status=error.status_code, headers=PRIVATE)


def _stepping(at: Service, error: errors.BrokerError) -> dict[str, Any]:
    """What to ask of the identity provider so that this error does not come again."""
    if not isinstance(error, errors.SignInAgain):
        return {}
    age, level = error.max_age, error.level
    # Without an age the provider would say again that they signed in there yesterday.
    return {"max_age": int(at.settings.sign_in_hours * 3600) if age is None and not level else age, "level": level}


def sentence(request: Request, error: Exception) -> str:
    """What a script is told, which has no page to be led to."""
    at = deps.service_of(request)
    if type(error) is errors.NotSignedIn and at.settings.identities and str(error) == str(errors.NotSignedIn()):
        address = f"{at.settings.own_address}/login"
        return say("Sign in at %(address)s, or send an API token that you made there.", address=address)
    return str(error)


async def _after(request: Request) -> str:
    """Where somebody goes on once they are signed in: to what they asked for, or to the form with what they had typed."""
    if request.method == "GET":
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return safe_next(asked)
    if request.url.path == "/launch":
        sent = await request.form()
        return safe_next(views.Filled.of(sent).link())
    came = urlsplit(request.headers.get("referer", ""))
    if came.netloc.lower() != request.headers.get("host", "").lower():
        return "/"
    return safe_next(came.path + (f"?{came.query}" if came.query else ""))


def _provider_of(request: Request, at: Service) -> str:
    """The provider that this browser is signed in with, or the only one there is; empty where that is to be chosen."""
    person = deps.signed_in(request)
    found = signins.get(at, person.sign_in) if person and person.sign_in else None
    identity = openid.identity_of(at, found.issuer) if found else None
    if identity is None and len(at.settings.identities) == 1:
        identity = at.settings.identities[0]
    return identity.name if identity else ""


# --- within ---------------------------------------------------------------------------------------------------------


def attempt_cookie(chosen: settings.Settings, state: str) -> str:
    """The name of the cookie of one attempt, told by its `state`: several tabs have one each."""
    return f"{_attempts(chosen)}{crypto.short(state, 8)}"


def _attempts(chosen: settings.Settings) -> str:
    return "__Host-anybinder-login-" if chosen.public_url else "anybinder-login-"


def _sealed(at: Service, attempt: openid.Attempt) -> str:
    sealed = at.sealer.seal(attempt.text(), f"login/{attempt.provider}/{attempt.state}")
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _opened(at: Service, cookie: str, state: str, provider: str) -> openid.Attempt:
    """The attempt that this browser began with this `state`. Raises StartAgain."""
    try:
        sealed = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        attempt = openid.Attempt(**json.loads(at.sealer.open(sealed, f"login/{provider}/{state}")))
    except (binascii.Error, ValueError, sealing.Unsealable):
        raise openid.StartAgain from None
    if at.now().timestamp() - attempt.issued > ATTEMPT_SECONDS:
        raise openid.StartAgain(say("That took longer than ten minutes, so nobody was signed in. Begin again here."))
    return attempt


def _forget_oldest(request: Request, at: Service, answer: Response) -> None:
    """Browsers name the oldest cookie first."""
    under_way = [name for name in request.cookies if name.startswith(_attempts(at.settings))]
    for name in under_way[: max(0, len(under_way) - ATTEMPTS_MOST + 1)]:
        deps.drop_cookie(at.settings, answer, name)


def _identity(at: Service, name: str) -> settings.IdentitySetting:
    for identity in at.settings.identities:
        if identity.name == name:
            return identity
    raise errors.NotFound(say("There is no such way to sign in here. Choose one of those on the page of signing in."))


def _links(at: Service, wanted: Wanted) -> list[Mapping[str, str]]:
    return [
        {"title": each.called, "address": f"/login/{each.name}{wanted.query()}", "name": each.name}
        for each in at.settings.identities
    ]


def _away(address: str) -> Response:
    return RedirectResponse(address, status_code=pages.SEE_OTHER, headers=PRIVATE)


def _problem(request: Request, at: Service, error: errors.BrokerError, provider: str, wanted: Wanted) -> Response:
    """What went wrong, what to do, and a way to try again. Whoever is signed in stays so."""
    log.warning("not_signed_in", provider=provider, reason=error.reason, error=str(error))
    known = [each.name for each in at.settings.identities]
    again = f"/login/{provider}{wanted.query()}" if provider in known else f"/login{wanted.query(again='1')}"
    if wanted.link:
        again = "/account"  # a login is added from there only
    context = {
        "title": say("You were not signed in") if not wanted.link else say("Nothing was added"),
        "status": error.status_code,
        "sentence": str(error),
        "again": again,
        "word": say("Try again") if not wanted.link else say("Back to my account"),
        "others": f"/login{wanted.query(again='1')}" if len(known) > 1 and not wanted.link else "",
    }
    return pages.page(request, "login_problem.html", context, status=error.status_code, headers=PRIVATE)
