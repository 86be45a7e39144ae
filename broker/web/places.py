"""The choice of a place, as JSON: at once with what is known, and as a stream that goes on as clouds answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from broker import backends, budgets, launches, menus, people, placement, resources, subjects
from broker.people import Person
from broker.service import Service
from broker.web import deps, language, views
from providers.sentences import say

router = APIRouter(tags=["launches"])
STREAM_SECONDS = 60.0  # a cloud's call may take 45; who is still curious asks again
TICK_SECONDS = 1.0  # how often a place says for how long its cloud has not answered
LAST = say("you chose it last time")


def _asked(
    repo: Annotated[str, Query(max_length=2000)] = "",
    ref: Annotated[str, Query(max_length=500)] = "",
    backends: Annotated[str, Query(max_length=2000)] = "",
    size: Annotated[str, Query(max_length=40)] = "",
    cpu: Annotated[str, Query(max_length=20)] = "",
    memory: Annotated[str, Query(max_length=20)] = "",
    disk: Annotated[str, Query(max_length=20)] = "",
    gpu: Annotated[str, Query(max_length=20)] = "",
    hours: Annotated[str, Query(max_length=20)] = "",
    sort: Annotated[str, Query(max_length=20)] = "",
) -> views.Filled:
    """The fields of the launch form that the choice depends on; each may be left out."""
    figures = {"cpu": cpu, "memory": memory, "disk": disk, "gpu": gpu, "hours": hours}
    return views.Filled(repo=repo, ref=ref, backends=backends, size=size, sort=sort, **figures)


Asked = Annotated[views.Filled, Depends(_asked)]


@router.get("/api/places")
def now(at: deps.At, asking: deps.Whoever, filled: Asked) -> dict[str, Any]:
    """Where this could run, the best first, as far as it is known at this moment: no cloud and no repository host is waited for.

    `asking` is true where more is to come; ask again then, or follow `/api/places/stream`. Who is not signed in is told of the
    places that everybody may come to use, and nothing of the repository.
    """
    return language.spoken(_for_strangers(at, filled) if asking.anonymous else _now(at, asking, filled))


@router.get(
    "/api/places/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}}
)
async def stream(at: deps.At, asking: deps.Choosing, filled: Asked) -> StreamingResponse:
    """The same as server-sent events: `place` for each that is new or has changed, `repo` once it was looked up, `order` with
    all names as they are sorted, and `end` once nothing more is to come, within a minute."""
    return StreamingResponse(
        _events(at, asking, filled),
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )


def shown(found: list[placement.Place], filled: views.Filled) -> list[placement.Place]:
    """Those of the places that this form lets one choose from, sorted as it says: those that its link names, else all."""
    limited = [place for place in found if place.name in filled.backends] or found
    return placement.ordered(limited, filled.sort)


STRANGERS = ("name", "title", "needs", "own_account", "peer", "publishes", "terms_url", "privacy_url", "session", "price",
             "price_per_hour", "price_for_session", "currency", "ready_seconds", "reasons", "hours", "asking")  # fmt: skip
"""What anybody is told of a place, pages elsewhere too."""
ANYBODY = Person(id="anybody")
"""Somebody who has signed in, of whom nothing else is known, and who has connected nothing."""


def for_all(at: Service) -> list[placement.Place]:
    """The places that a visitor can use, and those that anybody can who signs in; the best first. Asks no cloud.

    What is open to some people only is not among them.
    """
    visitors = [place for place in placement.places(at, people.ANONYMOUS) if place.closed is None]
    connecting = [
        each.name for each in backends.offered(at) if each.asks_for_account and not each.closed_to(at, ANYBODY)
    ]
    known = [place for place in placement.places(at, ANYBODY) if place.closed is None or place.name in connecting]
    signed_in = [replace(place, closed=None, needs=tuple(dict.fromkeys(("sign in", *place.needs)))) for place in known]
    return placement.ordered([*{place.name: place for place in (*signed_in, *visitors)}.values()])


def _for_strangers(at: Service, filled: views.Filled) -> dict[str, Any]:
    """Prices are the same whatever is asked: so it costs the clouds one question in ten minutes, whoever asks how often."""
    offered = [place for place in for_all(at) if place.name in (filled.backends or [place.name])]
    menus.begin(at)
    found = [told(place) for place in placement.ordered(offered, filled.sort)]
    shown_of_each = [{name: place[name] for name in STRANGERS} for place in found]
    return {"repo": None, "places": shown_of_each, "asking": any(place["asking"] for place in found)}


def last_chosen(at: Service, person: Person) -> str:
    """The place of this person's newest launch; empty for nobody's."""
    newest = [] if person.anonymous else launches.listed(at, person, limit=1)
    return newest[0].backend if newest else ""


def told(place: placement.Place, last: str = "") -> dict[str, Any]:
    """One line of the choice, in figures and in words."""
    return {
        "name": place.name,
        "title": place.title,
        "closed": place.closed,
        "needs": list(place.needs),
        "connect": place.connect,
        "connected": place.connected,
        "own": place.own,
        "own_account": place.own_account,
        "confined": place.confined,
        "peer": place.peer,
        "publishes": place.publishes,
        "terms_url": place.terms_url,
        "privacy_url": place.privacy_url,
        "price_per_hour": None if place.price_per_hour is None else f"{place.price_per_hour:f}",
        "price_for_session": None if place.price_for_session is None else f"{place.price_for_session:f}",
        "currency": place.currency,
        "session": session(place),
        "price": list(place.price),
        "ready_seconds": place.ready_seconds,
        "built": place.built,
        "reasons": [*place.reasons, *([LAST] if place.name == last and place.closed is None else [])],
        "asking": place.asking,
        "news": place.news,
        "sizes": None if place.sizes is None else list(place.sizes),
        "hours": place.hours,
        "idle_minutes": place.idle_minutes,
        "ends": views.ending(place),
    }


def session(place: placement.Place) -> str:
    """What the whole session costs, in a few words."""
    if place.own:
        return say("nothing more to pay")
    if place.price_for_session is None:
        return say("asking for its price") if place.asking else say("price unknown")
    if not place.price_for_session:
        return say("free")
    return say("at most %(cost)s", cost=budgets.money(place.price_for_session, place.currency))


def described(subject: subjects.Subject | None) -> dict[str, Any] | None:
    """What the repository is and asks for, in words; None while nobody has looked."""
    if subject is None:
        return None
    found, asked = subject.found, subject.asked
    return {
        "title": found.slug if found else "",
        "commit": found.commit if found else "",
        "path": found.path if found else "",
        "requires": resources.plainly(asked.required),
        "recommends": resources.plainly(asked.recommended),
        "asks": views.asking(asked) if found else "",
        "trouble": language.known(subject.trouble),
    }


def _now(at: Service, person: Person, filled: views.Filled) -> dict[str, Any]:
    last = last_chosen(at, person)
    offered = shown(placement.places(at, person, filled.question(at, person)), filled)
    found = [told(place, last) for place in offered]
    subject = subjects.known(at, person, filled.typed["repo"], filled.typed["ref"]) if filled.typed["repo"] else None
    return {"repo": described(subject), "places": found, "asking": any(place["asking"] for place in found)}


async def _events(at: Service, person: Person, filled: views.Filled) -> AsyncIterator[str]:
    """Whoever leaves ends it. The clouds are asked on, for whoever comes next. For visitors no repository is looked up."""
    repo, ref = filled.typed["repo"], filled.typed["ref"]
    ends = time.monotonic() + STREAM_SECONDS
    sent: dict[str, Any] = {}
    with menus.listening(at) as wake:
        looking = None
        if repo and not person.anonymous and subjects.known(at, person, repo, ref) is None:
            looking = asyncio.ensure_future(run_in_threadpool(subjects.look, at, person, repo, ref))
            looking.add_done_callback(lambda _: wake.set())
        while True:
            known = await run_in_threadpool(_now, at, person, filled)
            menus.begin(at)
            for place in known["places"]:
                if sent.get(f"place {place['name']}") != place:
                    sent[f"place {place['name']}"] = place
                    yield _event("place", place)
            for name, content in (("order", [place["name"] for place in known["places"]]), ("repo", known["repo"])):
                if content and sent.get(name) != content:
                    sent[name] = content
                    yield _event(name, content)
            looked = looking is None or looking.done()
            if (looked and not known["asking"]) or time.monotonic() > ends:
                break
            await wake.wait(TICK_SECONDS)
    yield _event("end", {})


def _event(name: str, content: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(language.spoken(content))}\n\n"
