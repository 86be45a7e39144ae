"""The pages. They parse a form, call the spine, and render; without JavaScript they do the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import pydantic
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from broker import errors, launches, placement, repos, sessions
from broker.models import State
from broker.people import Person
from broker.web import assets, deps, views, wording
from providers import errors as clouds

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(directory=Path(__file__).parent / "templates")
templates.env.globals["asset"] = assets.address
for word in (
    wording.breakable,
    wording.code,
    wording.price,
    wording.relative,
    wording.since,
    wording.span,
    wording.stopwatch,
):
    templates.env.filters[word.__name__] = word

SEE_OTHER = 303
ENDED_MOST = 20  # sessions that are over, on the page of sessions


@router.get("/")
def home(
    request: Request,
    at: deps.At,
    key: Annotated[str, Query()] = "",
    repo: str = "",
    ref: str = "",
    path: str = "",
    backend: str = "",
    name: str = "",
) -> Response:
    """The launch form, filled in by its link; a one-time key in the address signs the browser in first."""
    if key:
        return _sign_in(request, key)
    person = deps.person(request)
    return _form(request, at, person, views.Filled(repo=repo, ref=ref, path=path, backend=backend, name=name))


def _sign_in(request: Request, key: str) -> Response:
    """Turn the key into a cookie and a clean address."""
    door = deps.door_of(request)
    if not door.spend(key) and deps.signed_in(request) is None:
        raise errors.NotSignedIn("That link was used before, or is too old. `anybinder up` prints a fresh one.")
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != "key"]
    clean = request.url.path + (f"?{urlencode(rest)}" if rest else "")
    answer = RedirectResponse("/" + clean.lstrip("/"), status_code=SEE_OTHER)
    answer.set_cookie(
        deps.COOKIE,
        door.cookie(),
        max_age=deps.COOKIE_SECONDS,
        httponly=True,
        samesite="lax",
        secure=bool(deps.service_of(request).settings.public_url),
    )
    answer.headers["cache-control"] = "no-store"
    return answer


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """What is said beside which field."""

    sentence: str
    field: str
    status: int


def _form(
    request: Request, at: deps.At, person: Person, filled: views.Filled, wrong: Wrong | None = None
) -> HTMLResponse:
    places = placement.places(at, person)
    context = {
        "typed": filled.typed,
        "places": places,
        "chosen": _chosen(places, filled.typed["backend"]),
        "running": launches.listed(at, person, running=True),
        "error": wrong.sentence if wrong else "",
        "field": wrong.field if wrong else "",
    }
    return _page(request, "home.html", context, status=wrong.status if wrong else 200)


def _chosen(places: list[placement.Place], asked: str) -> str:
    """The place that is marked: the one asked for where it can be had, else the first that can."""
    opened = [place.name for place in places if place.closed is None]
    return asked if asked in opened else next(iter(opened), "")


@router.post("/launch")
def launch(
    request: Request,
    at: deps.At,
    asking: deps.Asking,
    repo: Annotated[str, Form()] = "",
    ref: Annotated[str, Form()] = "",
    path: Annotated[str, Form()] = "",
    backend: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    consent: Annotated[str, Form()] = "",
) -> Response:
    """Launch it, after asking once per commit where it runs as the person. What was typed survives every refusal."""
    filled = views.Filled(repo=repo, ref=ref, path=path, backend=backend, name=name)
    try:
        found, _new = launches.request(at, asking, filled.wish(consent))
    except errors.ConsentNeeded:
        return _ask_consent(request, at, filled)
    except pydantic.ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        return _form(
            request, at, asking, filled, Wrong(sentence=views.unusable(filled, field), field=field, status=422)
        )
    except (errors.BrokerError, clouds.ProviderError) as error:
        status = getattr(error, "status_code", 502)
        return _form(request, at, asking, filled, Wrong(sentence=str(error), field=_field(error), status=status))
    return RedirectResponse(f"/launches/{found.id}", status_code=SEE_OTHER)


def _field(error: Exception) -> str:
    """The field that this is about."""
    if isinstance(error, errors.NameTaken):
        return "name"
    if isinstance(error, errors.NoBackend | clouds.ProviderError):
        return "backend"
    return "ref" if getattr(error, "reason", "") == "ref_not_found" else "repo"


def _ask_consent(request: Request, at: deps.At, filled: views.Filled) -> HTMLResponse:
    found = at.repos.resolve(repos.RepoSpec.parse(filled.typed["repo"], ref=filled.typed["ref"] or None))
    context = {"typed": filled.typed, "found": found, "edit": filled.link(), **views.described(found)}
    return _page(request, "consent.html", context)


@router.get("/launches/{launch_id}")
def progress(request: Request, at: deps.At, launch_id: str, key: str = "") -> Response:
    """A launch: its steps, its log, and the way in once it is ready."""
    if key:
        return _sign_in(request, key)
    found = launches.get(at, deps.person(request), launch_id)
    lines = views.newest_lines(at, found)
    context = {"launch": views.launch(at, found, lines), "lines": lines, "again": views.again(found)}
    return _page(request, "progress.html", context)


@router.get("/launches/{launch_id}/open")
def enter(request: Request, at: deps.At, launch_id: str, key: str = "") -> Response:
    """Into the session, with its token; back to its progress while it is not ready."""
    if key:
        return _sign_in(request, key)
    found = launches.get(at, deps.person(request), launch_id)
    if found.state is not State.READY or found.stop_wanted:
        return RedirectResponse(f"/launches/{found.id}", status_code=SEE_OTHER)
    # Before the fragment, which browsers keep to themselves.
    url, mark, fragment = sessions.url(at, found).partition("#")
    token = sessions.launch_token(at, found.id)
    answer = RedirectResponse(f"{url}{'&' if '?' in url else '?'}token={token}{mark}{fragment}", status_code=SEE_OTHER)
    answer.headers.update({"cache-control": "no-store", "referrer-policy": "no-referrer"})
    return answer


@router.post("/launches/{launch_id}/stop")
def stop(at: deps.At, asking: deps.Asking, launch_id: str, back: Annotated[str, Form()] = "") -> Response:
    """Want it stopped, and see it end: on its own page, or on that of all sessions where it was asked for there."""
    launches.stop(at, launches.get(at, asking, launch_id).id)
    return RedirectResponse("/sessions" if back == "sessions" else f"/launches/{launch_id}", status_code=SEE_OTHER)


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
    return _page(request, "sessions.html", context)


TITLES = {
    400: "That cannot be used",
    401: "Please sign in first",
    403: "Not from here",
    404: "Nothing here",
    405: "Not like this",
    421: "Not at this address",
    503: "Not available right now",
}


def error_page(request: Request, status: int, sentence: str, reason: str) -> HTMLResponse:
    """The page for anything that went wrong."""
    title = TITLES.get(status, "Something went wrong")
    context = {"status": status, "title": title, "sentence": sentence, "reason": reason}
    return _page(request, "error.html", context, status=status)


def _page(request: Request, name: str, context: dict[str, Any], *, status: int = 200) -> HTMLResponse:
    """Pages say what is the case now: a browser that goes back asks again."""
    return templates.TemplateResponse(request, name, context, status_code=status, headers={"cache-control": "no-store"})
