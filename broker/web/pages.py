"""The pages. They parse a form, call the spine, and render; without JavaScript they do the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import pydantic
from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from broker import errors, lapsed, launches, placement, repo_access, sessions, subjects
from broker.forwarding import entering
from broker.models import State
from broker.people import Person
from broker.service import Service
from broker.web import assets, deps, elsewhere, instead, language, places, schemas, trust, views, wording
from providers import errors as clouds
from providers.sentences import say

router = APIRouter(include_in_schema=False)


def _nav(request: Request) -> dict[str, Any]:
    """Who the header greets. A page that has not asked who comes does not ask for this alone."""
    return {
        "nav": {
            "name": deps.greeted(request),
            "sign_in": bool(deps.service_of(request).settings.identities),
        }
    }


def _language(request: Request) -> dict[str, Any]:
    """What every page says of its language. The messages of scripts are English already."""
    spoken = language.current()
    return {"lang": spoken.code, "languages": language.switch(request.scope), "script_words": dict(spoken.script)}


templates = Jinja2Templates(directory=Path(__file__).parent / "templates", context_processors=[_nav, _language])
templates.env.add_extension("jinja2.ext.i18n")
templates.env.policies["ext.i18n.trimmed"] = True
templates.env.newstyle_gettext = True  # type: ignore[attr-defined]
templates.env.finalize = language.shown
templates.env.globals |= {"asset": assets.address, "gettext": language.gettext, "ngettext": language.ngettext}
for word in (
    language.known,
    wording.abroad,
    wording.ago,
    wording.breakable,
    wording.code,
    wording.day,
    wording.exactly,
    wording.hourly,
    wording.lasting,
    wording.opening,
    wording.price,
    wording.relative,
    wording.since,
    wording.span,
    wording.spent,
    wording.stopwatch,
):
    templates.env.filters[word.__name__] = word

SEE_OTHER = 303
BACK = ("sessions", "running")
"""Pages that a session may be stopped from, besides its own."""
ENDED_MOST = 20  # sessions that are over, on the page of sessions


def _typed_in_link(request: Request) -> views.Filled:
    """The fields of a form as the query of its link has them."""
    return views.Filled.of(request.query_params)


@router.get("/")
def home(
    request: Request,
    at: deps.At,
    typed: Annotated[views.Filled, Depends(_typed_in_link)],
    key: Annotated[str, Query()] = "",
    look: str = "",
) -> Response:
    """The launch form, filled in by its link; a one-time key in the address signs the browser in first.

    `look`: without JavaScript, what the repository asks for is looked up before the page is shown.
    """
    if key:
        return _sign_in(request, key)
    person, repo = deps.chooser(request), typed.typed["repo"]
    if look and repo and not person.anonymous:
        subjects.look(at, person, repo, typed.typed["ref"])
    if repo and request.headers.get("sec-fetch-site") != "same-origin":
        typed = views.Filled(**{**typed.typed, "linked": "1"})  # no page of ours: somebody else may have filled it in
    return form(request, at, person, typed)


def _sign_in(request: Request, key: str) -> Response:
    """Turn the key into a cookie and a clean address."""
    door = deps.door_of(request)
    if not door.spend(key) and deps.signed_in(request) is None:
        raise errors.NotSignedIn(say("That link was used before, or is too old. `anybinder up` prints a fresh one."))
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
    clean = request.url.path + (f"?{urlencode(rest)}" if rest else "")
    answer = RedirectResponse("/" + clean.lstrip("/"), status_code=SEE_OTHER)
    chosen = deps.service_of(request).settings
    deps.give_cookie(chosen, answer, deps.key_cookie(chosen), door.cookie(), deps.COOKIE_SECONDS)
    answer.headers["cache-control"] = "no-store"
    return answer


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What is said beside which fields."""

    sentences: Mapping[str, str]
    status: int
    gone: bool = False
    """The repository, or what was asked for of it, is not there."""


def form(
    request: Request,
    at: deps.At,
    person: Person,
    filled: views.Filled,
    wrong: Wrong | None = None,
    link: Mapping[str, Any] | None = None,
) -> HTMLResponse:
    """The launch form, filled in. `link`: what a page that BinderHub's clients read has besides (`v2.shared`)."""
    known = placement.places(at, person, filled.question(at, person))
    offered = places.shown(known, filled)
    last = places.last_chosen(at, person)
    chosen = _chosen(offered, filled.typed["backend"], last)
    problems = {**filled.problems(), **_unknown_places(filled, known), **(wrong.sentences if wrong else {})}
    subject = subjects.known(at, person, filled.typed["repo"], filled.typed["ref"])
    context = {
        "typed": filled.typed,
        "again_at": {place.name: filled.link(backend=place.name) for place in offered},
        "places": [places.told(place, last) for place in offered],
        "chosen": chosen.name if chosen else "",
        "ends": views.ending(chosen) if chosen else "",
        "last": last,
        "limited": len(known) if len(offered) < len(known) else 0,
        "see_all": filled.link(backends="", backend=""),
        "sorts": {by: filled.link(sort=by) for by in placement.ORDERS} if len(offered) > 1 else {},
        "sort": filled.sort,
        "sizes": [(size, views.sized(size)) for size in at.settings.sizes],
        "asks": views.asking(subject.asked) if subject else "",
        "running": launches.listed(at, person, running=True),
        "problems": problems,
        "field": next(iter(problems), ""),
        "more": any(filled.typed[name] or name in problems for name in ("name", *filled.SIZES, *filled.MONEY)),
        "elsewhere": filled.elsewhere,
        "visiting": person.anonymous,
        "link": link,
        "instead": instead.look(request, at, person, filled) if wrong and wrong.gone else None,
    }
    headers = link["headers"] if link else None
    return page(request, "home.html", context, status=wrong.status if wrong else 200, headers=headers)


def _unknown_places(filled: views.Filled, found: list[placement.Place]) -> dict[str, str]:
    """A sentence where the link names places that there are not."""
    known = {place.name for place in found}
    unknown = [name for name in (filled.typed["backend"], *filled.backends) if name and name not in known]
    if not unknown:
        return {}
    if unknown[0].partition("/")[0] in known:
        return {
            "backend": say(
                "That server of yours is not known here yet, or does not run. Load this page again in a moment."
            )
        }
    named = ", ".join(f"“{name[:40]}”" for name in dict.fromkeys(unknown))
    return {
        "backend": say(
            "The link asks for %(places)s, which is no place to run here. Choose one of these.", places=named
        )
    }


def _chosen(offered: list[placement.Place], asked: str, last: str) -> placement.Place | None:
    """The place that is marked: the one asked for where it can be had, else the one of last time, else the best that can; never
    a server of their own for a place to buy, nor the other way round, without their word."""
    opened = {place.name: place for place in offered if place.closed is None and (not place.own or place.name == asked)}
    if asked in opened or "/" in asked:
        return opened.get(asked)
    return opened.get(last) or next(iter(placement.ordered([*opened.values()])), None)


async def _typed_in_form(request: Request) -> views.Filled:
    """The fields of a form that was sent."""
    sent = await request.form()
    return views.Filled.of(sent)


@router.post("/launch")
def launch(
    request: Request,
    at: deps.At,
    asking: deps.Choosing,
    filled: Annotated[views.Filled, Depends(_typed_in_form)],
    consent: Annotated[str, Form()] = "",
    lasting: Annotated[str, Form()] = "",
) -> Response:
    """Launch it, after asking where something is at stake. What was typed survives every refusal."""
    return _launched(request, at, asking, filled, consent, lasting=bool(lasting))


def _launched(
    request: Request, at: Service, asking: Person, filled: views.Filled, consent: str = "", *, lasting: bool = False
) -> Response:
    try:
        if asking.anonymous:
            return RedirectResponse(_for_visitors(at, filled), status_code=SEE_OTHER)
        found, _new = launches.request(at, asking, filled.wish(consent, at.settings.sizes, lasting=lasting))
    except errors.ConsentNeeded:
        return _ask_consent(request, at, asking, filled)
    except errors.SignInAgain:
        raise  # a page of its own, whose way back is this form
    except pydantic.ValidationError as error:
        fields = [str(one["loc"][0]) for one in error.errors()]
        sentences = {field: views.unusable(filled, field) for field in fields}
        return form(request, at, asking, filled, Wrong(sentences=sentences, status=422))
    except (errors.BrokerError, clouds.ProviderError) as error:
        status = getattr(error, "status_code", 502)
        gone = getattr(error, "reason", "") in lapsed.REASONS
        return form(request, at, asking, filled, Wrong(sentences={_field(error): str(error)}, status=status, gone=gone))
    return RedirectResponse(f"/launches/{found.id}", status_code=SEE_OTHER)


def _for_visitors(at: Service, filled: views.Filled) -> str:
    """The launch link that says the same. Looks nothing up. Raises RepoError, BadField."""
    if not filled.typed["repo"]:
        raise errors.BadField("repo", views.unusable(filled, "repo"))
    spec = at.repos.parse(filled.typed["repo"], filled.typed["ref"] or None)
    opens = filled.typed["path"] or spec.path or (f"/{spec.urlpath.lstrip('/')}" if spec.urlpath else "")
    query = {"urlpath" if opens.startswith("/") else "labpath": opens.lstrip("/")} if opens else {}
    if filled.typed["backend"] and filled.typed["backend"] != at.settings.binder_backend:
        query["backend"] = filled.typed["backend"]  # a peer: nothing else is open to visitors
    return f"/v2/{spec}" + (f"?{urlencode(query)}" if query else "")


def _field(error: Exception) -> str:
    """The field that this is about."""
    if isinstance(error, errors.BadField):
        return error.field
    if isinstance(error, errors.NameTaken):
        return "name"
    if isinstance(error, errors.NoBackend | clouds.ProviderError):
        return "backend"
    return "ref" if getattr(error, "reason", "") == "ref_not_found" else "repo"


def _ask_consent(request: Request, at: deps.At, asking: deps.Asking, filled: views.Filled) -> HTMLResponse:
    """What is at stake where it was chosen to run, and where it may go on to."""
    found = repo_access.resolve(at, asking, at.repos.parse(filled.typed["repo"], filled.typed["ref"] or None))
    stakes = trust.stakes(at, asking, filled, found)
    context = {
        "typed": filled.typed,
        "found": found,
        "edit": filled.link(),
        "stakes": stakes,
        "may_last": all(each.situation.confined for each in stakes),
        **views.described(found),
    }
    return page(request, "trust.html", context)


@router.get("/launches/{launch_id}")
def progress(request: Request, at: deps.At, launch_id: str, key: str = "") -> Response:
    """A launch: its steps, its log, and the way in once it is ready."""
    if key:
        return _sign_in(request, key)
    return _progress(request, at, deps.person(request), launch_id)


def _progress(
    request: Request, at: Service, asking: Person, launch_id: str, problem: str = "", status: int = 200
) -> Response:
    """`problem`: why something that was wished on this page cannot be."""
    found = launches.get(at, asking, launch_id)
    lines, failed = views.newest_lines(at, found), views.situation(found) == "failed"
    context = {
        "launch": views.launch(at, found, lines),
        "lines": lines,
        "again": views.again(found),
        "others": elsewhere.offered(at, asking, found) if failed else [],
        "places_at": elsewhere.stream(at, found) if failed else "",
        "extensions": views.extensions(at, found),
        "problem": problem,
    }
    return page(request, "progress.html", context, status=status)


@router.get("/launches/{launch_id}/open")
def enter(request: Request, at: deps.At, launch_id: str, key: str = "", seen: bool = False) -> Response:
    """Into the session, with its token; back to its progress while it is not ready.

    Where it went on to another hub on the way, whose terms apply is shown first, and then `seen`.
    """
    if key:
        return _sign_in(request, key)
    asking = deps.person(request)
    found = launches.get(at, asking, launch_id)
    if not schemas.may_enter(asking, found):
        raise deps.lacking("launch")
    if there := entering.entry(at, found):
        if there.moved and not seen:
            return page(request, "leaving.html", {"launch": views.launch(at, found)})
        return into(there.with_token)
    if found.state is not State.READY or found.stop_wanted:
        return RedirectResponse(f"/launches/{found.id}", status_code=SEE_OTHER)
    return into(sessions.tokened(sessions.url(at, found), sessions.launch_token(at, found.id)))


def into(there: str) -> RedirectResponse:
    """Into a session. Its token is in the address, which goes to nobody else and is kept nowhere."""
    answer = RedirectResponse(there, status_code=SEE_OTHER)
    answer.headers.update({"cache-control": "no-store", "referrer-policy": "no-referrer"})
    return answer


@router.post("/launches/{launch_id}/stop")
def stop(at: deps.At, asking: deps.Asking, launch_id: str, back: Annotated[str, Form()] = "") -> Response:
    """Want it stopped, and see it end: on its own page, or on the one of BACK where it was asked for."""
    launches.stop(at, launches.get(at, asking, launch_id).id)
    return RedirectResponse(f"/{back}" if back in BACK else f"/launches/{launch_id}", status_code=SEE_OTHER)


@router.post("/launches/{launch_id}/extend")
def extend(
    request: Request, at: deps.At, asking: deps.Asking, launch_id: str, hours: Annotated[float, Form(gt=0)]
) -> Response:
    """Let it last longer, and see until when; or why it cannot."""
    try:
        launches.extend(at, launches.get(at, asking, launch_id).id, hours)
    except errors.CannotExtend as refusal:
        return _progress(request, at, asking, launch_id, str(refusal), refusal.status_code)
    return RedirectResponse(f"/launches/{launch_id}", status_code=SEE_OTHER)


@router.get("/launches/{launch_id}/elsewhere")
def choose_elsewhere(at: deps.At, asking: deps.Asking, launch_id: str) -> Response:
    """The form as it was for this launch, with the best other place marked."""
    found = launches.get(at, asking, launch_id)
    best = next((place.name for place in elsewhere.others(at, asking, found)), "")
    return RedirectResponse(elsewhere.there(at, found, best).link(linked=""), status_code=SEE_OTHER)


@router.post("/launches/{launch_id}/elsewhere")
def run_elsewhere(
    request: Request, at: deps.At, asking: deps.Asking, launch_id: str, backend: Annotated[str, Form()]
) -> Response:
    """The same once more at this place: at once where nothing has to be asked first, else on to what is asked."""
    found = launches.get(at, asking, launch_id)
    return _launched(request, at, asking, elsewhere.there(at, found, backend))


@router.get("/sessions")
def mine(request: Request, at: deps.At, asking: deps.Asking) -> Response:
    """My sessions: what runs, and what ran lately."""
    found = launches.listed(at, asking)
    running = [views.launch(at, one) for one in found if one.state is not State.STOPPED]
    ended = [one for one in found if one.state is State.STOPPED][:ENDED_MOST]
    context = {
        "running": running,
        "ended": [{**views.launch(at, one), "again": views.again(one)} for one in ended],
    }
    return page(request, "sessions.html", context)


TITLES = {
    400: say("That cannot be used"),
    401: say("Please sign in first"),
    403: say("Not from here"),
    404: say("Nothing here"),
    405: say("Not like this"),
    421: say("Not at this address"),
    429: say("Too often"),
    503: say("Not available right now"),
}


def error_page(request: Request, status: int, sentence: str, reason: str) -> HTMLResponse:
    """The page for anything that went wrong."""
    title = TITLES.get(status, say("Something went wrong"))
    context = {"status": status, "title": title, "sentence": sentence, "reason": reason}
    return page(request, "error.html", context, status=status)


def page(
    request: Request,
    name: str,
    context: dict[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Pages say what is the case now: a browser that goes back asks again. What went wrong beyond every route has not met
    `language.Languages`: so the language is looked for here as well."""
    language.use(request.scope)
    sent = {"cache-control": "no-store", **(headers or {})}
    return templates.TemplateResponse(request, name, context, status_code=status, headers=sent)
