"""The pages. They parse a form, call the spine, and render; without JavaScript they do the same."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.templating import Jinja2Templates

from broker import errors, events, launches, placement, repos, sessions, wishes
from broker.models import State
from broker.people import Person
from broker.web import deps, schemas
from providers import errors as clouds

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(directory=Path(__file__).parent / "templates")
SEE_OTHER = 303


class Filled:
    """What somebody typed, kept whatever happens."""

    FIELDS = ("repo", "ref", "path", "backend", "name")

    def __init__(self, **typed: str) -> None:
        self.typed = {name: typed.get(name, "").strip() for name in self.FIELDS}

    def wish(self, consent: str | bool = False) -> wishes.Wish:
        """The same as a wish; what was left empty is not asked for."""
        given = {name: value or None for name, value in self.typed.items()}
        return wishes.Wish(**{**given, "repo": self.typed["repo"]}, consent=consent)

    def link(self) -> str:
        """The form, filled in like this."""
        return "/?" + urlencode({name: value for name, value in self.typed.items() if value})


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
    return _form(request, at, person, Filled(repo=repo, ref=ref, path=path, backend=backend, name=name))


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


def _form(
    request: Request, at: deps.At, person: Person, filled: Filled, error: str = "", field: str = "", status: int = 200
) -> Response:
    context = {
        "typed": filled.typed,
        "places": placement.places(at, person),
        "running": launches.listed(at, person, running=True),
        "error": error,
        "field": field,
    }
    return templates.TemplateResponse(request, "home.html", context, status_code=status)


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
    filled = Filled(repo=repo, ref=ref, path=path, backend=backend, name=name)
    try:
        wish = schemas.LaunchRequest(
            **{name: value or None for name, value in filled.typed.items()} | {"repo": filled.typed["repo"]}
        )  # noqa: E501
    except ValueError:
        return _form(request, at, asking, filled, _why(filled), _field_of(filled), 422)
    del wish
    try:
        found, _new = launches.request(at, asking, filled.wish(consent))
    except errors.ConsentNeeded:
        return _ask_consent(request, at, filled)
    except (errors.BrokerError, clouds.ProviderError) as error:
        field = "name" if isinstance(error, errors.NameTaken) else "repo"
        return _form(request, at, asking, filled, str(error), field, getattr(error, "status_code", 502))
    return RedirectResponse(f"/launches/{found.id}", status_code=SEE_OTHER)


def _why(filled: Filled) -> str:
    if not filled.typed["repo"]:
        return "Give a repository: its address as you would paste it, or owner/name for GitHub."
    return "A name has letters, digits, dots and hyphens, at most 63, and begins with a letter or digit."


def _field_of(filled: Filled) -> str:
    return "name" if filled.typed["repo"] else "repo"


def _ask_consent(request: Request, at: deps.At, filled: Filled) -> Response:
    found = at.repos.resolve(repos.RepoSpec.parse(filled.typed["repo"], ref=filled.typed["ref"] or None))
    context = {"typed": filled.typed, "found": found, "edit": filled.link()}
    return templates.TemplateResponse(request, "consent.html", context)


@router.get("/launches/{launch_id}")
def progress(request: Request, at: deps.At, launch_id: str, key: str = "") -> Response:
    """A launch: its steps, its log, and the way in once it is ready."""
    if key:
        return _sign_in(request, key)
    found = launches.get(at, deps.person(request), launch_id)
    context = {"launch": schemas.launch_json(at, found), "lines": events.read(at, found.id), "again": _again(found)}
    answer = templates.TemplateResponse(request, "progress.html", context)
    answer.headers["cache-control"] = "no-store"
    return answer


def _again(found: launches.Launch) -> str:
    name = "" if found.name.startswith(found.spec[:1]) else found.name
    return Filled(repo=found.repo_url, ref=found.ref, path=found.path, backend=found.backend, name=name).link()


@router.get("/launches/{launch_id}/open")
def enter(request: Request, at: deps.At, launch_id: str, key: str = "") -> Response:
    """Into the session, with its token; back to its progress while it is not ready."""
    if key:
        return _sign_in(request, key)
    found = launches.get(at, deps.person(request), launch_id)
    if found.state is not State.READY or found.stop_wanted:
        return RedirectResponse(f"/launches/{found.id}", status_code=SEE_OTHER)
    url = sessions.url(at, found)
    answer = RedirectResponse(
        f"{url}{'&' if '?' in url else '?'}token={sessions.launch_token(at, found.id)}", status_code=SEE_OTHER
    )
    answer.headers.update({"cache-control": "no-store", "referrer-policy": "no-referrer"})
    return answer


@router.post("/launches/{launch_id}/stop")
def stop(at: deps.At, asking: deps.Asking, launch_id: str) -> Response:
    """Want it stopped, and see it end."""
    launches.stop(at, launches.get(at, asking, launch_id).id)
    return RedirectResponse(f"/launches/{launch_id}", status_code=SEE_OTHER)


@router.get("/sessions")
def mine(request: Request, at: deps.At, asking: deps.Asking) -> Response:
    """My sessions: what runs, and what ran lately."""
    found = [schemas.launch_json(at, one) for one in launches.listed(at, asking)]
    context = {
        "running": [one for one in found if one["state"] != "stopped"],
        "ended": [one for one in found if one["state"] == "stopped"][:20],
        "now": dt.datetime.now(dt.UTC),
    }
    return templates.TemplateResponse(request, "sessions.html", context)


def error_page(request: Request, status: int, sentence: str, reason: str) -> HTMLResponse:
    """The page for anything that went wrong."""
    context: dict[str, Any] = {"status": status, "sentence": sentence, "reason": reason}
    return templates.TemplateResponse(request, "error.html", context, status_code=status)
