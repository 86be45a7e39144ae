"""Sessions: the running servers people enter, as gateway and tunnel see them.

Every secret of a session is derived from the broker's root key, so none is stored and a restart changes none.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa
from sqlalchemy import orm

from broker import crypto, launches, orders
from broker.models import BOUGHT, Launch, Order, State
from broker.service import Service

FRESH_SECONDS = 1.0  # how long a row that was read is believed without a wake-up
KNOWN_MOST = 10_000  # rows kept; more means that somebody is guessing names
# What is read of rows: a session is read anew with every line of its progress.
OF_LAUNCH = orm.load_only(Launch.state, Launch.stop_wanted, Launch.deadline_at)
OF_ORDER = orm.load_only(Order.kind, Order.hedge, Order.closing_at, Order.created_at)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session as its doors see it. Holds digests of the secrets that open it, never those themselves."""

    id: str
    state: Literal["starting", "ready", "gone"]
    kind: str | None
    token_hash: bytes = field(repr=False)
    secret_hash: bytes = field(repr=False)
    server_token: str = field(repr=False)
    cookie_key: bytes = field(repr=False)
    deadline: dt.datetime
    early_hashes: tuple[bytes, ...] = field(default=(), repr=False)
    """Of the secrets of machines that are on their way beside the one that leads."""

    def opened_by(self, token: str) -> bool:
        """Whether this is the launch's token, in constant time. Whether it still opens anything is for `state` to say:
        whoever held the key is told that the session has ended, everybody else nothing."""
        return crypto.matches(token, self.token_hash)

    def tunnelled_by(self, secret: str) -> bool:
        """Whether this secret may bring this session's bytes."""
        return self.state != "gone" and crypto.matches(secret, self.secret_hash)

    def is_early(self, secret: str) -> bool:
        """Whether this secret may come to bring them, once its machine leads."""
        return self.state != "gone" and any(crypto.matches(secret, each) for each in self.early_hashes)


def launch_token(service: Service, launch_id: str) -> str:
    """What opens this session without a cookie; dies with the launch."""
    return service.keys.token("launch", launch_id)


def tunnel_secret(service: Service, order_id: str) -> str:
    """What the agent of this order opens its streams with."""
    return service.keys.token("tunnel", order_id)


def server_token(service: Service, order_id: str) -> str:
    """What the server behind the tunnel asks for; no browser ever sees it."""
    return service.keys.token("server", order_id)


def url(service: Service, launch: Launch) -> str:
    """Where a browser enters, without the token. Ends in the file or page that was asked for."""
    chosen = service.settings
    scheme = "https" if chosen.public_url else "http"
    at = "" if chosen.public_url else f":{chosen.port}"
    return f"{scheme}://{launch.id}.{chosen.session_domain}{at}{entry(launch.path)}"


def script_url(service: Service, launch: Launch) -> str:
    """Where a script enters: it cannot resolve `<id>.localhost`, so on this computer it gets a path, with the token only."""
    if service.settings.public_url:
        return url(service, launch)
    return f"http://127.0.0.1:{service.settings.port}/s/{launch.id}/"


def entry(path: str) -> str:
    """The path to open, as a path of the session and nothing else: `https://evil`, `//evil` and `..` lead nowhere else."""
    if not path or path.startswith("/"):
        return inside(path)  # a URL path, as `urlpath` on mybinder.org
    clean = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/lab/tree/" + urllib.parse.quote("/".join(clean))


def below(root: str, path: str) -> str:
    """This path of the session at `root`, which ends in a slash; the root where it would lead out of the session."""
    there = root + path.lstrip("/")
    return there if urllib.parse.urlsplit(there)[:2] == urllib.parse.urlsplit(root)[:2] else root


def tokened(page: str, token: str) -> str:
    """The same address with this token, before the fragment, which browsers keep to themselves."""
    address, mark, fragment = page.partition("#")
    return f"{address}{'&' if '?' in address else '?'}token={token}{mark}{fragment}"


def inside(path: str) -> str:
    """This urlpath as a path of the session's own origin, whatever it was: it begins with exactly one slash and names
    no host, so joining it to the session's URL cannot lead elsewhere."""
    path = "".join(char for char in path if char.isprintable())
    split = urllib.parse.urlsplit(path.replace("\\", "/"))
    if split.scheme or split.netloc:
        return "/"
    parts: list[str] = []
    for part in split.path.split("/"):
        if urllib.parse.unquote(part) == "..":
            parts = parts[:-1]
        elif urllib.parse.unquote(part) != ".":
            parts.append(part)
    clean = urllib.parse.quote("/" + "/".join(parts).lstrip("/"), safe="/%:@!$&'()*+,;=~-._")
    return urllib.parse.urlunsplit(("", "", clean, split.query, split.fragment))


class Directory:
    """The sessions of this process's gateway and tunnel: read from the table, kept for a moment. Thread-safe."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[str, tuple[float, Session | None]] = {}
        self.on_gone: list[Callable[[str], None]] = []
        """Called with the id of a session that has ended, on the thread that found out."""
        self.on_moved: list[Callable[[str], None]] = []
        """Called with the id of a session that another machine leads now: the streams of the one before are nobody's."""
        service.fanout.on_change(self.drop)

    def get(self, session_id: str) -> Session | None:
        """What was read of it last, however long ago. Instant."""
        known = self._known.get(session_id)
        return known[1] if known else None

    def fresh(self, session_id: str) -> bool:
        """Whether `get` can be believed without a `load`."""
        known = self._known.get(session_id)
        if known is None or (known[1] is not None and known[1].state == "starting"):
            return False  # what is starting changes its order, and with it its secrets, from one moment to the next
        return time.monotonic() - known[0] < FRESH_SECONDS

    async def load(self, session_id: str) -> Session | None:
        """The session as the table has it, at most FRESH_SECONDS old. Unknown names are remembered as well."""
        if not self.fresh(session_id):
            await asyncio.to_thread(self._read, session_id)
        return self.get(session_id)

    def refresh(self) -> None:
        """Read anew what has changed of live sessions: a wake-up may have been lost. From any thread; call it now and then."""
        running = _running(self._service)
        for session_id, (_, session) in list(self._known.items()):
            if session and session.state != "gone" and not (session.state == "ready" and session_id in running):
                self._read(session_id)

    def drop(self, session_id: str) -> None:
        """Something changed: read it anew, and say so if it is over. From any thread."""
        known = self._known.get(session_id)
        if known and known[1] and known[1].state != "gone":
            self._read(session_id)
        else:
            self._known.pop(session_id, None)

    def _read(self, session_id: str) -> None:
        before = self.get(session_id)
        found = read(self._service, session_id)
        if len(self._known) > KNOWN_MOST:
            self._known.clear()
        self._known[session_id] = (time.monotonic(), found)
        if found and found.state == "gone" and not (before and before.state == "gone"):
            for call in self.on_gone:
                call(session_id)
        elif found and before and found.secret_hash != before.secret_hash:
            for call in self.on_moved:
                call(session_id)


def _running(service: Service) -> set[str]:
    """The sessions that are ready: with thousands of them nobody reads each."""
    query = sa.select(Launch.id).where(Launch.state == State.READY, Launch.stop_wanted.is_(False))
    with service.db.reading() as session:
        return set(session.scalars(query))


def read(service: Service, session_id: str) -> Session | None:
    """The session of this launch as the table has it now; None where there is no such launch."""
    with service.db.reading() as session:
        launch = session.get(Launch, session_id, options=[OF_LAUNCH])
        found = orders.of_launch(session, session_id, OF_ORDER)
    if launch is None:
        return None
    order = orders.leader(found)
    order_id = order.id if order else ""
    early = [other.id for other in orders.living(found) if other is not order]
    return Session(
        id=launch.id,
        state=_state(launch),
        kind=order.kind if order else None,
        token_hash=crypto.digest(launch_token(service, launch.id)),
        secret_hash=crypto.digest(tunnel_secret(service, order_id)),
        early_hashes=tuple(crypto.digest(tunnel_secret(service, each)) for each in early),
        server_token=server_token(service, order_id),
        cookie_key=service.keys.derive(f"cookie:{launch.id}"),
        deadline=launch.deadline_at,
    )


def _state(launch: Launch) -> Literal["starting", "ready", "gone"]:
    if launch.stop_wanted or launch.state in (State.STOPPING, State.STOPPED):
        return "gone"
    return "ready" if launch.state is State.READY else "starting"


def tunnelled(service: Service, session_id: str) -> None:
    """The first stream of this session is there: the launch may be ready now."""
    with service.db.transaction(passing=True) as session:
        launch = launches.locked(session, session_id)
        if launch is None or launch.state not in BOUGHT:
            return
        leads = orders.leader(orders.of_launch(session, session_id))
        if leads is not None and leads.closing_at is None:
            leads.tunnelled_at = leads.tunnelled_at or service.now()
        launches.nudge(service, session, launch)


def active(service: Service, seconds_ago: dict[str, float]) -> None:
    """Note when somebody last did something in these sessions, as the gateway saw it."""
    now = service.now()
    with service.db.transaction() as session:
        for session_id, ago in seconds_ago.items():
            at = now - dt.timedelta(seconds=ago)
            session.execute(
                sa.update(Launch)
                .where(Launch.id == session_id, sa.or_(Launch.last_activity_at.is_(None), Launch.last_activity_at < at))
                .values(last_activity_at=at)
                .execution_options(synchronize_session=False)
            )
