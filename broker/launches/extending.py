"""A running session may go on for longer: as far as its place lets sessions last, and never beyond what its machine was told.

A bought machine goes off at its order's `until`, whatever anybody wants later, and its price was promised until then. So what is
extended within that costs nothing that was not reserved before, and needs no credential that was not seen to last: nothing has
to be told to a cloud, and each net holds as it did.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog

from broker import backends, budgets, errors, events, orders
from broker.launches.rows import locked
from broker.models import Launch, Order
from broker.service import Service
from providers.sentences import counted, say

log = structlog.get_logger(__name__)
LEAST = dt.timedelta(minutes=1)  # less is not worth a button
ROUNDED = dt.timedelta(seconds=1)  # what somebody has who sends all that is left as a number of hours


@dataclass(frozen=True, kw_only=True)
class Room:
    """How much longer a session may last."""

    left: dt.timedelta
    """Nothing, or at least LEAST."""
    why: str
    """Why it is not more, in a sentence."""


def room(service: Service, launch: Launch) -> Room:
    """How much longer this launch may last. One short look at the table."""
    return _room(service, launch, orders.current(service, launch))


def extend(service: Service, launch_id: str, hours: float) -> Launch:
    """Let it last so many hours longer, in one transaction. Raises NotFound, CannotExtend with the reason."""
    with service.db.transaction() as session:
        launch = locked(session, launch_id)
        if launch is None:
            raise errors.NotFound
        bought = [each for each in orders.of_launch(session, launch_id) if each.closed_at is None]
        more, found = dt.timedelta(hours=hours), _room(service, launch, orders.leader(bought))
        if more > found.left + ROUNDED:
            raise errors.CannotExtend(_refusal(found))
        more = min(more, found.left)
        launch.deadline_at += more
        launch.hours += more / dt.timedelta(hours=1)
        events.append(service, session, launch, say("It may last %(time)s longer, at your wish.", time=minutes(more)))
    log.info("launch_extended", launch=launch_id, hours=hours)
    return launch


# --- within ---------------------------------------------------------------------------------------------------------


def _room(service: Service, launch: Launch, order: Order | None) -> Room:
    if not launch.runs or launch.stop_wanted or launch.ready_at is None or service.now() >= launch.deadline_at:
        return Room(left=dt.timedelta(0), why=say("It does not run."))
    longest = _longest(service, launch.backend)
    left = launch.ready_at + dt.timedelta(hours=longest) - launch.deadline_at
    why = say("No session there lasts longer than %(time)s.", time=budgets.hours(dt.timedelta(hours=longest)))
    if order is not None and order.until - launch.deadline_at < left:
        left = order.until - launch.deadline_at
        off = order.until.strftime("%H:%M")
        why = say("Its machine was told at birth to go off at %(time)s UTC, whatever happens.", time=off)
    return Room(left=left if left >= LEAST else dt.timedelta(0), why=why)


def _longest(service: Service, name: str) -> float:
    """At a peer, and where a place is none any more, only the limit of all is ours to say."""
    try:
        return backends.named(service, name).longest(service)
    except errors.BrokerError:
        return service.settings.max_hours


def _refusal(found: Room) -> str:
    if not found.left:
        return say("It cannot be extended. %(reason)s", reason=found.why)
    return say("It can be extended by %(time)s at most. %(reason)s", time=minutes(found.left), reason=found.why)


def minutes(span: dt.timedelta) -> str:
    """`58 minutes`, `2 hours`: never more than there is."""
    whole = span // dt.timedelta(minutes=1)
    if whole >= 120:
        hours, rest = divmod(whole, 60)
        if not rest:
            return counted("%(count)s hour", "%(count)s hours", hours)
        return counted(
            "%(hours)s hours and %(count)s minute", "%(hours)s hours and %(count)s minutes", rest, hours=hours
        )
    return counted("%(count)s minute", "%(count)s minutes", whole)
