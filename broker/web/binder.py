"""`/build`: BinderHub's event stream, and past it.

    GET /build/<prefix>/<spec>      always 200: what goes wrong is an event, since an EventSource cannot read a status

The id of the launch is chosen first and sent with the first line, before anything is written. So a stream that was cut
resumes from the last line that arrived (`Last-Event-ID`), and asks for the launch only where there is none: never twice.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import json
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import APIRouter, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response, StreamingResponse

from broker import crypto, errors, events, people, seats
from broker.forwarding import entrance
from broker.models import Launch, Phase, State
from broker.service import Service
from broker.web import building, callers, deps, limits, tokens
from federation import binderhub

log = structlog.get_logger(__name__)
router = APIRouter(tags=["binder"])
Found = TypeVar("Found")
EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
KEEPALIVE = ":keepalive\n\n"
LOOKING = 16  # repositories that are looked up for streams at once; further ones wait their turn
FIRST, LAST = 0, "end"
_ID = re.compile(r"([a-z2-7]{12})\.([0-9]{1,9}|end)\.([0-9a-f]{64})")


class Refused(Exception):
    """This request gets one `failed` event. With a status where BinderHub gives one."""

    def __init__(self, message: str, status: int | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """What a stream is for, and who may have it."""

    asked: building.Asked
    launch_id: str
    after: int | None = None
    """The last line that arrived, of a stream that was cut; None for a new one."""
    headers: dict[str, str]
    there: str = ""
    """The address at a peer where it is answered instead."""


class Builds:
    """What all streams of a process share: the count of requests, and the threads that look repositories up."""

    def __init__(self, service: Service) -> None:
        self.limit = limits.RateLimit(service.settings)
        self.banned = callers.Banned(service.settings.ban_networks)
        self._threads = ThreadPoolExecutor(LOOKING, thread_name_prefix="build")

    async def in_turn(self, work: Callable[[], Found]) -> Found:
        """Do this in a thread of ours: what asks somebody else's host must not take the threads that everything else has."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def kept_alive(self, work: Callable[[], Any]) -> AsyncIterator[Any]:
        """Do this in a thread of ours: None now and then while it lasts, then what came of it. Whoever leaves ends nothing."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        while not (await asyncio.wait({future}, timeout=events.KEEPALIVE_SECONDS))[0]:
            yield None
        yield future.result()


@router.get(
    "/build/{prefix}/{spec:path}",
    response_class=StreamingResponse,
    responses={200: {"content": {EVENT_STREAM: {}}}, 204: {"description": "The stream has ended; do not come back."}},
)
async def build(
    request: Request,
    at: deps.At,
    prefix: str,  # noqa: ARG001  both are taken as they came, not unquoted
    spec: str,  # noqa: ARG001
    build_token: str | None = None,
    build_only: str = "",
    last_event_id: Annotated[str, Header()] = "",
    last_event: Annotated[str, Query(alias="last_event_id")] = "",
) -> Response:
    """Build this repository at this commit, launch it, and say how it goes: BinderHub's events, one JSON object each.

    Resumes by `Last-Event-ID` (or `last_event_id`, for a page whose browser has given up), ends after `ready` and `failed`,
    and says every 25 s that it is alive. Leaving ends nothing.
    """
    if not raw_spec(request.scope)[1]:
        raise HTTPException(404)
    builds: Builds = request.app.state.builds
    wanted = _Wanted(
        build_token=build_token, build_only=build_only.lower() == "true", last_event_id=last_event_id or last_event
    )
    try:
        admitted = await run_in_threadpool(_admit, request, at, builds, wanted)
    except (Refused, tokens.BadToken) as refusal:
        return _refused(at, request, refusal)
    if admitted is None:
        return Response(status_code=204)  # what tells an EventSource not to come back
    if admitted.there:
        return RedirectResponse(
            admitted.there, status_code=307, headers={"cache-control": "no-store", **admitted.headers}
        )
    return StreamingResponse(
        _stream(at, builds, admitted), media_type=EVENT_STREAM, headers={**STREAM_HEADERS, **admitted.headers}
    )


# --- who may ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    build_token: str | None
    build_only: bool
    last_event_id: str


def _admit(request: Request, at: Service, builds: Builds, wanted: _Wanted) -> Admitted | None:
    """What to stream; None where the client has seen it all. Raises Refused, BadToken. In BinderHub's own order."""
    prefix, spec = raw_spec(request.scope)
    resumed = _resumed(at, wanted.last_event_id, f"{prefix}/{spec}")
    if resumed and (resumed[1] == LAST or building.seen_all(at, resumed[0], int(resumed[1]))):
        return None
    client = callers.address(request.scope, at.settings.trusted_proxies)
    if sentence := builds.banned.sentence(client):
        raise Refused(sentence, 403)
    if binderhub.HOP in request.headers and entrance.is_one(at):
        raise Refused("This hub has no compute of its own, and what another hub sends on is not sent on again.")
    if not accepts_events(request.headers.get("accept", "")):
        raise Refused(f"Missing Accept header: {EVENT_STREAM}", 400)
    known = resumed is not None and building.exists(at, resumed[0])
    token = None if known else _token(request, at, wanted.build_token, f"{prefix}/{spec}")
    person = None if known else _person(request, token)
    headers = {} if resumed or token or person else _charge(builds, client)
    if wanted.build_only and not at.settings.build_only:
        raise Refused(
            "Building but not launching is not permitted when the operator of this hub has not set `build_only`.", 400
        )
    asked = building.Asked(
        prefix=prefix,
        spec=spec,
        person=person or people.ANONYMOUS,
        backend=(token.backend if token else None) or at.settings.binder_backend,
        client=client,
        launch_host=callers.hub_url(request, at.settings),
        browser=callers.is_browser(request),
        build_only=wanted.build_only,
    )
    if resumed:
        return Admitted(asked=asked, launch_id=resumed[0], after=int(resumed[1]), headers=headers)
    there = "" if token or person else _elsewhere(at, prefix, spec)
    return Admitted(
        there=there, asked=asked, launch_id=(token and token.launch_id) or crypto.new_id(12), headers=headers
    )


def accepts_events(accept: str) -> bool:
    """Whether an event stream is among what is accepted. BinderHub splits at the wrong sign; everything it takes is taken."""
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        refused = any(re.fullmatch(r"q\s*=\s*0(\.0*)?", word) for word in parameters)
        if EVENT_STREAM in (kind, *parameters) and not refused:
            return True
    return False


def raw_spec(scope: Any) -> tuple[str, str]:
    """Prefix and spec as they were sent, still quoted; without the slash at the end."""
    prefix, _, spec = callers.path(scope).removeprefix("/build/").partition("/")
    return prefix, spec.rstrip("/")


def _token(request: Request, at: Service, token: str | None, spec: str) -> tokens.BuildToken | None:
    return None if token is None else tokens.read(at, token, spec=spec, origin=callers.origin(request))


def _person(request: Request, token: tokens.BuildToken | None) -> people.Person | None:
    """Whose launch it is: the token's, or whoever shows a key. Never a cookie's: any page can have a browser ask."""
    if deps.bearer(request):
        found = deps.signed_in(request)
        if found is None:
            raise Refused("Forbidden", 403)
        if not found.may("launch"):
            raise Refused(str(deps.lacking("launch")), 403)
        return found
    if token is None or token.person is None:
        return None
    return people.of(token.person)


def _elsewhere(at: Service, prefix: str, spec: str) -> str:
    """Where clients are sent, if they are: not our own pages, which may read only from here. Raises Refused."""
    if at.settings.binder_peers != "redirect" or not entrance.is_one(at):
        return ""
    try:
        return entrance.towards(at, prefix, spec)
    except errors.NoBackend as refusal:
        raise Refused(str(refusal)) from None


def _charge(builds: Builds, client: str) -> dict[str, str]:
    charged = builds.limit.charge(client)
    if charged is None:
        return {}
    if charged.exceeded:
        sentence = f"Rate limit exceeded. Try again in {builds.limit.seconds} seconds."
        raise Refused(sentence, 429, charged.headers)
    return charged.headers


# --- ids of lines -------------------------------------------------------------------------------------------------------


def _signature(at: Service, launch_id: str, spec: str) -> str:
    """What keeps others from naming a line of a stream that is not theirs: its last one opens a session."""
    return at.keys.token("resume", f"{launch_id} {spec}")


def _resumed(at: Service, last_event_id: str, spec: str) -> tuple[str, str] | None:
    """Launch and line of an id that we gave out for this spec."""
    found = _ID.fullmatch(last_event_id)
    if found and hmac.compare_digest(_signature(at, found[1], spec), found[3]):
        return found[1], found[2]
    return None


# --- the stream ---------------------------------------------------------------------------------------------------------


async def _stream(at: Service, builds: Builds, admitted: Admitted) -> AsyncIterator[str]:
    asked, launch_id = admitted.asked, admitted.launch_id
    signature = _signature(at, launch_id, f"{asked.prefix}/{asked.spec}")

    def framed(number: int | str, event: dict[str, Any]) -> str:
        return f"id: {launch_id}.{number}.{signature}\ndata: {json.dumps(event)}\n\n"

    if admitted.after is None:
        yield framed(FIRST, building.FIRST_EVENT)
    outcome: Launch | dict[str, Any] | None = None
    async for outcome in builds.kept_alive(functools.partial(_requested, at, asked, launch_id)):
        if outcome is None:
            yield KEEPALIVE
    if not isinstance(outcome, Launch):
        yield framed(LAST, outcome or building.failed("The broker met an error of its own."))
        return
    async for line in events.follow(at, launch_id, admitted.after or FIRST):
        if line is None or (line["state"] == State.WAITING and line["id"] > 1):
            await run_in_threadpool(seats.follow, at, launch_id)
        if line is None:
            yield KEEPALIVE
            continue
        event, over = await _told(at, asked, launch_id, line)
        yield framed(LAST if over else line["id"], event)
        if over:
            return
    yield framed(LAST, building.failed(building.ENDED))


async def _told(
    at: Service, asked: building.Asked, launch_id: str, line: dict[str, Any]
) -> tuple[dict[str, Any], bool]:
    """Only the last line asks the table, so only that takes a thread."""
    if line["phase"] == Phase.READY:
        return await run_in_threadpool(building.told, at, asked, launch_id, line)
    return building.told(at, asked, launch_id, line)


def _requested(at: Service, asked: building.Asked, launch_id: str) -> Launch | dict[str, Any]:
    """The launch, asked for unless there is one; or the event that says why there is none."""
    try:
        return building.requested(at, asked, launch_id)
    except building.Failed as failure:
        return failure.event
    except errors.BrokerError as error:
        return building.failed(str(error))
    except Exception:
        reference = crypto.new_id(8)
        log.exception("build_request_failed", reference=reference, launch=launch_id)
        sentence = f"The broker met an error of its own. Its log has more under the reference {reference}."
        return building.failed(sentence, 500)


def _refused(at: Service, request: Request, refusal: Exception) -> Response:
    """One event, and nothing to come back for."""
    status, headers = getattr(refusal, "status", 403), getattr(refusal, "headers", {})
    launch_id = crypto.new_id(12)
    signature = _signature(at, launch_id, "/".join(raw_spec(request.scope)))
    event = json.dumps(building.failed(str(refusal), status))
    body = f"id: {launch_id}.{LAST}.{signature}\ndata: {event}\n\n"
    return Response(body, media_type=EVENT_STREAM, headers={**STREAM_HEADERS, **headers})
