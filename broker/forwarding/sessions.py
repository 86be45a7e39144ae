"""The session that runs at a peer: whether it is still there, and its end."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
from dataclasses import dataclass, field

import httpx

from broker import connections, errors, peers
from broker.forwarding import rows
from broker.models import Forward
from broker.service import Service
from federation import anybinder, binderhub
from federation.binderhub import Life, WayIn
from federation.peers import Peer
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
    door = _door(service, forward, way_in)
    with binderhub.client() as at:
        return _alive(at, door)


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
    if _ended(_door(service, forward, way_in)):
        return End.GONE
    return End.PENDING if now - since < PATIENCE else End.LEFT


@dataclass(frozen=True, kw_only=True)
class _Door:
    """A session, and what it and its hub are asked with."""

    way_in: WayIn = field(repr=False)
    token: str = field(repr=False)
    """What opens it: the person's own token where the hub knows them by that, else what came with `ready`."""
    peer: Peer | None
    """None where it is no peer of ours any more."""
    connected: bool
    """The person launched with a token of theirs."""

    @property
    def launch(self) -> str:
        """What the hub calls the launch, where it is an Anybinder that can be asked."""
        return anybinder.launch_of(self.way_in) if self.peer else ""


def _door(service: Service, forward: Forward, way_in: WayIn) -> _Door:
    known, connection = peers.find(service, forward.peer), connections.row(service, forward.connection_id)
    token = way_in.token
    if connection is not None:
        with contextlib.suppress(errors.BrokerError, clouds.ProviderError):
            token = connections.opened(service, connection)
    connected = forward.connection_id is not None
    return _Door(way_in=way_in, token=token, peer=known.peer if known else None, connected=connected)


def _ended(door: _Door) -> bool:
    """Tell it, then ask: it is gone when it answers no more."""
    with binderhub.client() as at:
        if door.peer and door.launch:
            told = anybinder.end(at, door.peer, door.launch, door.way_in.token)
        else:
            told = binderhub.shut_down(at, door.way_in.url, door.token)
        if door.peer and door.connected:
            told = binderhub.end_at_hub(at, door.peer, door.way_in.url, door.token) or told
        life = _alive(at, door).life
    return life is Life.GONE or (told and life is Life.UNKNOWN)


def _alive(at: httpx.Client, door: _Door) -> binderhub.Session:
    """An Anybinder is asked for its launch, which need be no Jupyter server; else the server itself."""
    if door.peer and door.launch:
        return anybinder.alive(at, door.peer, door.launch, door.way_in.token)
    return binderhub.alive(at, door.way_in.url, door.token)
