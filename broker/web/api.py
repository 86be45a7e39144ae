"""The JSON interface that the command line, the pages and other people's scripts use."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, StreamingResponse

from broker import consoles, events, launches, orders, phases, placement, reaper, repo_access, wishes
from broker.models import Launch, Phase
from broker.people import Person
from broker.service import Service
from broker.web import deps, schemas

router = APIRouter(prefix="/api", tags=["launches"])


@router.post("/launches", status_code=201)
def create(asking: deps.Asking, at: deps.At, wish: schemas.LaunchRequest, response: Response) -> dict[str, Any]:
    """Launch this. 201, or 200 where a launch of this name with the same parameters already runs."""
    launch, new = launches.request(at, asking, wishes.Wish(**wish.wished(at.settings.sizes)))
    response.status_code = 201 if new else 200
    return schemas.launch_json(at, asking, launch)


@router.get("/launches")
def index(asking: deps.Asking, at: deps.At, *, running: bool = False, everyone: bool = False) -> list[dict[str, Any]]:
    """My launches, newest first, at most 100; for whoever runs this broker also everybody's, without the way in."""
    found = launches.listed(at, asking, running=running, everyone=everyone)
    return [schemas.launch_json(at, asking, launch) for launch in found]


@router.get("/launches/{launch_id}")
def show(asking: deps.Visiting, at: deps.At, launch_id: str) -> dict[str, Any]:
    """One launch of mine, or the one whose token is shown; with `url` and `token` while it is ready."""
    return schemas.launch_json(at, asking, launches.get(at, asking, launch_id, anyones=True))


@router.delete("/launches/{launch_id}", status_code=202)
def stop(asking: deps.Visiting, at: deps.At, launch_id: str) -> dict[str, Any]:
    """Want it stopped. Its session closes at once; follow the events to `stopped`. May be repeated."""
    launch = launches.get(at, asking, launch_id, anyones=True)
    launches.stop(at, launch.id)
    return schemas.launch_json(at, asking, launches.get(at, asking, launch_id, anyones=True))


@router.get(
    "/launches/{launch_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}, "application/json": {}}},
        204: {"description": "All has been seen; do not come back."},
    },
)
async def follow(
    asking: deps.Visiting,
    at: deps.At,
    launch_id: str,
    after: Annotated[int, Query(ge=0)] = 0,
    follow: bool = False,
    last_event_id: Annotated[str, Header()] = "",
    accept: Annotated[str, Header()] = "",
) -> Response:
    """Progress as server-sent events, from `Last-Event-ID` or `after` on; as a JSON list where that is asked for.

    Ends with `failed` or `ready`; with `follow=1` only once the launch is `stopped`. Leaving ends nothing.
    """
    launch = await run_in_threadpool(launches.get, at, asking, launch_id, anyones=True)
    start = int(last_event_id) if last_event_id.isdigit() else after
    if "application/json" in accept and "text/event-stream" not in accept:
        return JSONResponse(await run_in_threadpool(_all, at, launch.id, start))
    if await run_in_threadpool(_seen_all, at, launch, start, to_the_end=follow):
        return Response(status_code=204)  # what tells an EventSource not to come back
    return StreamingResponse(
        _stream(at, asking, launch.id, start, to_the_end=follow),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


@router.post("/launches/{launch_id}/extend")
def extend(asking: deps.Asking, at: deps.At, launch_id: str, more: schemas.Extension) -> dict[str, Any]:
    """Let a running session of mine last so many hours longer; `deadline_at` says until when. 409 with the reason where it
    cannot: no session lasts longer there, or its machine was told at birth when to go off."""
    launches.extend(at, launches.get(at, asking, launch_id).id, more.hours)
    return schemas.launch_json(at, asking, launches.get(at, asking, launch_id))


@router.get("/launches/{launch_id}/console")
def console(asking: deps.Visiting, at: deps.At, launch_id: str) -> dict[str, str]:
    """What its newest machine has written on its console, as far as the cloud shows it. Asks the cloud."""
    order = orders.newest(at, launches.get(at, asking, launch_id, anyones=True))
    return {"text": consoles.text(at, order) if order else ""}


@router.get("/launches/{launch_id}/phases")
def how_long(asking: deps.Visiting, at: deps.At, launch_id: str) -> list[dict[str, Any]]:
    """How long each part took, from the cloud being asked to *ready*; what has not happened is left out."""
    marks = phases.of(at, launches.get(at, asking, launch_id, anyones=True))
    return [{"phase": mark.name, "at": mark.at.isoformat(), "seconds": round(mark.seconds, 3)} for mark in marks]


@router.get("/resolve")
def resolve(asking: deps.Asking, at: deps.At, repo: str, ref: str = "") -> dict[str, Any]:
    """What a pasted address means: repository, commit, and the path in it. Looks it up; starts nothing."""
    found = repo_access.resolve(at, asking, at.repos.parse(repo, ref or None))
    return {
        "spec": found.spec_string,
        "title": found.slug,
        "commit": found.commit,
        "ref": found.ref,
        "path": found.path,
        "repo": found.web_url,
    }


@router.get("/backends")
def backends(asking: deps.Asking, at: deps.At) -> list[dict[str, Any]]:
    """Where I could run something, and why not where I cannot."""
    return [
        {
            "name": place.name,
            "title": place.title,
            "closed": place.closed,
            "price_per_hour": None if place.price_per_hour is None else str(place.price_per_hour),
            "currency": place.currency,
            "price": "; ".join(place.price),
            "ready_seconds": place.ready_seconds,
        }
        for place in placement.places(at, asking)
    ]


@router.post("/keys", status_code=201)
def new_key(request: Request, _asking: deps.AtHome) -> dict[str, str]:
    """A key that signs one browser in, once: for the command line to open a page with."""
    return {"key": deps.door_of(request).new_key()}


@router.post("/reap")
def reap(_asking: deps.AtHome, at: deps.At, *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Look into every account now, and say what was found and what could not be asked. Takes a minute at most."""
    return reaper.report(at, reaper.sweep(at, dry_run=dry_run, everything=True))


def _all(at: Service, launch_id: str, after: int) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    while page := events.read(at, launch_id, after):
        lines += page
        after = page[-1]["id"]
    return lines


def _seen_all(at: Service, launch: Launch, start: int, *, to_the_end: bool) -> bool:
    return (
        bool(start) and events.finished(at, launch.id, to_the_end=to_the_end) and not events.read(at, launch.id, start)
    )


async def _stream(at: Service, asking: Person, launch_id: str, after: int, *, to_the_end: bool) -> AsyncIterator[str]:
    async for line in events.follow(at, launch_id, after, to_the_end=to_the_end):
        if line is None:
            yield ":keepalive\n\n"
            continue
        if line["phase"] == Phase.READY:
            line = await run_in_threadpool(_with_way_in, at, asking, line, launch_id)
        yield f"id: {line['id']}\ndata: {json.dumps(line)}\n\n"


def _with_way_in(at: Service, asking: Person, line: dict[str, Any], launch_id: str) -> dict[str, Any]:
    launch: Launch = launches.get(at, asking, launch_id, anyones=True)
    way_in = schemas.way_in(at, launch) if schemas.may_enter(asking, launch) else {}
    return {**line, "launch": launch.id, **way_in}
