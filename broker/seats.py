"""Seats on a backend: a full one lets launches wait, the oldest first, and tells them how long that will take."""

from __future__ import annotations

import datetime as dt
import statistics
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import orm

from broker import db
from broker.models import Launch, State
from broker.service import Service

LOOK_SECONDS = 10  # between two looks of one that waits, should the word that a seat is free have been lost
PATIENCE = dt.timedelta(minutes=2)  # a stream says every 25 s that it is there; a phone in a pocket may miss a few
HISTORY = 50  # newest sessions that an expectation is made from


@dataclass(frozen=True, kw_only=True)
class Queued:
    """Where one stands that has to wait."""

    before: int
    """How many are to be let in first."""
    seconds: float | None
    """When it will probably be let in; None where nothing has run there yet."""

    def __str__(self) -> str:
        first = "You are next" if not self.before else f"{self.before} before you"
        return f"Everything is taken; waiting for a free seat. {first}{self._expected()}."

    def _expected(self) -> str:
        if self.seconds is None:
            return ""
        minutes = max(1, round(self.seconds / 60))
        return f", about {minutes} minute{'s' if minutes > 1 else ''}"


def take(service: Service, launch: Launch, most: int) -> Queued | None:
    """Give this launch a seat among `most`; None once it has one. May be repeated, by any number of workers at once.

    Nobody is overtaken: a seat goes to the launch that has waited longest.
    """
    if launch.seated_at is not None:
        return None
    with service.db.transaction() as session:
        db.one_at_a_time(session, f"seats {launch.backend}")
        waiting = _waiting(launch.backend, before=launch)
        before = session.scalar(sa.select(sa.func.count()).select_from(waiting.subquery())) or 0
        if _taken(session, launch.backend) + before < most:
            session.execute(sa.update(Launch).where(Launch.id == launch.id).values(seated_at=service.now()))
            return None
    return Queued(before=before, seconds=_expected_seconds(service, launch, before, most))


def follow(service: Service, launch_id: str) -> None:
    """Somebody is there who waits for it. Called as long as they are; nothing happens once it has its seat."""
    waiting = (Launch.id == launch_id, Launch.state == State.WAITING, Launch.seated_at.is_(None))
    with service.db.transaction() as session:
        session.execute(sa.update(Launch).where(*waiting).values(followed_at=service.now()))


def is_left(service: Service, launch: Launch) -> bool:
    """Whether nobody was seen to wait for it for too long."""
    return service.now() - (launch.followed_at or launch.created_at) > PATIENCE


def call_next(service: Service, backend: str) -> None:
    """A seat is free: have the launch that waited longest look again, now."""
    with service.db.transaction() as session:
        found = session.scalar(_waiting(backend).order_by(Launch.created_at, Launch.id).limit(1))
        if found is not None:
            session.execute(sa.update(Launch).where(Launch.id == found).values(due_at=service.now()))
            db.after_commit(session, lambda: service.queue.enqueue("advance", found))


def _taken(session: orm.Session, backend: str) -> int:
    query = sa.select(sa.func.count()).select_from(Launch)
    taken = (Launch.backend == backend, Launch.seated_at.is_not(None), Launch.state != State.STOPPED)
    return session.scalar(query.where(*taken)) or 0


def _waiting(backend: str, before: Launch | None = None) -> sa.Select[tuple[str]]:
    """Those without a seat; with `before` only those older than it. To be counted in the table: everybody who waits looks
    every now and then."""
    query = sa.select(Launch.id).where(
        Launch.backend == backend,
        Launch.state == State.WAITING,
        Launch.seated_at.is_(None),
        Launch.stop_wanted.is_(False),
    )
    if before is not None:
        earlier = Launch.created_at < before.created_at
        same = sa.and_(Launch.created_at == before.created_at, Launch.id < before.id)
        query = query.where(sa.or_(earlier, same))
    return query


def _expected_seconds(service: Service, launch: Launch, before: int, most: int) -> float | None:
    """How long seats were taken lately, spread over all of them. Rough, and better than nothing."""
    query = (
        sa.select(Launch.seated_at, Launch.stopped_at)
        .where(Launch.backend == launch.backend, Launch.seated_at.is_not(None), Launch.stopped_at.is_not(None))
        .order_by(Launch.stopped_at.desc())
        .limit(HISTORY)
    )
    with service.db.reading() as session:
        took = [end - start for start, end in session.execute(query) if start and end]
    if not took or not most:
        return None
    return statistics.median(span / dt.timedelta(seconds=1) for span in took) * (before + 1) / most
