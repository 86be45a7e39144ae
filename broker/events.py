"""Progress of a launch, line by line: only ever added, read again from any number on."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from broker import db
from broker.models import Event, Launch, Phase, State
from broker.service import Service

KEEPALIVE_SECONDS = 25  # below the 30 s idle limit of common proxies; BinderHub's own value
PAGE = 1000  # events read at once


def append(
    service: Service, session: orm.Session, launch: Launch, message: str, *, phase: Phase | None = None, **more: Any
) -> None:
    """Add one line within this transaction; those who follow are woken once it is durable.

    The launch must be locked by this transaction (`launches.locked`): its row numbers the lines.
    """
    launch.events += 1
    if phase is not None:
        launch.phase = phase
    session.add(
        Event(
            launch_id=launch.id,
            number=launch.events,
            at=service.now(),
            phase=phase,
            state=launch.state,
            message=message,
            more=more,
        )
    )
    wake(service, session, launch.id)


def wake(service: Service, session: orm.Session, launch_id: str) -> None:
    """Wake those who follow this launch, and who keep what they read of it, once this transaction is durable."""
    woken: set[str] = session.info.setdefault("woken", set())
    if launch_id not in woken:
        woken.add(launch_id)
        db.after_commit(session, lambda: service.fanout.publish(launch_id))


def read(service: Service, launch_id: str, after: int = 0, limit: int = PAGE) -> list[dict[str, Any]]:
    """The lines numbered above `after`, oldest first, as they are shown."""
    with service.db.reading() as session:
        return _lines(session, launch_id, after, limit)


def _lines(session: orm.Session, launch_id: str, after: int, limit: int) -> list[dict[str, Any]]:
    query = sa.select(Event).where(Event.launch_id == launch_id, Event.number > after)
    return [shown(event) for event in session.scalars(query.order_by(Event.number).limit(limit))]


def why_it_ends(service: Service, launch_id: str) -> str:
    """What was said when it was first known that this launch ends; empty while it goes on."""
    known = Event.more["reason"].as_string().is_not(None)
    query = sa.select(Event.message).where(Event.launch_id == launch_id, known).order_by(Event.number).limit(1)
    with service.db.reading() as session:
        return session.scalar(query) or ""


def shown(event: Event) -> dict[str, Any]:
    """One line as JSON; it holds no secret (url and token are added for the owner, when served)."""
    return {
        "id": event.number,
        "at": event.at.astimezone(dt.UTC).isoformat(timespec="milliseconds"),
        "phase": event.phase.value if event.phase else None,
        "state": event.state.value,
        "message": event.message,
        **event.more,
    }


async def follow(
    service: Service, launch_id: str, after: int = 0, *, to_the_end: bool = False
) -> AsyncIterator[dict[str, Any] | None]:
    """Every line from `after` on, as it is written. Ends with `failed` or `ready`, or with `stopped` if `to_the_end`.

    None is yielded every KEEPALIVE_SECONDS in which nothing was written. Leaving early ends nothing.
    """
    with service.fanout.listen(launch_id) as wake:
        while True:
            over, lines = await asyncio.to_thread(_look, service, launch_id, after, to_the_end=to_the_end)
            for line in lines:
                after = line["id"]
                yield line
                if _is_last(line, to_the_end=to_the_end):
                    return
            if len(lines) == PAGE:
                continue  # there may be more
            if over:
                return  # whoever comes back with the last number has seen it all
            # A lost wake-up costs one keep-alive interval, no line.
            if not await wake.wait(KEEPALIVE_SECONDS):
                yield None


def finished(service: Service, launch_id: str, *, to_the_end: bool = False) -> bool:
    """Whether the last line that `follow` would give has been written."""
    with service.db.reading() as session:
        return _over(session, launch_id, to_the_end=to_the_end)


def _look(service: Service, launch_id: str, after: int, *, to_the_end: bool) -> tuple[bool, list[dict[str, Any]]]:
    """`finished` and `read` in one look at the table: a thousand who follow look at every line."""
    with service.db.reading() as session:
        # Asked before the lines are read, so that the last one cannot slip in between.
        over = _over(session, launch_id, to_the_end=to_the_end)
        return over, _lines(session, launch_id, after, PAGE)


def _over(session: orm.Session, launch_id: str, *, to_the_end: bool) -> bool:
    found = session.execute(sa.select(Launch.state, Launch.phase).where(Launch.id == launch_id)).one_or_none()
    if found is None or found.state is State.STOPPED:
        return True
    return not to_the_end and found.phase in (Phase.READY, Phase.FAILED)


def _is_last(line: dict[str, Any], *, to_the_end: bool) -> bool:
    if to_the_end:
        return bool(line["state"] == State.STOPPED)
    return line["phase"] in (Phase.READY, Phase.FAILED) or line["state"] == State.STOPPED
