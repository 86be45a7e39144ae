"""`/v2/<prefix>/<spec>`: where ten years of Binder links lead.

Who is signed in finds the launch form, filled in as the link says. Everybody else, and whoever has no choice to make,
is led to a session on `binder_backend`: by static/binder.js over `/build`, or without JavaScript by a button and a page
that looks again every other second (`/visits`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Annotated, Any
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

from fastapi import APIRouter, Form, Request
from markupsafe import Markup
from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response

from broker import backends, errors, launches, people, placement, repos, seats, sessions
from broker.forwarding import choosing, entering, entrance
from broker.models import Launch, State
from broker.service import Service
from broker.web import binder, building, callers, deps, instead, language, pages, tokens, views
from providers import errors as clouds
from providers.sentences import say

router = APIRouter(include_in_schema=False)

OPENERS = ("labpath", "filepath", "urlpath")
"""What a link opens, the strongest first; BinderHub's own order."""
LOGO_WIDTH = "320px"
SCRIPT_SAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


# --- the link -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Link:
    """A launch link, read. Nothing was looked up for it."""

    prefix: str
    spec: str
    """As it was sent, still quoted, without the slash at its end."""
    query: str
    opens: str
    """A path of the session, without its first slash; never another host's."""
    filled: views.Filled
    repo: str
    """The repository as a person knows it, without the scheme of its address."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with it, by the field of the form."""

    @property
    def provider(self) -> repos.RepoProvider:
        return repos.providers[self.prefix]

    @property
    def title(self) -> str:
        return f"{self.provider.title}: {unquote(self.spec)}"


def read(request: Request) -> Link:
    """The link that was followed. Raises NotFound where no kind of host is called so."""
    return understood(callers.path(request.scope), request.url.query)


def understood(path: str, query: str) -> Link:
    """The same of a path that begins with `/v2/`, still quoted, and of what stands behind its question mark."""
    prefix, _, spec = path.removeprefix("/v2/").partition("/")
    spec = spec.rstrip("/")
    if prefix not in repos.providers or not spec:
        known = ", ".join(f"{name} ({provider.title})" for name, provider in repos.providers.items())
        raise errors.NotFound(
            say(
                "No kind of repository host is called “%(name)s” here. Known are: %(known)s.",
                name=prefix[:40],
                known=known,
            )
        )
    wanted = QueryParams(query)
    opened = _openers(wanted)
    typed = {name: wanted.get(name, "") for name in views.Filled.FIELDS}
    typed |= {"repo": f"{prefix}/{spec}", "ref": "", "path": next(iter(opened.values()), ""), "linked": "1"}
    problems: dict[str, str] = {}
    try:
        asked = repos.providers[prefix].parse(spec)
    except repos.RepoError as error:
        problems["repo"] = str(error)
        repo = unquote(spec)
    else:
        repo = asked.called
        if asked.located:  # else the host decides where the repository's address ends: it is left as it came
            typed |= {"repo": pasteable(asked), "ref": "" if asked.ref == "HEAD" else asked.ref}
    if opened and not problems:
        try:
            typed["path"] = _typed_path(path, opened)
        except repos.RepoError as error:
            problems["path"] = str(error)
        else:
            if not typed["path"].strip("/"):
                problems["path"] = say("The link wants to open what is no page of the session. That was left out.")
    return Link(
        prefix=prefix,
        spec=spec,
        query=query,
        opens=opens(wanted),
        filled=views.Filled(**typed),
        repo=repo,
        problems=problems,
    )


def _typed_path(path: str, opened: Mapping[str, str]) -> str:
    """What the link opens, as a person would type it into the form; as the whole link is read where one is pasted."""
    spec = repos.RepoSpec.parse(f"https://localhost{path}?{urlencode(opened)}")
    return spec.path or (f"/{spec.urlpath.lstrip('/')}" if spec.urlpath else "")


def _openers(wanted: QueryParams) -> dict[str, str]:
    """What it says to open, the strongest word first."""
    return {name: wanted[name] for name in OPENERS if wanted.get(name)}


def opens(wanted: QueryParams) -> str:
    """What a link opens, as a path of the session: `doc/tree/…`, `tree/…` or the urlpath, whatever was in them."""
    name, text = next(iter(_openers(wanted).items()), ("", ""))
    if name in ("labpath", "filepath"):
        view = "doc/tree" if name == "labpath" else "tree"
        text = f"{view}/{quote(text.removesuffix('/').lstrip('/'))}"
    return sessions.inside("/" + text.lstrip("/") if not _names_a_host(text) else "").lstrip("/")


def _names_a_host(text: str) -> bool:
    """`https://evil`, `//evil`, `\\\\evil` and their like: a browser would go there."""
    plain = "".join(char for char in text if char.isprintable()).replace("\\", "/").lstrip()
    try:
        parts = urlsplit(plain)
    except ValueError:
        return True
    return bool(parts.scheme or parts.netloc) or plain.startswith("//")


def pasteable(spec: repos.RepoSpec) -> str:
    """The repository alone, as shortly as a person could type it: what `RepoSpec.parse` reads as the same."""
    for text in (spec.repo, f"{spec.provider}/{spec.repo}"):
        try:
            read_again = repos.RepoSpec.parse(text)
        except repos.RepoError:
            continue
        if (read_again.provider, read_again.repo) == (spec.provider, spec.repo):
            return text
    return str(spec.at("HEAD")) if spec.provider != "git" else spec.repo


# --- what BinderHub's clients read --------------------------------------------------------------------------------------


def shared(request: Request, at: Service, link: Link, token: str) -> dict[str, Any]:
    """What every page of a link holds: `window.pageConfig` in its first script, which our policy allows by its digest."""
    chosen = at.settings
    base = callers.hub_url(request, chosen)
    config = {
        "aboutMessage": chosen.about_message,
        "badgeBaseUrl": base,
        "bannerHtml": chosen.banner_html,
        "baseUrl": "/",
        "binderVersion": str(chosen.versions.get("binderhub", "")) or _version(),
        "buildToken": token,
        "logoUrl": "/static/logo.svg",
        "logoWidth": LOGO_WIDTH,
        "repoProviders": repos.display(),
    }
    script = f"window.pageConfig = {json.dumps(config).translate(SCRIPT_SAFE)};"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = deps.SECURITY_HEADERS["content-security-policy"]
    return {
        "script": Markup(script),  # noqa: S704  JSON without a character that HTML minds
        "title": link.title,
        "description": f"Open {unquote(link.spec)} as a running session: nothing to install.",
        "image": urljoin(base, "/badge_logo.svg"),
        "oembed": f"{base}oembed?{urlencode({'url': _address(request, base), 'format': 'json'})}",
        "banner": Markup(chosen.banner_html),  # noqa: S704  the operator's own
        "headers": {
            "content-security-policy": policy.replace("script-src 'self'", f"script-src 'self' 'sha256-{digest}'")
        },
    }


def _address(request: Request, base: str) -> str:
    """The link as others know it."""
    return urljoin(base, callers.path(request.scope)) + (f"?{request.url.query}" if request.url.query else "")


@functools.cache
def _version() -> str:
    return metadata.version("anybinder")


def _token(request: Request, at: Service, link: Link, person: people.Person | None) -> str:
    """Good for this link on this very page. A person's is theirs, on the one place that costs them nothing; a visitor's may be
    for the peer that they chose."""
    bound = {"person": person.id, "backend": at.settings.binder_backend} if person else {}
    if person is None and (peer := _chosen_peer(at, link)):
        bound = {"backend": peer}
    return tokens.issue(at, spec=f"{link.prefix}/{link.spec}", origin=callers.origin(request), **bound)


def _chosen_peer(at: Service, link: Link) -> str:
    """The peer that the link names, where visitors may run there; empty for none."""
    name = link.filled.typed["backend"]
    return name if name and at.settings.binder_peers and choosing.is_peer(at, name) else ""


# --- pages --------------------------------------------------------------------------------------------------------------


@router.api_route("/v2/{prefix}", methods=["GET", "HEAD"])
@router.api_route("/v2/{prefix}/{spec:path}", methods=["GET", "HEAD"])
def follow(request: Request, at: deps.At, choose: str = "") -> Response:
    """What a launch link shows: the form for who may choose, a session on its way for who may not, or why neither."""
    link, person = read(request), deps.signed_in(request)
    if person is not None and (choose or not _straight(at, person, link)):
        told = shared(request, at, link, _token(request, at, link, None))
        wrong = pages.Wrong(sentences=link.problems, status=400 if "repo" in link.problems else 200)
        return pages.form(request, at, person, link.filled, wrong, told)
    return _page(request, at, link, person, choosing=bool(choose))


@router.post("/v2/{prefix}/{spec:path}")
async def start(request: Request, at: deps.At, build_token: Annotated[str, Form()] = "") -> Response:
    """The same without JavaScript: launch it, and go to a page that says how far it is."""
    builds: binder.Builds = request.app.state.builds
    return await builds.in_turn(functools.partial(_start, request, at, build_token))


def _start(request: Request, at: Service, build_token: str) -> Response:
    link, person = read(request), deps.signed_in(request)
    try:
        found = _launched(request, at, link, build_token)
    except tokens.BadToken:
        return _page(request, at, link, person, say("This page was open for too long. Start it again."), 403)
    except building.Failed as failure:
        return _page(request, at, link, person, failure.event["message"], failure.event.get("status_code", 400))
    except (errors.BrokerError, clouds.ProviderError) as error:
        return _page(request, at, link, person, str(error), getattr(error, "status_code", 502))
    there = f"{visit(at, found.id)}?{link.query}" if link.query else visit(at, found.id)
    return RedirectResponse(there, status_code=pages.SEE_OTHER)


def _launched(request: Request, at: Service, link: Link, build_token: str) -> Launch:
    """The launch of this token: one, however often the button is pressed. Raises BadToken, Failed, BrokerError."""
    token = tokens.read(at, build_token, spec=f"{link.prefix}/{link.spec}", origin=callers.origin(request))
    client = callers.address(request.scope, at.settings.trusted_proxies)
    if token.launch_id is None:
        raise tokens.BadToken
    asked = building.Asked(
        prefix=link.prefix,
        spec=link.spec,
        person=people.of(token.person) if token.person else people.ANONYMOUS,
        backend=token.backend or at.settings.binder_backend,
        client=client,
        launch_host=callers.hub_url(request, at.settings),
        browser=True,
    )
    return building.requested(at, asked, token.launch_id)


def _straight(at: Service, person: people.Person, link: Link) -> bool:
    """Whether the link leaves this person nothing to choose: one place, which is the operator's, and nothing to say."""
    if (
        not at.settings.binder_backend
        or link.problems
        or any(link.filled.typed[name] for name in ("name", *link.filled.SIZES))
    ):
        return False
    opened = [place.name for place in placement.places(at, person) if place.closed is None]
    return [name for name in opened if name in (link.filled.backends or opened)] == [at.settings.binder_backend]


def _page(
    request: Request,
    at: Service,
    link: Link,
    person: people.Person | None,
    error: str = "",
    status: int = 200,
    *,
    choosing: bool = False,
) -> Response:
    """The page that starts it, or says why it cannot be. `choosing`: somebody wants another place than visitors get."""
    token = _token(request, at, link, person)
    told = shared(request, at, link, token)
    context: dict[str, Any] = {
        "link": told,
        "repo": link.repo,
        "ref": link.filled.typed["ref"],
        "host": link.provider.title,
        "choose": f"{callers.path(request.scope)}?{urlencode([*request.query_params.multi_items(), ('choose', '1')])}",
        "person": person,
        "choosing": choosing,
        "error": error or link.problems.get("repo", ""),
        "left_out": _left_out(link, person),
        "peers": entrance.behind(at, _chosen_peer(at, link)),
        "instead": instead.look(request, at, person or people.ANONYMOUS, link.filled) if error else None,
        "instead_at": instead.address(link.filled),
    }
    if "repo" in link.problems:
        return pages.page(request, "v2_wrong.html", context, status=400, headers=told["headers"])
    shut = _closed(at, person)
    closed = say("That place is for people who are signed in. Sign in first, then choose it.") if choosing else shut
    if closed:
        context |= {"closed": closed, "visitors": "" if shut else _for_visitors(request)}
        return pages.page(request, "v2_closed.html", context, status=401, headers=told["headers"])
    launch_id = tokens.read(at, token, spec=f"{link.prefix}/{link.spec}", origin=callers.origin(request)).launch_id
    context |= {
        "build": f"/build/{link.prefix}/{link.spec}?{urlencode({'build_token': token})}",
        "token": token,
        "opens": link.opens,
        "steps": views.STEPS,
        "doing": language.spoken(views.DOING),
        "stop": f"{visit(at, launch_id or '')}/stop",
    }
    return pages.page(request, "v2.html", context, status=status, headers=told["headers"])


def _for_visitors(request: Request) -> str:
    """The same link for somebody who does not choose."""
    asked = urlencode([each for each in request.query_params.multi_items() if each[0] != "choose"])
    return callers.path(request.scope) + (f"?{asked}" if asked else "")


def _left_out(link: Link, person: people.Person | None) -> list[str]:
    """What the link asks for and a visitor does not get, in sentences."""
    sized = [name for name in ("name", *link.filled.SIZES) if link.filled.typed[name]]
    told = [link.problems["path"]] if "path" in link.problems else []
    if sized and person is None:
        told.append(
            say(
                "The link also says %(fields)s. For visitors, whoever runs this hub decides that; sign in to choose.",
                fields=", ".join(sized),
            )
        )
    return told


def _closed(at: Service, person: people.Person | None) -> str:
    """Why visitors can start nothing here; empty where they can."""
    name = at.settings.binder_backend
    if not name and at.settings.binder_peers:
        return ""
    if not name:
        return say("Whoever runs this hub lets only people who are signed in start something.")
    return backends.named(at, name).closed_to(at, person or people.ANONYMOUS) or ""


# --- without JavaScript -------------------------------------------------------------------------------------------------


def visit(service: Service, launch_id: str) -> str:
    """The page of a launch for whoever started it without being known. Its address is what shows that."""
    return f"/visits/{launch_id}/{service.keys.token('visit', launch_id)}"


def _visited(service: Service, launch_id: str, mark: str) -> Launch:
    if not hmac.compare_digest(mark.encode(), service.keys.token("visit", launch_id).encode()):
        raise errors.NotFound(say("There is no such launch. Follow the link that brought you here again."))
    return launches.get(service, people.bearer(launch_id), launch_id)


@router.get("/visits/{launch_id}/{mark}")
def progress(request: Request, at: deps.At, launch_id: str, mark: str) -> Response:
    """How far a launch is, for who has no JavaScript; into the session once it is ready."""
    found = _visited(at, launch_id, mark)
    if peer := entering.entry(at, found):
        return pages.into(peer.opening(opens(request.query_params)))
    if found.state is State.READY and not found.stop_wanted:
        root = urljoin(sessions.url(at, found), "/")
        there = entered(root, opens(request.query_params), sessions.launch_token(at, found.id))
        return pages.into(there)
    if found.state is State.WAITING:
        seats.follow(at, found.id)
    lines = views.newest_lines(at, found)
    asked = found.request.get("binder_request", "")
    again = f"/{asked}" + (f"?{request.url.query}" if request.url.query else "") if asked else "/"
    context = {
        "launch": views.launch(at, found, lines),
        "lines": lines,
        "again": again,
        "stop": f"{visit(at, found.id)}/stop",
    }
    return pages.page(request, "v2_progress.html", context)


@router.post("/visits/{launch_id}/{mark}/stop")
def stop(at: deps.At, launch_id: str, mark: str) -> Response:
    """Want it stopped, and see it end."""
    launches.stop(at, _visited(at, launch_id, mark).id)
    return RedirectResponse(visit(at, launch_id), status_code=pages.SEE_OTHER)


def entered(root: str, path: str, token: str) -> str:
    """This path of the session with its token, which goes nowhere else: what leads out of the session opens its root."""
    return sessions.tokened(sessions.below(root, sessions.inside(f"/{path}")), token)
