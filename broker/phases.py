"""How long each part of a launch took, from the cloud being asked to *ready*."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa

from broker.models import Event, Launch, Order, Phase
from broker.service import Service

NAMES = ("asked", "running", "enrolled", "fetched", "built", "served", "ready")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The end of one part."""

    name: str
    at: dt.datetime
    seconds: float
    """Since the cloud was asked."""


def of(service: Service, launch: Launch) -> list[Mark]:
    """What has been reached so far, in order, of the order that came furthest; empty before one was bought.

    What did not happen is left out: an environment that was there is neither fetched nor built.
    """
    with service.db.reading() as session:
        orders = list(
            session.scalars(sa.select(Order).where(Order.launch_id == launch.id, Order.first_asked_at.is_not(None)))
        )
        events = list(session.scalars(sa.select(Event).where(Event.launch_id == launch.id).order_by(Event.number)))
    if not orders:
        return []
    order = max(orders, key=lambda each: (each.enrolled_at is not None, each.created_at))
    found = {
        "asked": order.first_asked_at,
        "running": order.running_at,
        "enrolled": order.enrolled_at,
        "ready": launch.ready_at,
    }
    if order.enrolled_at is not None:
        since = [
            event for event in events if event.at >= order.enrolled_at and event.at <= (launch.ready_at or event.at)
        ]
        found |= {"fetched": _first(since, Phase.BUILDING), "built": _last(since, Phase.BUILT)}
        found["served"] = _last(since, Phase.LAUNCHING)
    began = order.first_asked_at
    reached = [(name, at) for name in NAMES if (at := found.get(name)) is not None]
    return [Mark(name=name, at=at, seconds=(at - began).total_seconds()) for name, at in reached if began is not None]


def _first(events: list[Event], phase: Phase) -> dt.datetime | None:
    return next((event.at for event in events if event.phase is phase), None)


def _last(events: list[Event], phase: Phase) -> dt.datetime | None:
    return _first(events[::-1], phase)
