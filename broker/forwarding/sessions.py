"""The session that runs at a peer: whether it is still there, and its end."""

from __future__ import annotations

import datetime as dt
import enum

import httpx

from broker import connections, errors, peers
from broker.forwarding import rows
from broker.models import Forward
from broker.service import Service
from federation import anybinder, binderhub
from federation.binderhub import Life, WayIn
from providers import errors as clouds

STARTING_PATIENCE = dt.timedelta(seconds=60)  # a server that is being started is ended once its address is known
PATIENCE = dt.timedelta(minutes=5)  # of trying to end a session


class End(enum.StrEnum):
    """What became of a wish to end it."""

    GONE = "ended"
    NEVER = "stopped"
    """It was stopped before anything was started there."""
    LEFT = "left"
    """It may still run there: that hub ends it when nobody uses it."""
    PENDING = "pending"


def look(service: Service, forward: Forward) -> binderhub.Session:
    """Ask the session whether it is there. Waits for its answer, seconds at most."""
    way_in = rows.way_in(service, forward)
    if way_in is None:
        return binderhub.Session(life=Life.GONE)
    with binderhub.client() as at:
        return _alive(service, at, forward, way_in)


def end(service: Service, forward: Forward) -> End:
    """End what runs there, as far as it can be known. May be repeated; PENDING: come back."""
    now = service.now()
    since = forward.closing_at or now
    if forward.closing_at is None:
        rows.note(service, forward, closing_at=now)
    if forward.ready_at is None:
        if not rows.may_run_on(forward):
            return End.NEVER
        return End.PENDING if now - since < STARTING_PATIENCE and forward.lease else End.LEFT
    way_in = rows.way_in(service, forward)
    if way_in is None:
        return End.GONE
    if _ended(service, forward, way_in):
        return End.GONE
    return End.PENDING if now - since < PATIENCE else End.LEFT


def _ended(service: Service, forward: Forward, way_in: WayIn) -> bool:
    """Tell it, then ask: it is gone when it answers no more."""
    token, known, launch = _token(service, forward, way_in), _known(service, forward), anybinder.launch_of(way_in)
    with binderhub.client() as at:
        if launch and known:
            told = anybinder.end(at, known.peer, launch, way_in.token)
        else:
            told = binderhub.shut_down(at, way_in.url, token)
        if forward.connection_id is not None and known:
            told = binderhub.end_at_hub(at, known.peer, way_in.url, token) or told
        life = _alive(service, at, forward, way_in).life
    return life is Life.GONE or (told and life is Life.UNKNOWN)


def _alive(service: Service, at: httpx.Client, forward: Forward, way_in: WayIn) -> binderhub.Session:
    """An Anybinder is asked for its launch, which need be no Jupyter server; else the server itself."""
    known, launch = _known(service, forward), anybinder.launch_of(way_in)
    if launch and known:
        return anybinder.alive(at, known.peer, launch, way_in.token)
    return binderhub.alive(at, way_in.url, _token(service, forward, way_in))


def _token(service: Service, forward: Forward, way_in: WayIn) -> str:
    """What opens it: the person's own token where the hub knows them by that, else what came with `ready`."""
    connection = connections.row(service, forward.connection_id)
    if connection is None:
        return way_in.token
    try:
        return connections.opened(service, connection)
    except (errors.BrokerError, clouds.ProviderError):
        return way_in.token


def _known(service: Service, forward: Forward) -> peers.Known | None:
    return next((each for each in peers.known(service) if each.name == forward.peer), None)
