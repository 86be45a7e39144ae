"""What was done with what people have entrusted to this broker."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from broker import people
from broker.models import Connection, Launch, Order, State, Use
from broker.service import Service


def write(
    service: Service,
    person_id: str,
    what: str,
    *,
    connection_id: str | None = None,
    launch_id: str | None = None,
    outcome: str = "",
) -> None:
    """Write one use down, for the person to see. `outcome`: the sentence, where it did not go well."""
    fresh = Use(
        at=service.now(),
        person=person_id,
        connection_id=connection_id,
        what=what,
        launch_id=launch_id,
        outcome=outcome,
    )
    with service.db.transaction() as session:
        session.add(fresh)


def of(
    service: Service, person: people.Person, *, limit: int = 200, before: int | None = None, sweeps: bool = True
) -> list[Use]:
    """What was done with what this person has entrusted to us, the newest first; `before` the use of this id.

    Without `sweeps`, the looks for leftovers that found the account as it should be are left out.
    """
    query = sa.select(Use).where(Use.person == person.id)
    if before is not None:
        query = query.where(Use.id < before)
    if not sweeps:
        query = query.where(sa.or_(Use.what != "sweep", Use.outcome != ""))
    with service.db.reading() as session:
        return list(session.scalars(query.order_by(Use.id.desc()).limit(limit)))


def last_used(service: Service, person: people.Person) -> dict[str, dt.datetime]:
    """When each of this person's targets was last signed in to, by target; what they told anew counts with what they told
    before."""
    query = (
        sa.select(Connection.target, sa.func.max(Use.at, type_=Use.at.type))
        .join(Use, Use.connection_id == Connection.id)
        .where(Connection.person == person.id)
        .group_by(Connection.target)
    )
    with service.db.reading() as session:
        return {row[0]: row[1] for row in session.execute(query)}


def last_good(service: Service, connection_id: str) -> dt.datetime | None:
    """When something was last done with this connection that went well."""
    query = sa.select(sa.func.max(Use.at, type_=Use.at.type)).where(
        Use.connection_id == connection_id, Use.outcome == ""
    )
    with service.db.reading() as session:
        return session.scalar(query)


def running_on(service: Service, person: people.Person, target: str) -> list[Launch]:
    """Launches that still need what this person has connected there, also by what they told before."""
    theirs = sa.select(Connection.id).where(Connection.person == person.id, Connection.target == target)
    bought = sa.select(Order.launch_id).where(Order.connection_id.in_(theirs), Order.closed_at.is_(None))
    needs = sa.or_(Launch.connection_id.in_(theirs), Launch.repo_connection_id.in_(theirs))
    query = sa.select(Launch).where(sa.or_(sa.and_(needs, Launch.state != State.STOPPED), Launch.id.in_(bought)))
    with service.db.reading() as session:
        return list(session.scalars(query.order_by(Launch.created_at.desc())))
