"""The pages on which people connect accounts of their own, see whether they work and what was done with them, and
disconnect them; and the same list as JSON. Without JavaScript they do the same."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from broker import connections, errors, people, probe, settings, targets
from broker import uses as trail
from broker.models import Connection, Launch
from broker.service import Service
from broker.web import deps, limits, login, pages
from providers import base
from providers import errors as clouds
from providers.sentences import say

router = APIRouter(include_in_schema=False)
api = APIRouter(tags=["connections"])
CHECKS, CHECK_SECONDS = 12, 300  # how often one person may have their accounts checked in this time
USES_PAGE = 50
DONE = {
    "launch": say("Signed in to start a session"),
    "reap": say("Signed in to end a session"),
    "check": say("Checked what it may do"),
    "look": say("Looked up what you are paying for"),
    "sweep": say("Looked for anything left over"),
    "prices": say("Looked what machines cost there"),
    "look up": say("Looked a private repository up"),
    "clone": say("Fetched a private repository"),
    "linked token": say("Used your token from the linked account"),
}
"""What a use is called on its page."""
WHILE = {
    base.Purpose.LAUNCH: say("While you are signed in here"),
    base.Purpose.REAP: say("While you are away, to end what you launched"),
}


def checks(chosen: settings.Settings) -> limits.Allowance:
    """How often one person may have their accounts checked. One a process."""
    return limits.Allowance(chosen, "check", CHECKS, CHECK_SECONDS)


# --- what others read -----------------------------------------------------------------------------------------------


@api.get("/api/connections")
def index(asking: deps.Asking, at: deps.At) -> list[dict[str, Any]]:
    """What I can connect an account with, and how my connections are. Asks no cloud; tells no secret."""
    used = trail.last_used(at, asking)
    return [_told(target, used.get(target.word)) for target in targets.listed(at, asking)]


@api.get(probe.PATH + "{nonce}", response_model=None, responses={200: {"content": {"text/plain": {}}}}, tags=["issuer"])
def prove(at: deps.At, nonce: str) -> PlainTextResponse:
    """The proof that it is this broker that answers at its public address."""
    found = probe.proof(at, nonce)
    if not found:
        raise errors.NotFound("That is nothing this broker asked itself.")
    return PlainTextResponse(found, headers={"cache-control": "no-store"})


def _told(target: targets.Target, used_at: dt.datetime | None) -> dict[str, Any]:
    found, way = target.connection, target.way()
    return {
        "target": target.word,
        "title": target.title,
        "page": f"/connect/{target.name}",
        "connected": found is not None,
        "kind": found.kind if found else None,
        "tier": way.kind.tier.value if found else None,
        "who": found.who if found else "",
        "works": found.works if found else None,
        "trouble": found.trouble if found else way.closed or "",
        "checked_at": _iso(found.checked_at if found else None),
        "ends_at": _iso(found.ends_at if found else None),
        "used_at": _iso(used_at),
    }


# --- the pages ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What is said after something went wrong, and what was typed; no secret is among it."""

    status: int = 200
    trouble: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    typed: Mapping[str, str] = field(default_factory=dict)


NOTHING_WRONG = Wrong()


@router.get("/connect")
def choose(request: Request, at: deps.At, asking: deps.InPerson, next: str = "") -> Response:
    """Everything that an account can be connected with, and how each is."""
    used = trail.last_used(at, asking)
    cards = [_card(at, target, used.get(target.word)) for target in targets.listed(at, asking)]
    return pages.page(request, "connect.html", {"cards": cards, "next": _back(next)})


@router.get("/account/uses")
def uses(
    request: Request,
    at: deps.At,
    asking: deps.InPerson,
    before: Annotated[int | None, Query(ge=0)] = None,
    sweeps: bool = False,
) -> Response:
    """What was done with what I have entrusted to this broker."""
    found = trail.of(at, asking, limit=USES_PAGE + 1, before=before, sweeps=sweeps)
    titles = targets.titles(at, asking)
    rows = [
        {
            "at": _iso(use.at),
            "what": DONE.get(use.what, use.what),
            "where": titles.get(use.connection_id or "", ""),
            "launch_id": use.launch_id,
            "outcome": use.outcome,
        }
        for use in found[:USES_PAGE]
    ]
    older = found[USES_PAGE - 1].id if len(found) > USES_PAGE else None
    return pages.page(
        request, "connect_uses.html", {"rows": rows, "older": older, "first": before is None, "sweeps": sweeps}
    )


def _named(request: Request, at: deps.At, asking: deps.InPerson) -> targets.Target:
    """The target in the path: a backend by its name, a repository host below `repo/`, a peer below `peer/`."""
    below = {"host": "repo/", "peer": "peer/", "backend": ""}
    name = next(f"{folder}{request.path_params[each]}" for each, folder in below.items() if each in request.path_params)
    return targets.named(at, asking, name)


Named = Annotated[targets.Target, Depends(_named)]
Page = TypeVar("Page", bound=Callable[..., object])


def _below(method: Callable[..., Callable[[Page], Page]], path: str) -> Callable[[Page], Page]:
    """A page of one target, below the address of each sort of target."""

    def declare(page: Page) -> Page:
        for address in ("repo/{host}", "peer/{peer}", "{backend}"):
            method(f"/connect/{address}{path}")(page)
        return page

    return declare


@_below(router.get, "/disconnect")
def leaving(request: Request, at: deps.At, asking: deps.InPerson, target: Named) -> Response:
    """What disconnecting means, before it is done."""
    if target.connection is None:
        return RedirectResponse(f"/connect/{target.name}", status_code=pages.SEE_OTHER)
    return pages.page(request, "connect_leave.html", _leaving(at, asking, target))


@_below(router.post, "/disconnect")
def disconnect(request: Request, at: deps.At, asking: deps.InPerson, target: Named) -> Response:
    """Disconnect it, and show what is left to be done on the other side. May be repeated."""
    if target.connection is None:
        return RedirectResponse("/connect", status_code=pages.SEE_OTHER)
    connections.disconnect(at, asking, target.connection.id)
    return pages.page(request, "connect_left.html", _leaving(at, asking, target))


@_below(router.post, "/check")
def check(
    request: Request, at: deps.At, asking: deps.InPerson, target: Named, next: Annotated[str, Form()] = ""
) -> Response:
    """Try it now, and show what was found."""
    return _checked(request, at, asking, target, next)


@_below(router.get, "")
def best(
    request: Request, at: deps.At, asking: deps.InPerson, target: Named, next: str = "", change: bool = False
) -> Response:
    """How an account is connected there: by the way in use, or the best one."""
    return _show(request, at, asking, target, target.way(), next, change=change)


@_below(router.get, "/{kind}/files/{name}")
def file(at: deps.At, asking: deps.InPerson, target: Named, kind: str, name: str) -> Response:
    """A file for those who would rather read it before they use it."""
    found = targets.guide(at, asking, target, target.way(kind)).download.get(name)
    if found is None:
        raise errors.NotFound(say("There is no such file."))
    sent = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}", "cache-control": "no-store"}
    return PlainTextResponse(found, headers=sent)


@_below(router.get, "/{kind}")
def other(
    request: Request, at: deps.At, asking: deps.InPerson, target: Named, kind: str, next: str = "", change: bool = False
) -> Response:
    """The same by a way of one's own choice."""
    return _show(request, at, asking, target, target.way(kind), next, change=change)


async def _sent(request: Request) -> dict[str, str]:
    """The fields of the form that was sent."""
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}


@_below(router.post, "/{kind}")
def tell(
    request: Request,
    at: deps.At,
    asking: deps.InPerson,
    target: Named,
    kind: str,
    sent: Annotated[dict[str, str], Depends(_sent)],
) -> Response:
    """Keep what was typed, then try it, and show what was found."""
    way = target.way(kind)
    back = sent.get("next", "")
    try:
        targets.connect(at, asking, target, kind, sent)
    except errors.BadField as wrong:
        told = Wrong(status=wrong.status_code, fields={wrong.field: str(wrong)}, typed=_unsecret(way.kind, sent))
        return _show(request, at, asking, target, way, back, told, change=True)
    except errors.BadRequest as wrong:
        told = Wrong(status=wrong.status_code, trouble=str(wrong), typed=_unsecret(way.kind, sent))
        return _show(request, at, asking, target, way, back, told, change=True)
    return _checked(request, at, asking, targets.named(at, asking, target.name), back)


# --- within ---------------------------------------------------------------------------------------------------------


def _checked(request: Request, at: Service, asking: people.Person, target: targets.Target, back: str) -> Response:
    """Check it and lead to what was found, which is kept; what keeps us from checking is said on the page."""
    allowance: limits.Allowance = request.app.state.checks
    try:
        if not allowance.spend(asking.id):
            raise errors.TooOften
        targets.check(at, asking, target)
    except errors.SignInAgain:
        if not at.settings.identities:
            raise
        again = {"again": "1", "next": _address(target, back)}
        return RedirectResponse(f"/login?{urlencode(again)}", status_code=pages.SEE_OTHER)
    except (errors.BrokerError, clouds.ProviderError) as error:
        told = Wrong(status=getattr(error, "status_code", 502), trouble=str(error))
        target = targets.named(at, asking, target.name)
        return _show(request, at, asking, target, target.way(), back, told)
    return RedirectResponse(_address(target, back) + "#outcome", status_code=pages.SEE_OTHER)


def _show(
    request: Request,
    at: Service,
    asking: people.Person,
    target: targets.Target,
    way: targets.Way,
    back: str,
    wrong: Wrong = NOTHING_WRONG,
    *,
    change: bool = False,
) -> Response:
    found = target.connection if target.connection and target.connection.kind == way.kind.name else None
    asks = bool(way.kind.fields) and (found is None or change)
    context = {
        "target": target,
        "way": way,
        "others": [each for each in target.ways if each.kind.name != way.kind.name],
        "connection": _shown(at, found),
        "instead": target.connection is not None and found is None,
        "guide": targets.guide(at, asking, target, way),
        "asks": asks,
        "typed": {**(found.settings if found else {}), **wrong.typed},
        "has_secret": found is not None and found.secret is not None,
        "problems": wrong.fields,
        "trouble": wrong.trouble,
        "next": _back(back),
    }
    return pages.page(request, "connect_one.html", context, status=wrong.status)


def _shown(at: Service, found: Connection | None) -> dict[str, Any] | None:
    """A connection in the words of its page."""
    if found is None:
        return None
    ended = found.ends_at is not None and found.ends_at <= at.now()
    return {
        "state": "ended" if ended else {True: "works", False: "trouble", None: "unchecked"}[found.works],
        "who": found.who,
        "trouble": found.trouble,
        "checked_at": _iso(found.checked_at),
        "ends_at": _iso(found.ends_at),
        "groups": _by_purpose(found.findings),
        "refused": any(each["name"] == connections.SIGNING_IN and not each["works"] for each in found.findings),
        "missing": sum(each["works"] is False for each in found.findings),
        "untried": sum(each["works"] is None for each in found.findings),
    }


def _by_purpose(findings: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Under a heading each, what is missing first. Nothing where both were refused alike: that is one sentence, said once."""
    refused = {each["fix"] for each in findings if each["name"] == connections.SIGNING_IN and not each["works"]}
    if len(refused) == 1 and len(findings) == len(WHILE):
        return []
    groups = []
    for purpose, title in WHILE.items():
        of_it = [each for each in findings if each["purpose"] == purpose.value]
        # Whatever else works has been tried with that sign-in: it need not be said.
        rows = [each for each in of_it if not (each["name"] == connections.SIGNING_IN and each["works"])] or of_it
        if rows:
            groups.append({"title": title, "rows": sorted(rows, key=lambda each: each["works"] is not False)})
    return sorted(groups, key=lambda group: group["rows"][0]["works"] is not False)


def _card(at: Service, target: targets.Target, used_at: dt.datetime | None) -> dict[str, Any]:
    way = target.way()
    return {
        "target": target,
        "way": way,
        "connection": _shown(at, target.connection),
        "closed": way.closed if target.connection is None else None,
        "used_at": _iso(used_at),
    }


def _leaving(at: Service, asking: people.Person, target: targets.Target) -> dict[str, Any]:
    assert target.connection is not None  # noqa: S101 -- for the type checker
    way = next((each for each in target.ways if each.kind.name == target.connection.kind), None)
    running: list[Launch] = trail.running_on(at, asking, target.word)
    return {
        "target": target,
        "revoke": targets.guide(at, asking, target, way).revoke if way else (),
        "has_secret": target.connection.secret is not None,
        "running": [{"id": each.id, "name": each.name} for each in running],
    }


def _unsecret(kind: base.Kind, sent: Mapping[str, str]) -> dict[str, str]:
    """What was typed into the fields of this kind, but for the secret one."""
    return {each.name: sent.get(each.name, "") for each in kind.fields if not each.secret}


def _address(target: targets.Target, back: str) -> str:
    query = f"?{urlencode({'next': kept})}" if (kept := _back(back)) else ""
    return f"/connect/{target.name}{query}"


def _back(asked: str) -> str:
    """Where to lead back to, where that is a page of ours; else empty."""
    found = login.safe_next(asked)
    return "" if found == "/" else found


def _iso(moment: dt.datetime | None) -> str | None:
    return moment.isoformat() if moment else None
