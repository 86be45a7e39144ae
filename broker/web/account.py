"""My account: how I sign in, where I am signed in, my API tokens; and letting a command line in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from broker import api_tokens, devices, errors, logins, people, settings, signins
from broker.models import ApiToken, DeviceLogin, Login, SignIn
from broker.service import Service
from broker.web import deps, limits, me, pages
from providers.sentences import listed, say

router = APIRouter(include_in_schema=False)
GUESSES, GUESS_SECONDS = 20, 600  # of a command line's code, by one person
BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrome", "Chrome"), ("Safari", "Safari"))
SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


class TooManyGuesses(errors.NotAllowed):
    """Too many codes were typed. Wait ten minutes, then begin again on the command line."""

    status_code, reason = 429, "guessing"


# --- the page ---------------------------------------------------------------------------------------------------------


@router.get("/account")
def show(request: Request, at: deps.At, asking: deps.InPerson) -> Response:
    """Everything of mine that is not a launch, and not somebody else's cloud."""
    return _page(request, at, asking)


def _page(
    request: Request,
    at: Service,
    asking: people.Person,
    *,
    problem: str = "",
    typed: Mapping[str, Any] | None = None,
    status: int = 200,
) -> HTMLResponse:
    titles = {identity.issuer: identity.called for identity in at.settings.identities}
    mine = [] if asking.local else logins.of(at, asking)
    context = {
        "person": asking,
        "logins": [_login_shown(one, titles) for one in mine],
        "identities": [] if asking.local else at.settings.identities,
        "sign_ins": [] if asking.local else [_sign_in_shown(one, asking, titles) for one in signins.of(at, asking)],
        "tokens": [_token_shown(token) for token in api_tokens.of(at, asking)],
        "scopes": api_tokens.SCOPES,
        "longest": at.settings.token_days,
        "typed": typed or {"name": "", "scopes": list(api_tokens.SCOPES), "days": f"{at.settings.token_days:g}"},
        "problem": problem,
    }
    return pages.page(request, "account.html", context, status=status)


def _login_shown(login: Login, titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": titles.get(login.issuer, login.issuer),
        "known": login.issuer in titles,
        "name": login.name,
        "issuer": login.issuer,
        "subject": login.subject,
        "since": login.created_at.isoformat(),
        "used": login.signed_in_at.isoformat(),
    }


def _token_shown(token: ApiToken) -> dict[str, Any]:
    return {**me.token_json(token), "rights": _rights(token.scopes.split())}


def _rights(scopes: Sequence[str]) -> str:
    """What they let somebody do, as a sentence goes on with it."""
    return listed((api_tokens.SCOPES[scope] for scope in scopes), "; ")


def _sign_in_shown(sign_in: SignIn, asking: people.Person, titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": sign_in.id,
        "browser": browser_name(sign_in.browser),
        "title": titles.get(sign_in.issuer, sign_in.issuer),
        "here": sign_in.id == asking.sign_in,
        "since": sign_in.created_at.isoformat(),
        "seen": sign_in.seen_at.isoformat(),
        "ends": sign_in.ends_at.isoformat(),
    }


def browser_name(agent: str) -> str:
    """`Firefox on Linux`, as far as what a browser says of itself tells that."""
    browser = next((title for word, title in BROWSERS if re.search(rf"\b{word}\w*/", agent)), "")
    system = next((title for word, title in SYSTEMS if word in agent), "")
    if browser and system:
        return say("%(browser)s on %(system)s", browser=browser, system=system)
    return browser or system or say("A browser")


# --- API tokens -------------------------------------------------------------------------------------------------------


@router.post("/account/tokens")
def make_token(
    request: Request,
    at: deps.At,
    asking: deps.InPerson,
    name: Annotated[str, Form()] = "",
    scope: Annotated[Sequence[str], Form()] = (),
    days: Annotated[str, Form()] = "",
) -> Response:
    """A new token, whose text this answer alone shows."""
    try:
        token, text = api_tokens.create(at, asking, name=name, scopes=scope, days=_days(days))
    except errors.BadRequest as refusal:
        typed = {"name": name[:64], "scopes": list(scope), "days": days[:20]}
        return _page(request, at, asking, problem=str(refusal), typed=typed, status=refusal.status_code)
    context = {"token": me.token_json(token), "text": text, "rights": _rights(token.scopes.split())}
    return pages.page(request, "account_token.html", context)


def _days(typed: str) -> float | None:
    """Raises BadRequest. Left empty: as long as may be."""
    try:
        return float(typed.replace(",", ".")) if typed.strip() else None
    except ValueError:
        raise errors.BadRequest(say("Days are a number, like 30.")) from None


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(at: deps.At, asking: deps.InPerson, token_id: str) -> Response:
    """It opens nothing from now on."""
    api_tokens.revoke(at, asking, token_id)
    return _back("tokens")


# --- signing in -------------------------------------------------------------------------------------------------------


@router.post("/account/sign-ins/{sign_in_id}/end")
def end(request: Request, at: deps.At, asking: deps.InPerson, sign_in_id: str) -> Response:
    """Sign one browser out."""
    signins.end(at, asking, sign_in_id)
    return _out(request) if sign_in_id == asking.sign_in else _back("where")


@router.post("/account/sign-ins/end-elsewhere")
def end_elsewhere(at: deps.At, asking: deps.InPerson) -> Response:
    """Sign every browser out but this one."""
    signins.end_elsewhere(at, asking)
    return _back("where")


@router.post("/account/sign-ins/end-all")
def end_all(request: Request, at: deps.At, asking: deps.InPerson) -> Response:
    """Sign out everywhere, here too."""
    signins.end_all(at, asking)
    return _out(request)


@router.post("/account/logins/unlink")
def unlink(
    at: deps.At, asking: deps.InPerson, issuer: Annotated[str, Form()], subject: Annotated[str, Form()]
) -> Response:
    """Sign in with this account no more."""
    logins.unlink(at, asking, issuer, subject)
    return _back("logins")


def _back(part: str) -> Response:
    return RedirectResponse(f"/account#{part}", status_code=pages.SEE_OTHER)


def _out(request: Request) -> Response:
    chosen = deps.service_of(request).settings
    answer = RedirectResponse("/", status_code=pages.SEE_OTHER)
    deps.drop_cookie(chosen, answer, deps.sign_in_cookie(chosen))
    return answer


# --- letting a command line in ----------------------------------------------------------------------------------------


@router.get("/device")
def ask_code(request: Request, asking: deps.InPerson) -> Response:
    """Where the code that a command line shows is typed. It stands in no address: a link could bring one along."""
    return pages.page(request, "device.html", {"person": asking, "problem": "", "typed": ""})


@router.post("/device")
def look(request: Request, at: deps.At, asking: deps.InPerson, code: Annotated[str, Form()] = "") -> Response:
    """What asks, before it is let in."""
    try:
        found = _found(request, at, asking, code)
    except devices.NoSuchCode as refusal:
        context = {"person": asking, "problem": str(refusal), "typed": code[:20]}
        return pages.page(request, "device.html", context, status=refusal.status_code)
    context = {
        "person": asking,
        "code": code,
        "device": found,
        "since": found.created_at.isoformat(),
        "rights": _rights(found.scopes.split()),
        "days": at.settings.token_days,
    }
    return pages.page(request, "device_confirm.html", context)


@router.post("/device/decide")
def decide(
    request: Request,
    at: deps.At,
    asking: deps.InPerson,
    code: Annotated[str, Form()] = "",
    let_in: Annotated[str, Form()] = "",
) -> Response:
    """Let it in, or refuse it."""
    found = _found(request, at, asking, code)
    devices.decide(at, asking, code, let_in=let_in == "yes")
    return pages.page(request, "device_done.html", {"device": found, "let_in": let_in == "yes"})


def guesses(chosen: settings.Settings) -> limits.Allowance:
    """How many codes one person may type; processes that share Redis share the count."""
    return limits.Allowance(chosen, "device", GUESSES, GUESS_SECONDS)


def _found(request: Request, at: Service, asking: people.Person, code: str) -> DeviceLogin:
    """Raises NoSuchCode, TooManyGuesses."""
    allowance: limits.Allowance = request.app.state.guesses
    if not allowance.spend(asking.id):
        raise TooManyGuesses
    return devices.find(at, code)
