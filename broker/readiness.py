"""How soon a launch is usually ready, measured from our own history: by backend, offer, and whether its image was there."""

from __future__ import annotations

import datetime as dt
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from broker import repos
from broker.models import Event, Launch, Order, Phase
from broker.service import Service
from providers import base

HISTORY = 20  # newest launches that an expectation is made from
LOOKED_AT = 300  # newest orders of a backend that are looked at for them


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What is known of one backend, for launches whose image is there or has to be built."""

    built: bool
    """Whether the image is expected to be there."""
    by_offer: dict[str, float] = field(default_factory=dict)
    """Median seconds from asking the cloud to ready, by offer."""

    def seconds(self, offer: base.Offer) -> float | None:
        """Our own measure, else the provider's guess (which knows of no build); None where there is neither."""
        return self.by_offer.get(offer.id, offer.usual_seconds)


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What one place usually takes, from the wish to a running session."""

    seconds: float | None = None
    """None where it was never tried."""
    built: bool = False
    """The image of what was asked about is expected to be there."""


def usual(service: Service, backend: str, found: repos.Resolved | None = None, *, keeps: bool = False) -> Usual:
    """The median of what it took lately there; of launches like this one, where something is `found` and there are any.

    `keeps`: what was built there is kept, so that the next launch of the same commit needs no build.
    """
    was_building = sa.exists().where(Event.launch_id == Launch.id, Event.phase == Phase.BUILDING)
    newest = (
        sa.select(Launch.created_at, Launch.ready_at, was_building)
        .where(Launch.backend == backend, Launch.ready_at.is_not(None))
        .order_by(Launch.created_at.desc())
        .limit(HISTORY)
    )
    with service.db.reading() as session:
        rows = [
            ((ready - created).total_seconds(), built) for created, ready, built in session.execute(newest) if ready
        ]
    there = found is not None and _is_there(service, backend, found, keeps=keeps)
    alike = [seconds for seconds, building in rows if found is not None and building != there]
    took = alike or [seconds for seconds, _building in rows]
    return Usual(seconds=statistics.median(took) if took else None, built=there)


def _is_there(service: Service, backend: str, found: repos.Resolved, *, keeps: bool) -> bool:
    """Whether this commit got ready there before, and what was built then is kept, or was not built then either."""
    building = sa.exists().where(Event.launch_id == Launch.id, Event.phase == Phase.BUILDING)
    same = Launch.repo_url == found.repo_url, Launch.commit == found.commit, Launch.backend == backend
    query = sa.select(building).where(*same, Launch.ready_at.is_not(None))
    with service.db.reading() as session:
        was_building = session.scalar(query.order_by(Launch.ready_at.desc()).limit(1))
    return was_building is not None and (keeps or not was_building)


def of_launch(service: Service, launch: Launch) -> Readiness:
    """What is usual on the backend of this launch, with its image as it will probably be there."""
    built = _is_built(service, launch)
    took: dict[str, list[float]] = defaultdict(list)
    with service.db.reading() as session:
        for offer, asked_at, ready_at, building in session.execute(_history(launch.backend)):
            if building != built and asked_at is not None and ready_at is not None:
                took[offer["id"]].append((ready_at - asked_at).total_seconds())
    return Readiness(built=built, by_offer={name: statistics.median(each[:HISTORY]) for name, each in took.items()})


def _history(backend: str) -> sa.Select[tuple[dict[str, Any], dt.datetime | None, dt.datetime | None, bool]]:
    """The orders that a session came of, newest first."""
    building = sa.exists().where(Event.launch_id == Launch.id, Event.phase == Phase.BUILDING)
    return (
        sa.select(Order.offer, Order.first_asked_at, Launch.ready_at, building)
        .join(Launch, Launch.id == Order.launch_id)
        .where(Order.backend == backend, Order.tunnelled_at.is_not(None), Launch.ready_at.is_not(None))
        .order_by(Order.created_at.desc())
        .limit(LOOKED_AT)
    )


def _is_built(service: Service, launch: Launch) -> bool:
    """Whether the newest launch of the same commit that got ready there needed no build, or this commit is an image itself."""
    if "image" in launch.content:
        return True
    building = sa.exists().where(Event.launch_id == Launch.id, Event.phase == Phase.BUILDING)
    same = Launch.repo_url == launch.repo_url, Launch.commit == launch.commit, Launch.backend == launch.backend
    query = sa.select(building).where(*same, Launch.ready_at.is_not(None), Launch.id != launch.id)
    with service.db.reading() as session:
        was_building = session.scalar(query.order_by(Launch.ready_at.desc()).limit(1))
    return was_building is False
