"""The row of a launch, within a transaction that holds it."""

from __future__ import annotations

from sqlalchemy import orm

from broker import db
from broker.models import Launch
from broker.service import Service


def locked(session: orm.Session, launch_id: str) -> Launch | None:
    """The row, held by this transaction until it ends."""
    return session.get(Launch, launch_id, with_for_update=True)


def nudge(service: Service, session: orm.Session, launch: Launch) -> None:
    """Have the next step taken now: what it waits for may have happened. The launch is locked by this transaction."""
    if launch.due_at is not None:
        launch.due_at = service.now()
        db.after_commit(session, lambda: service.queue.enqueue("advance", launch.id))
