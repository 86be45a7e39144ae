"""The tries of launches at peers: one open a launch, read by one process at a time."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import orm

from broker import crypto, db, metrics
from broker.models import Connection, Forward, Launch, State
from broker.service import Service
from federation.binderhub import LAUNCHING, WayIn

log = structlog.get_logger(__name__)
WAITING = "forwards"
"""What those who read streams listen to: it is published when there is one that nobody reads."""
LEASE = dt.timedelta(seconds=60)
RUNS_ON = "What it may have started there goes on until that hub ends it."
INTERRUPTED = "interrupted"
"""The outcome of a try whose stream was cut because the broker that read it ended."""


def of_launch(service: Service, launch_id: str) -> list[Forward]:
    """All its tries, the first first."""
    last = (Forward.opened_at, Forward.closed_at.is_(None), Forward.closed_at)
    query = sa.select(Forward).where(Forward.launch_id == launch_id).order_by(*last)
    with service.db.reading() as session:
        return list(session.scalars(query))


def peer(service: Service, forward_id: str) -> str:
    """The name of the peer of this try; empty where there is no such try."""
    with service.db.reading() as session:
        return session.scalar(sa.select(Forward.peer).where(Forward.id == forward_id)) or ""


def current(service: Service, launch_id: str) -> Forward | None:
    """Its open try."""
    with service.db.reading() as session:
        return session.scalar(_open(launch_id))


def open_try(service: Service, launch: Launch, peer: str, connection: Connection | None) -> Forward:
    """The row of a try at this peer, written before anybody asks there. May be repeated: an open one is what there is."""
    with service.db.transaction() as session:
        held = session.get(Launch, launch.id, with_for_update=True)
        found = session.scalar(_open(launch.id))
        if found is not None or held is None:
            return found or Forward(id="", launch_id=launch.id, peer=peer)
        connection_id = connection.id if connection else None
        found = Forward(
            id=crypto.new_id(16),
            launch_id=launch.id,
            peer=peer,
            connection_id=connection_id,
            opened_at=service.now(),
            phase="",
            outcome="",
        )
        session.add(found)
        held.backend, held.connection_id = peer, connection_id
        db.after_commit(session, lambda: service.fanout.publish(WAITING))
    log.info("forward_opened", launch=launch.id, forward=found.id, peer=peer)
    return found


def claim(service: Service) -> list[tuple[str, str]] | None:
    """Every open try whose stream nobody reads, ours from now on: its id and its launch's. With `keep` they stay ours.

    None where there are only such whose step has not been settled yet: what a peer says comes after what the step says.
    """
    now, lease = service.now(), crypto.new_id(16)
    free = sa.or_(Forward.lease_until.is_(None), Forward.lease_until < now)
    unread = (Forward.closed_at.is_(None), Forward.ready_at.is_(None), free)
    with service.db.reading() as session:
        if session.scalar(sa.select(Forward.id).where(*unread).limit(1)) is None:
            return []
    held = sa.and_(Launch.lease.is_not(None), Launch.lease_until >= now)
    settled = sa.exists().where(Launch.id == Forward.launch_id, Launch.state != State.WAITING, ~held)
    taken = (
        sa.update(Forward)
        .where(*unread, settled)
        .values(lease=lease, lease_until=now + LEASE)
        .execution_options(synchronize_session=False)
    )
    with service.db.transaction() as session:
        session.execute(taken)
        ours = sa.select(Forward.id, Forward.launch_id).where(Forward.lease == lease)
        return [(found, launch_id) for found, launch_id in session.execute(ours)] or None


def keep(service: Service, forward_id: str, *, heard: bool) -> None:
    """It is still being read; `heard`: and the peer has said that it is there."""
    now = service.now()
    values = {"lease_until": now + LEASE, **({"heard_at": now} if heard else {})}
    with service.db.transaction() as session:
        session.execute(
            sa.update(Forward).where(Forward.id == forward_id, Forward.closed_at.is_(None)).values(**values)
        )


def is_open(service: Service, forward_id: str) -> bool:
    """Whether its stream is still wanted."""
    with service.db.reading() as session:
        found = session.get(Forward, forward_id)
    return found is not None and found.closed_at is None


def release(service: Service) -> None:
    """Forget who reads what. Only for the one process that owns the state folder, as it starts."""
    with service.db.transaction() as session:
        session.execute(sa.update(Forward).where(Forward.closed_at.is_(None)).values(lease=None, lease_until=None))


def locked(session: orm.Session, forward_id: str) -> tuple[Launch, Forward] | None:
    """Both rows, the launch locked first as everywhere; None once the try is closed."""
    found = session.get(Forward, forward_id)
    launch = session.get(Launch, found.launch_id, with_for_update=True) if found else None
    if found is None or launch is None:
        return None
    session.refresh(found, with_for_update=True)
    return None if found.closed_at is not None else (launch, found)


def close(service: Service, session: orm.Session, launch: Launch, forward: Forward, outcome: str) -> None:
    """It is over, for this reason in one word; the way in is erased. The launch is locked by this transaction."""
    forward.closed_at, forward.outcome, forward.way_in, forward.lease = service.now(), outcome, None, None
    metrics.FORWARDS.labels(forward.peer, outcome).inc()
    db.after_commit(session, lambda: service.fanout.publish(launch.id))
    log.info("forward_closed", launch=launch.id, forward=forward.id, peer=forward.peer, outcome=outcome)


def closed(service: Service, forward: Forward, outcome: str) -> None:
    """The same in a transaction of its own. May be repeated."""
    with service.db.transaction() as session:
        if found := locked(session, forward.id):
            close(service, session, *found, outcome)


def note(service: Service, forward: Forward, **values: Any) -> None:
    """Keep this in its row while it is open."""
    with service.db.transaction() as session:
        still = Forward.id == forward.id, Forward.closed_at.is_(None)
        session.execute(sa.update(Forward).where(*still).values(**values))


def may_run_on(forward: Forward) -> bool:
    """Whether something may still run there although nobody has the way in: the peer had come to starting a server."""
    return forward.ready_at is None and forward.phase in LAUNCHING


def seal(service: Service, forward_id: str, way_in: WayIn) -> bytes:
    """The way in as its row keeps it."""
    told = {"url": way_in.url, "token": way_in.token, "more": dict(way_in.more)}
    return service.sealer.seal(json.dumps(told), f"forwards/{forward_id}")


def way_in(service: Service, forward: Forward) -> WayIn | None:
    """Where its session is and what opens it; None where there is none, or none any more. Raises Unsealable."""
    if forward.way_in is None:
        return None
    told = json.loads(service.sealer.open(forward.way_in, f"forwards/{forward.id}"))
    return WayIn(url=told["url"], token=told["token"], more=told["more"])


def _open(launch_id: str) -> sa.Select[Forward]:
    return sa.select(Forward).where(Forward.launch_id == launch_id, Forward.closed_at.is_(None))
